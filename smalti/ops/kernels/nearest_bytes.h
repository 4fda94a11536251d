/* The code with the highest score for each row, as nearest.h has it to the last bit, by products of bytes.

   A processor with VNNI multiplies and adds four times as many bytes as floats at a time. Rows and codes, both less the mean code,
   are rounded to 8 bits; by the inequality of Cauchy and Schwarz an approximate score is then off by at most
   |error of row| |code| + |rounded row| |error of code|, and whatever lies within twice of that of the highest may be the code
   sought. Mostly that is one code. Where it is several, their scores are computed as nearest.h computes them. */

#if LANES == 16
#pragma GCC push_options
#pragma GCC target("avx512vnni")

#define BYTES_DEPTH 32   /* from here on it is faster, */
#define BYTES_CODES 1024 /* if there are so many codes */
#define BYTES_ROWS 256   /* and rows */
#define BYTES_BLOCK (16 * 1024) /* bytes of the codebook that stay in the first-level cache */
#define CANDIDATES 32    /* of a row, at most; more are rare, and left to nearest.h */
#define CHAINS 8         /* scores that are computed side by side */

/* The codebook in bytes. */
typedef struct {
    int8_t *codes;    /* [K][width], the mean code subtracted */
    int32_t *starts;  /* [K] -128 times the sum of a code: rows are stored with 128 added */
    float *bias;      /* [K], for the codes less the mean */
    float *mean;      /* [D] */
    long width, groups; /* D in whole vectors; in groups of four bytes */
    float scale, length, error, slack; /* of the bytes; most of |code|, |error of code|, and what floats may lose a unit of |row| */
    float row_slack;  /* and apart from the row */
} byte_codebook;

/* The rows of a panel in bytes, and what is known of their scores so far. */
typedef struct {
    vec scale[NEAREST_VECTORS], margin[NEAREST_VECTORS], highest[NEAREST_VECTORS], least[NEAREST_VECTORS];
    int count[NEAREST_ROWS], code[NEAREST_ROWS][CANDIDATES];
    float score[NEAREST_ROWS][CANDIDATES];
    int crowded;
} byte_panel;

/* A row or a code less the mean: into `values`, filled up with zeros to whole vectors; gives the largest number without its sign. */
INLINE float centre(const float *from, const float *mean, long depth, float *values) {
    vec most = splat(0);
    long d = 0;
    for (; d + LANES <= depth; d += LANES) {
        vec value = load(from + d) - load(mean + d);
        store(values + d, value);
        most = vmax(vmax(value, -value), most);
    }
    for (long i = d; i < d + LANES; i++) values[i] = i < depth ? from[i] - mean[i] : 0;
    return largest(vmax(vmax(load(values + d), -load(values + d)), most));
}

/* Values as bytes, in units of `scale`; gives the length of what is left, squared. */
INLINE float round_to_bytes(const float *values, long depth, float scale, int8_t *bytes) {
    vec inverse = splat(scale > 1e-30f ? 1 / scale : 0), error = splat(0);
    for (long d = 0; d < depth; d += LANES) {
        __m512i rounded = _mm512_cvtps_epi32((__m512)(load(values + d) * inverse));
        _mm_storeu_si128((__m128i *)(bytes + d), _mm512_cvtsepi32_epi8(rounded));
        vec left = load(values + d) - (vec)_mm512_cvtepi32_ps(rounded) * scale;
        error += left * left;
    }
    return total(error);
}

/* Whether all are numbers, and none is infinite. */
INLINE int all_finite(const float *values, long count) {
    vec sum = splat(0);
    float rest = 0;
    long i = 0;
    for (; i + LANES <= count; i += LANES) sum += load(values + i) * 0.0f; /* a zero, if it is */
    for (; i < count; i++) rest += values[i] * 0.0f;
    return total(sum) + rest == 0;
}

/* Rounds a codebook; whether it can be. */
static int round_codebook(const float *codebook, const float *bias, long depth, long size, byte_codebook *into, float *values) {
    float *mean = into->mean, highest = 0, most_bias = 0, length = 0, error = 0;
    if (!all_finite(codebook, size * depth) || !all_finite(bias, size)) return 0;
    memset(mean, 0, sizeof(float) * depth);
    for (long k = 0; k < size; k++)
        for (long d = 0; d < depth; d++) mean[d] += codebook[k * depth + d];
    for (long d = 0; d < depth; d++) mean[d] /= size;
    for (long k = 0; k < size; k++) {
        float own = centre(codebook + k * depth, mean, depth, values);
        highest = own > highest ? own : highest, most_bias = fabsf(bias[k]) > most_bias ? fabsf(bias[k]) : most_bias;
    }
    if (!(highest > 1e-15f && highest < 1e15f && most_bias < 1e30f)) return 0;
    into->scale = highest / 127;
    for (long k = 0; k < size; k++) {
        int8_t *bytes = into->codes + k * into->width;
        centre(codebook + k * depth, mean, depth, values);
        float own_length = dot(values, values, depth), own_error = round_to_bytes(values, depth, into->scale, bytes);
        int sum = 0;
        for (long d = 0; d < depth; d++) sum += bytes[d];
        into->starts[k] = -128 * sum, into->bias[k] = bias[k] + dot(mean, values, depth);
        length = own_length > length ? own_length : length, error = own_error > error ? own_error : error;
    }
    float mean_length = sqrtf(dot(mean, mean, depth)), rounding = 4 * (depth + 8) * 0x1p-24f; /* of a chain of additions, generously */
    into->length = sqrtf(length) * 1.0001f, into->error = sqrtf(error) * 1.0001f;
    into->slack = rounding * (into->length + 2 * mean_length);
    into->row_slack = rounding * (most_bias + mean_length * (into->length + mean_length));
    return 1;
}

/* Rounds up to 48 rows; whether they can be. */
static int round_rows(const float *rows, long count, long depth, const byte_codebook *codebook, uint8_t *bytes, byte_panel *panel,
                      float *values) {
    float *scales = (float *)panel->scale, *margins = (float *)panel->margin;
    int8_t *rounded = (int8_t *)(values + codebook->width);
    memset(bytes, 128, codebook->groups * 4 * NEAREST_ROWS);
    for (long r = 0; r < NEAREST_ROWS; r++) {
        panel->count[r] = 0, scales[r] = 0, margins[r] = 0;
        if (r >= count) continue;
        float scale = centre(rows + r * depth, codebook->mean, depth, values) / 127, length = sqrtf(dot(values, values, depth)) * 1.0001f;
        float error = sqrtf(round_to_bytes(values, depth, scale, rounded)) * 1.0001f;
        for (long g = 0; g < codebook->groups; g++) {
            uint32_t four;
            memcpy(&four, rounded + 4 * g, 4);
            four ^= 0x80808080u; /* 128 more */
            memcpy(bytes + (g * NEAREST_ROWS + r) * 4, &four, 4);
        }
        float off = error * codebook->length + (length + error) * codebook->error;
        scales[r] = scale * codebook->scale;
        margins[r] = 2.002f * (off + codebook->slack * length + codebook->row_slack) + 1e-30f;
    }
    for (int v = 0; v < NEAREST_VECTORS; v++) panel->highest[v] = panel->least[v] = splat(-INFINITY);
    panel->crowded = 0;
    return all_finite(scales, NEAREST_ROWS) && all_finite(margins, NEAREST_ROWS);
}

/* Keeps the candidates of a row whose scores are within its margin of the highest. */
static int keep_candidates(byte_panel *panel, int row, float least) {
    int kept = 0;
    for (int i = 0; i < panel->count[row]; i++)
        if (panel->score[row][i] >= least) {
            panel->code[row][kept] = panel->code[row][i];
            panel->score[row][kept++] = panel->score[row][i];
        }
    return panel->count[row] = kept;
}

/* Adds to a row's candidates. */
static void add_candidate(byte_panel *panel, int row, int code, float score) {
    if (panel->count[row] == CANDIDATES && keep_candidates(panel, row, ((float *)panel->least)[row]) == CANDIDATES) {
        panel->crowded = 1;
        return;
    }
    int place = panel->count[row]++;
    panel->code[row][place] = code, panel->score[row][place] = score;
}

/* Adds what is a candidate among the scores of `count` codes from `first` on. */
static __attribute__((noinline)) void add_candidates(byte_panel *panel, const vec *scores, long first, int count) {
    for (int v = 0; v < NEAREST_VECTORS; v++) {
        panel->least[v] = panel->highest[v] - panel->margin[v];
        for (int c = 0; c < count; c++) {
            vec own = scores[c * NEAREST_VECTORS + v];
            __mmask16 mask = _mm512_cmp_ps_mask((__m512)own, (__m512)panel->least[v], _CMP_GE_OQ);
            for (; mask; mask &= mask - 1) {
                int lane = __builtin_ctz(mask);
                add_candidate(panel, v * LANES + lane, (int)(first + c), own[lane]);
            }
        }
    }
}

/* Finds the candidates of a panel's rows among `count` codes from `first` on; where it only looks, no more than the highest scores. */
INLINE void bytes_tile(const byte_codebook *codebook, long first, const uint8_t *rows, byte_panel *panel, int count, int look) {
    ivec sums[NEAREST_CODES][NEAREST_VECTORS];
    long groups = codebook->groups;
    const int8_t *codes = codebook->codes + first * codebook->width;
    UNROLL for (int c = 0; c < count; c++) UNROLL for (int v = 0; v < NEAREST_VECTORS; v++) sums[c][v] = codebook->starts[first + c] - (ivec){0};
    for (long g = 0; g < groups; g++) {
        ivec four[NEAREST_VECTORS];
        UNROLL for (int v = 0; v < NEAREST_VECTORS; v++) four[v] = *(const ivec *)(rows + (g * NEAREST_ROWS + v * LANES) * 4);
        UNROLL for (int c = 0; c < count; c++) {
            ivec value = *(const int32_t *)(codes + c * codebook->width + 4 * g) - (ivec){0};
            UNROLL for (int v = 0; v < NEAREST_VECTORS; v++)
                sums[c][v] = (ivec)_mm512_dpbusd_epi32((__m512i)sums[c][v], (__m512i)four[v], (__m512i)value);
        }
    }
    vec scores[NEAREST_CODES][NEAREST_VECTORS];
    ivec some = {0};
    UNROLL for (int v = 0; v < NEAREST_VECTORS; v++) {
        vec scale = panel->scale[v], highest = splat(-INFINITY);
        UNROLL for (int c = 0; c < count; c++) {
            scores[c][v] = __builtin_convertvector(sums[c][v], vec) * scale + splat(codebook->bias[first + c]);
            highest = vmax(scores[c][v], highest);
        }
        some |= highest >= panel->least[v];
        panel->highest[v] = vmax(highest, panel->highest[v]);
    }
    if (look) UNROLL for (int v = 0; v < NEAREST_VECTORS; v++) panel->least[v] = panel->highest[v] - panel->margin[v];
    if (look || !any(some)) return;
    vec kept[NEAREST_CODES * NEAREST_VECTORS];
    UNROLL for (int c = 0; c < count; c++) UNROLL for (int v = 0; v < NEAREST_VECTORS; v++) kept[c * NEAREST_VECTORS + v] = scores[c][v];
    add_candidates(panel, kept, first, count);
}

/* bytes_tile() for the codes from `first` to `last`. */
static void bytes_codes(const byte_codebook *codebook, long first, long last, const uint8_t *rows, byte_panel *panel, int look) {
    long k = first;
    if (look) {
        for (; k + NEAREST_CODES <= last; k += NEAREST_CODES) bytes_tile(codebook, k, rows, panel, NEAREST_CODES, 1);
        return;
    }
    for (; k + NEAREST_CODES <= last; k += NEAREST_CODES) bytes_tile(codebook, k, rows, panel, NEAREST_CODES, 0);
    for (; k < last; k++) bytes_tile(codebook, k, rows, panel, 1, 0);
}

/* The best of a row's candidates by the scores of nearest.h. */
static int best_candidate(const byte_panel *panel, int row, const float *values, const float *codebook, const float *bias, long depth) {
    int count = panel->count[row], best = panel->code[row][0];
    float highest = -INFINITY;
    for (int from = 0; from < count; from += CHAINS) {
        int here = count - from < CHAINS ? count - from : CHAINS;
        const float *codes[CHAINS];
        float scores[CHAINS];
        for (int i = 0; i < CHAINS; i++) {
            int code = panel->code[row][from + (i < here ? i : 0)];
            codes[i] = codebook + code * depth, scores[i] = bias[code];
        }
        for (long d = 0; d < depth; d++) UNROLL for (int i = 0; i < CHAINS; i++) scores[i] = __builtin_fmaf(codes[i][d], values[d], scores[i]);
        for (int i = 0; i < here; i++)
            if (scores[i] > highest || (scores[i] == highest && panel->code[row][from + i] < best))
                highest = scores[i], best = panel->code[row][from + i];
    }
    return best;
}

/* As nearest(), to the last bit; whether it was done. */
static int nearest_by_bytes(const float *rows, const float *codebook, const float *bias, int64_t *codes, int64_t count, int64_t depth,
                            int64_t size, int threads) {
    long groups = (depth + 3) / 4;
    if (depth < BYTES_DEPTH || depth > 1 << 16 || size < BYTES_CODES || count < BYTES_ROWS) return 0;
    long width = (depth / LANES + 1) * LANES;
    byte_codebook whole = {.groups = groups, .width = width};
    char *memory = aligned_alloc(64, ((sizeof(int32_t) + sizeof(float) + width) * size + sizeof(float) * (width + depth) + 63) / 64 * 64);
    whole.starts = (int32_t *)memory, whole.bias = (float *)(whole.starts + size), whole.mean = whole.bias + size;
    whole.codes = (int8_t *)(whole.mean + depth + width);
    if (!round_codebook(codebook, bias, depth, size, &whole, whole.mean + depth)) {
        free(memory);
        return 0;
    }
    long together = NEAREST_PANELS * NEAREST_ROWS, block = BYTES_BLOCK / width / NEAREST_CODES * NEAREST_CODES;
    block = block ? block : NEAREST_CODES;
    long blocks = (size + block - 1) / block;
    PARALLEL(num_threads(threads)) {
        uint8_t *bytes = aligned_alloc(64, 4 * groups * together);
        float *values = aligned_alloc(64, (5 * width + 63) / 64 * 64);
        byte_panel *panels = aligned_alloc(64, (sizeof(byte_panel) * NEAREST_PANELS + 63) / 64 * 64);
        long tried = 0, in_vain = 0; /* panels: where many are crowded, bytes are too coarse for these rows and codes */
#pragma omp for schedule(dynamic)
        for (long start = 0; start < count; start += together) {
            long here = count - start < together ? count - start : together;
            if (4 * in_vain > tried) {
                nearest_rows(rows + start * depth, codebook, bias, codes + start, here, depth, size);
                continue;
            }
            int fine[NEAREST_PANELS];
            for (long p = 0; p * NEAREST_ROWS < here; p++) {
                long first = p * NEAREST_ROWS, own = here - first < NEAREST_ROWS ? here - first : NEAREST_ROWS;
                fine[p] = round_rows(rows + (start + first) * depth, own, depth, &whole, bytes + 4 * groups * first, panels + p, values);
            }
            /* The first block is only looked at, and comes again as the last: with a high score known, few are candidates. */
            for (long turn = 0; turn <= blocks; turn++) {
                long first = turn % blocks * block, last = size - first < block ? size : first + block;
                for (long p = 0; p * NEAREST_ROWS < here; p++)
                    if (fine[p] && !panels[p].crowded)
                        bytes_codes(&whole, first, last, bytes + 4 * groups * p * NEAREST_ROWS, panels + p, turn == 0);
            }
            for (long p = 0; p * NEAREST_ROWS < here; p++) {
                long first = start + p * NEAREST_ROWS, own = start + here - first < NEAREST_ROWS ? start + here - first : NEAREST_ROWS;
                tried++;
                if (!fine[p] || panels[p].crowded) {
                    in_vain++;
                    nearest_rows(rows + first * depth, codebook, bias, codes + first, own, depth, size);
                    continue;
                }
                for (int r = 0; r < own; r++) {
                    int left = keep_candidates(panels + p, r, ((float *)panels[p].least)[r]);
                    codes[first + r] = left == 1 ? panels[p].code[r][0]
                                                 : best_candidate(panels + p, r, rows + (first + r) * depth, codebook, bias, depth);
                }
            }
        }
        free(bytes);
        free(values);
        free(panels);
    }
    free(memory);
    return 1;
}

#pragma GCC pop_options
#endif
