/* Products of a few rows with a large packed matrix. */

#define DEPTH_PART 256 /* of a panel at a time: 16 or 32 KB that stay in the first-level cache for all rows */

INLINE void linear_tile(const float *left, long stride, const float *panel, long depth, vec (*sums)[2], const char *ahead,
                        long ahead_step, int rows) {
    vec here[TILE_ROWS][2];
    UNROLL for (int r = 0; r < rows; r++) here[r][0] = sums[r][0], here[r][1] = sums[r][1];
    multiply(left, stride, panel, depth, here, ahead, ahead_step, rows);
    UNROLL for (int r = 0; r < rows; r++) sums[r][0] = here[r][0], sums[r][1] = here[r][1];
}

static void linear_rows(const float *left, long stride, const float *panel, long depth, vec (*sums)[2], long rows) {
    long tiles = (rows + TILE_ROWS - 1) / TILE_ROWS, step = sizeof(float) * PANEL / tiles, count;
    const char *ahead = (const char *)(panel + depth * PANEL);
    for (long r = 0; r < rows; r += count, tiles--, ahead += depth * step) {
        count = (rows - r + tiles - 1) / tiles; /* 8 rows are twice 4 and not 6 and 2: few rows are slow */
#define CALL(n) linear_tile(left + r * stride, stride, panel, depth, sums + r, ahead, step, n)
        WITH_ROWS(count, CALL)
#undef CALL
    }
}

#define WIDE 4 /* panels that a single row is multiplied with at once: its sums alone would wait for each other */

/* sums[p] += a row times panel p of WIDE, which lie `step` floats apart; the same chains as above. */
static void linear_wide(const float *left, const float *panels, long step, long depth, vec (*sums)[2]) {
    vec here[WIDE][2];
    UNROLL for (int p = 0; p < WIDE; p++) here[p][0] = sums[p][0], here[p][1] = sums[p][1];
    for (long d = 0; d < depth; d++) {
        vec value = splat(left[d]);
        UNROLL for (int p = 0; p < WIDE; p++) {
            const float *panel = panels + p * step + d * PANEL;
            __builtin_prefetch(panel + 512);
            here[p][0] += value * load(panel);
            here[p][1] += value * load(panel + LANES);
        }
    }
    UNROLL for (int p = 0; p < WIDE; p++) sums[p][0] = here[p][0], sums[p][1] = here[p][1];
}

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
            for (long d = 0; d < depth; d += DEPTH_PART) {
                long part = depth - d < DEPTH_PART ? depth - d : DEPTH_PART;
                linear_rows(left + d, depth, panel + d * PANEL, part, sums, rows);
            }
            for (long r = 0; gelu && r < rows; r++) sums[r][0] = vgelu(sums[r][0]), sums[r][1] = vgelu(sums[r][1]);
            long width = columns - p * PANEL < PANEL ? columns - p * PANEL : PANEL;
            for (long r = 0; r < rows; r++) memcpy(out + r * columns + p * PANEL, sums[r], sizeof(float) * width);
        }
        free(sums);
    }
}
