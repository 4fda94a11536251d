/* The code with the highest score for each row: a product whose result is never written.

   The lanes of a vector are rows and not codes. So a row's scores come one after the other in the same lane, the best so far is one
   vector, and codes are read as they lie. */

#define NEAREST_VECTORS 3                       /* of rows at a time; with so many codes the sums fill the registers */
#define NEAREST_CODES (LANES == 16 ? 8 : 4)     /* at a time: seven loads for twelve multiply-adds, or eleven for 24 */
#define NEAREST_ROWS (NEAREST_VECTORS * LANES)  /* in a panel */
#define NEAREST_PANELS 6                        /* of rows that a thread takes at a time */
#define NEAREST_BLOCK (4 * 1024)                /* floats of the codebook that stay in the first-level cache meanwhile */

/* The best score of each row of a panel so far, and whose it is. */
typedef struct {
    vec score[NEAREST_VECTORS];
    ivec code[NEAREST_VECTORS];
} best_t;

/* Folds the scores of `count` codes, from `first` on, into the bests of a panel of rows. Each score is one chain of fused
   multiply-adds in the order of depth, so it does not depend on the company of row or code. */
INLINE void nearest_tile(const float *codes, const float *bias, const float *panel, long depth, int first, best_t *best, int count) {
    vec scores[NEAREST_CODES][NEAREST_VECTORS], highest[NEAREST_VECTORS];
    UNROLL for (int c = 0; c < count; c++) UNROLL for (int v = 0; v < NEAREST_VECTORS; v++) scores[c][v] = splat(bias[c]);
    _Pragma("GCC unroll 4") for (long d = 0; d < depth; d++) {
        vec rows[NEAREST_VECTORS];
        UNROLL for (int v = 0; v < NEAREST_VECTORS; v++) rows[v] = load(panel + d * NEAREST_ROWS + v * LANES);
        UNROLL for (int c = 0; c < count; c++) {
            vec value = splat(codes[c * depth + d]);
            UNROLL for (int v = 0; v < NEAREST_VECTORS; v++) scores[c][v] += value * rows[v];
        }
    }
    ivec better[NEAREST_VECTORS], some = {0};
    UNROLL for (int v = 0; v < NEAREST_VECTORS; v++) {
        highest[v] = best->score[v];
        UNROLL for (int c = 0; c < count; c++) highest[v] = vmax(scores[c][v], highest[v]);
        some |= better[v] = highest[v] > best->score[v];
    }
    if (!any(some)) return; /* nearly always: among K codes the best so far changes about ln K times */
    UNROLL for (int v = 0; v < NEAREST_VECTORS; v++) {
        best->score[v] = highest[v];
        UNROLL for (int c = count - 1; c >= 0; c--) { /* the lowest of those that are equal comes last and stays */
            ivec here = better[v] & (scores[c][v] == highest[v]);
            best->code[v] = (here & (first + c)) | (~here & best->code[v]);
        }
    }
}

/* The codes of up to 6 panels of rows. */
static void nearest_rows(const float *rows, const float *codebook, const float *bias, int64_t *codes, long count, long depth, long size) {
    long block = NEAREST_BLOCK / depth / NEAREST_CODES * NEAREST_CODES, panels = (count + NEAREST_ROWS - 1) / NEAREST_ROWS;
    best_t best[NEAREST_PANELS];
    float *packed = aligned_alloc(64, (sizeof(float) * panels * NEAREST_ROWS * depth + 63) / 64 * 64);
    block = block ? block : NEAREST_CODES;
    for (long p = 0; p < panels; p++)
        for (int v = 0; v < NEAREST_VECTORS; v++) best[p].score[v] = splat(-INFINITY), best[p].code[v] = (ivec){0};
    pack_panels(rows, count, depth, NEAREST_ROWS, packed);
    for (long from = 0; from < size; from += block) {
        long to = size - from < block ? size : from + block;
        for (long p = 0; p < panels; p++) {
            const float *panel = packed + p * NEAREST_ROWS * depth;
            long k = from;
            for (; k + NEAREST_CODES <= to; k += NEAREST_CODES)
                nearest_tile(codebook + k * depth, bias + k, panel, depth, (int)k, best + p, NEAREST_CODES);
            for (; k < to; k++) nearest_tile(codebook + k * depth, bias + k, panel, depth, (int)k, best + p, 1);
        }
    }
    for (long r = 0; r < count; r++) codes[r] = best[r / NEAREST_ROWS].code[r % NEAREST_ROWS / LANES][r % LANES];
    free(packed);
}

#include "nearest_bytes.h"

/* codes[n] = the lowest k with the highest row_n . code_k + bias_k; 0 where no score is above -infinity. Where `bytes` is not 0,
   products of bytes may find the candidates. */
void NAME(nearest)(const float *rows, const float *codebook, const float *bias, int64_t *codes, int64_t count,
                   int64_t depth, int64_t size, int64_t bytes, int threads) {
    long together = NEAREST_PANELS * NEAREST_ROWS;
#if LANES == 16
    if (bytes && __builtin_cpu_supports("avx512vnni") && nearest_by_bytes(rows, codebook, bias, codes, count, depth, size, threads)) return;
#endif
    (void)bytes;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (long start = 0; start < count; start += together)
        nearest_rows(rows + start * depth, codebook, bias, codes + start, count - start < together ? count - start : together, depth, size);
}
