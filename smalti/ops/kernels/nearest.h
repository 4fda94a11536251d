/* The code with the highest score for each row: a product whose result is never written. */

#define NEAREST_ROWS (16 * TILE_ROWS) /* rows that a thread takes at a time */
#define NEAREST_BLOCK (4 * 1024)      /* floats of the codebook that stay in the first-level cache for all these rows */

/* For each row and lane: the best score so far, and the group of panels that it came from. */
typedef struct {
    vec score[2];
    ivec group[2];
} best_t;

/* Scores of `count` panels (a group), folded into the bests of a tile of rows. */
INLINE void nearest_tile(const float *left, const float *panels, const float *bias, long depth, long count, int group,
                         best_t *best, int rows) {
    vec highest[TILE_ROWS][2];
    UNROLL for (int r = 0; r < rows; r++) highest[r][0] = highest[r][1] = splat(-INFINITY);
    for (long p = 0; p < count; p++) {
        vec sums[TILE_ROWS][2];
        UNROLL for (int r = 0; r < rows; r++) sums[r][0] = load(bias + p * PANEL), sums[r][1] = load(bias + p * PANEL + LANES);
        const float *panel = panels + p * depth * PANEL;
        multiply(left, depth, panel, depth, sums, (const char *)panel, 0, rows);
        UNROLL for (int r = 0; r < rows; r++) {
            highest[r][0] = vmax(sums[r][0], highest[r][0]);
            highest[r][1] = vmax(sums[r][1], highest[r][1]);
        }
    }
    UNROLL for (int r = 0; r < rows; r++) UNROLL for (int i = 0; i < 2; i++) {
        ivec better = highest[r][i] > best[r].score[i];
        best[r].score[i] = choose(better, highest[r][i], best[r].score[i]);
        best[r].group[i] = (better & group) | (~better & best[r].group[i]);
    }
}

/* The lowest code that has the best score of a row; scores of a group are made again, with the same rounding. */
static int64_t nearest_code_of(const float *left, const float *packed, const float *bias, long depth, long panels,
                               long group_panels, const best_t *best) {
    float highest = -INFINITY;
    for (int lane = 0; lane < PANEL; lane++)
        highest = fmaxf(highest, best->score[lane / LANES][lane % LANES]);
    int64_t code = INT64_MAX;
    for (int lane = 0; lane < PANEL; lane++) {
        if (best->score[lane / LANES][lane % LANES] != highest) continue;
        long p = best->group[lane / LANES][lane % LANES] * group_panels;
        long last = p + group_panels < panels ? p + group_panels : panels;
        for (; p < last - 1; p++) {
            vec sums[1][2] = {{load(bias + p * PANEL), load(bias + p * PANEL + LANES)}};
            const float *panel = packed + p * depth * PANEL;
            multiply(left, depth, panel, depth, sums, (const char *)panel, 0, 1);
            if (sums[0][lane / LANES][lane % LANES] == highest) break;
        }
        code = p * PANEL + lane < code ? p * PANEL + lane : code;
    }
    return code == INT64_MAX ? 0 : code; /* every score was not a number */
}

/* codes[n] = the lowest k with the highest left_n . code_k + bias_k. The bias is -infinity past the last code. */
void NAME(nearest)(const float *left, const float *packed, const float *bias, int64_t *codes, long rows, long depth,
                   long columns, int threads) {
    long panels = (columns + PANEL - 1) / PANEL;
    /* remembering where the best score was costs more than a panel of few dimensions; making a group's scores again costs less the
       smaller a part of all panels it is */
    long most = panels / 64 > 64 / depth ? panels / 64 : 64 / depth, group_panels = 256 / depth < most ? 256 / depth : most;
    group_panels = group_panels ? group_panels : 1;
    long groups = (panels + group_panels - 1) / group_panels;
    long block = NEAREST_BLOCK / (group_panels * depth * PANEL);
    block = block ? block : 1;
    PARALLEL(for num_threads(threads) schedule(dynamic))
    for (long start = 0; start < rows; start += NEAREST_ROWS) {
        long end = rows - start < NEAREST_ROWS ? rows : start + NEAREST_ROWS;
        best_t best[NEAREST_ROWS];
        for (long r = 0; r < end - start; r++)
            best[r] = (best_t){{splat(-INFINITY), splat(-INFINITY)}, {{0}, {0}}};
        for (long from = 0; from < groups; from += block)
            for (long r = start; r < end; r += TILE_ROWS)
                for (long g = from; g < groups && g < from + block; g++) {
                    long p = g * group_panels, count = panels - p < group_panels ? panels - p : group_panels;
                    long tile = end - r < TILE_ROWS ? end - r : TILE_ROWS;
#define CALL(n) \
    nearest_tile(left + r * depth, packed + p * depth * PANEL, bias + p * PANEL, depth, count, (int)g, best + r - start, n)
                    WITH_ROWS(tile, CALL)
#undef CALL
                }
        for (long r = start; r < end; r++)
            codes[r] = nearest_code_of(left + r * depth, packed, bias, depth, panels, group_panels, best + r - start);
    }
}
