/* The heart of every product here: a tile of some rows times a panel of packed columns, its sums in registers. */

/* Rows of a tile: with two vectors a row, the sums fill the registers but for those of the two operands. */
#if LANES == 16
#define TILE_ROWS 12
#elif LANES == 8
#define TILE_ROWS 6
#else
#define TILE_ROWS 4
#endif

/* CALL(n) with the constant n that equals `rows`, 1 to TILE_ROWS. */
#define TILE_CASE(n, CALL) \
    case n: \
        CALL(n); \
        break;
#if TILE_ROWS == 4
#define MORE_CASES(CALL)
#elif TILE_ROWS == 6
#define MORE_CASES(CALL) TILE_CASE(5, CALL) TILE_CASE(6, CALL)
#else
#define MORE_CASES(CALL) \
    TILE_CASE(5, CALL) TILE_CASE(6, CALL) TILE_CASE(7, CALL) TILE_CASE(8, CALL) TILE_CASE(9, CALL) TILE_CASE(10, CALL) \
    TILE_CASE(11, CALL) TILE_CASE(12, CALL)
#endif
#define WITH_ROWS(rows, CALL) \
    switch (rows) { TILE_CASE(1, CALL) TILE_CASE(2, CALL) TILE_CASE(3, CALL) TILE_CASE(4, CALL) MORE_CASES(CALL) }

/* (columns, depth) row by row -> panels of `wide` columns, [panel][depth][wide], filled up with zeros. */
static void pack_panels(const float *matrix, long columns, long depth, long wide, float *packed) {
    for (long first = 0; first < columns; first += wide, packed += depth * wide) {
        long width = columns - first < wide ? columns - first : wide;
        if (width < wide) memset(packed, 0, sizeof(float) * depth * wide);
        for (long column = 0; column < width; column++)
            for (long d = 0; d < depth; d++) packed[d * wide + column] = matrix[(first + column) * depth + d];
    }
}

void NAME(pack)(const float *matrix, int64_t columns, int64_t depth, float *packed, int threads) {
    PARALLEL(for num_threads(threads) schedule(static))
    for (long first = 0; first < columns; first += PANEL) {
        long width = columns - first < PANEL ? columns - first : PANEL;
        pack_panels(matrix + first * depth, width, depth, PANEL, packed + first * depth);
    }
}

/* sums[r] += row r of `left` times a panel; `rows` is a constant wherever this is called. Each sum is one chain of fused
   multiply-adds in the order of depth, so a row's result does not depend on its company. Every step asks for a little of
   what comes `ahead`, so that memory is read while sums are made. */
INLINE void multiply(const float *left, long stride, const float *panel, long depth, vec (*sums)[2], const char *ahead,
                     long ahead_step, int rows) {
    _Pragma("GCC unroll 4") for (long d = 0; d < depth; d++) {
        __builtin_prefetch(ahead + d * ahead_step);
        vec first = load(panel + d * PANEL), second = load(panel + d * PANEL + LANES);
        UNROLL for (int r = 0; r < rows; r++) {
            vec value = splat(left[r * stride + d]);
            sums[r][0] += value * first;
            sums[r][1] += value * second;
        }
    }
}

/* ------------------------------------------------------------------ products of some rows with a packed matrix */

#define DEPTH_PART 256 /* of a panel at a time: 16 or 32 KB that stay in the first-level cache for all rows */

INLINE void linear_tile(const float *left, long stride, const float *panel, long depth, vec (*sums)[2], const char *ahead,
                        long ahead_step, int rows) {
    vec here[TILE_ROWS][2];
    UNROLL for (int r = 0; r < rows; r++) here[r][0] = sums[r][0], here[r][1] = sums[r][1];
    multiply(left, stride, panel, depth, here, ahead, ahead_step, rows);
    UNROLL for (int r = 0; r < rows; r++) sums[r][0] = here[r][0], sums[r][1] = here[r][1];
}

/* sums[r] += rows of `left` times one panel. */
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

#define WIDE 4 /* panels that one or two rows are multiplied with at once: the sums of one panel would wait for each other */

/* sums[r][p] += row r of `rows` times panel p of `wide`, which lie `step` floats apart; the same chains as above. */
INLINE void linear_wide(const float *left, long stride, const float *panels, long step, long depth, vec (*sums)[WIDE][2], int rows,
                        int wide) {
    vec here[2][WIDE][2];
    UNROLL for (int r = 0; r < rows; r++) UNROLL for (int p = 0; p < wide; p++)
        here[r][p][0] = sums[r][p][0], here[r][p][1] = sums[r][p][1];
    for (long d = 0; d < depth; d++) {
        vec value[2];
        UNROLL for (int r = 0; r < rows; r++) value[r] = splat(left[r * stride + d]);
        UNROLL for (int p = 0; p < wide; p++) {
            const float *panel = panels + p * step + d * PANEL;
            __builtin_prefetch(panel + 512);
            vec first = load(panel), second = load(panel + LANES);
            UNROLL for (int r = 0; r < rows; r++) {
                here[r][p][0] += value[r] * first;
                here[r][p][1] += value[r] * second;
            }
        }
    }
    UNROLL for (int r = 0; r < rows; r++) UNROLL for (int p = 0; p < wide; p++)
        sums[r][p][0] = here[r][p][0], sums[r][p][1] = here[r][p][1];
}
