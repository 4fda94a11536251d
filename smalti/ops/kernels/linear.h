/* Products of a few rows with a large matrix, and the packing that all products here share. */

/* Rows of a tile: with two vectors a row, the sums fill the registers but for those of the two operands. */
#if LANES == 16
#define TILE_ROWS 12
#elif LANES == 8
#define TILE_ROWS 6
#else
#define TILE_ROWS 4
#endif

/* (columns, depth) row by row -> panels of PANEL columns, [panel][depth][PANEL], filled up with zeros. */
void NAME(pack)(const float *matrix, long columns, long depth, float *packed, int threads) {
    long panels = (columns + PANEL - 1) / PANEL;
    PARALLEL(for num_threads(threads) schedule(static))
    for (long p = 0; p < panels; p++) {
        float *panel = packed + p * depth * PANEL;
        long width = columns - p * PANEL < PANEL ? columns - p * PANEL : PANEL;
        if (width < PANEL) memset(panel, 0, sizeof(float) * depth * PANEL);
        for (long column = 0; column < width; column++)
            for (long d = 0; d < depth; d++) panel[d * PANEL + column] = matrix[(p * PANEL + column) * depth + d];
    }
}

/* Where the matrix goes on: every step of a product asks for a little of what the next part of the depth will need, so
   that memory is read while sums are made. */
typedef struct {
    const char *from;
    long step;
} ahead_t;

/* sums[r] += row r of `left` times a panel; `rows` is a constant wherever this is called. Each sum is one chain of fused
   multiply-adds in the order of depth, so a row's result does not depend on its company. */
INLINE void tile(const float *left, long stride, const float *panel, long depth, vec (*sums)[2], ahead_t ahead, int rows) {
    vec here[TILE_ROWS][2];
    UNROLL for (int r = 0; r < rows; r++) here[r][0] = sums[r][0], here[r][1] = sums[r][1];
    for (long d = 0; d < depth; d++) {
        __builtin_prefetch(ahead.from + d * ahead.step);
        vec first = load(panel + d * PANEL), second = load(panel + d * PANEL + LANES);
        UNROLL for (int r = 0; r < rows; r++) {
            vec value = splat(left[r * stride + d]);
            here[r][0] += value * first;
            here[r][1] += value * second;
        }
    }
    UNROLL for (int r = 0; r < rows; r++) sums[r][0] = here[r][0], sums[r][1] = here[r][1];
}

static void tiles(const float *left, long stride, const float *panel, long depth, vec (*sums)[2], long rows) {
    long step = sizeof(float) * PANEL / ((rows + TILE_ROWS - 1) / TILE_ROWS);
    ahead_t ahead = {(const char *)(panel + depth * PANEL), step};
    for (; rows >= TILE_ROWS; rows -= TILE_ROWS, left += TILE_ROWS * stride, sums += TILE_ROWS, ahead.from += depth * step)
        tile(left, stride, panel, depth, sums, ahead, TILE_ROWS);
    switch (rows) {
#define REST(n) \
    case n: \
        tile(left, stride, panel, depth, sums, ahead, n); \
        break;
        REST(1) REST(2) REST(3)
#if TILE_ROWS > 4
        REST(4) REST(5)
#endif
#if TILE_ROWS > 6
        REST(6) REST(7) REST(8) REST(9) REST(10) REST(11)
#endif
#undef REST
    }
}

#define DEPTH_PART 256 /* of a panel at a time: 16 or 32 KB that stay in the first-level cache for all rows */

/* GELU with the tanh of GPT-2. */
INLINE vec vgelu(vec x) { return 0.5f * x * (1.0f + vtanh(0.797884561f * (x + 0.044715f * x * x * x))); }

/* out (rows, columns) = left (rows, depth) x packed + bias, or its GELU; the bias is filled up to whole panels. */
void NAME(linear)(const float *left, const float *packed, const float *bias, float *out, long rows, long depth,
                  long columns, long gelu, int threads) {
    if (!rows) return;
    long panels = (columns + PANEL - 1) / PANEL;
    PARALLEL(num_threads(threads)) {
        vec(*sums)[2] = malloc(rows * sizeof *sums);
#pragma omp for schedule(static)
        for (long p = 0; p < panels; p++) {
            const float *panel = packed + p * depth * PANEL;
            for (long r = 0; r < rows; r++) memcpy(sums[r], bias + p * PANEL, sizeof *sums);
            for (long d = 0; d < depth; d += DEPTH_PART)
                tiles(left + d, depth, panel + d * PANEL, depth - d < DEPTH_PART ? depth - d : DEPTH_PART, sums, rows);
            for (long r = 0; gelu && r < rows; r++) sums[r][0] = vgelu(sums[r][0]), sums[r][1] = vgelu(sums[r][1]);
            long width = columns - p * PANEL < PANEL ? columns - p * PANEL : PANEL;
            for (long r = 0; r < rows; r++) memcpy(out + r * columns + p * PANEL, sums[r], sizeof(float) * width);
        }
        free(sums);
    }
}
