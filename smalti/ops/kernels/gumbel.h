/* The Gumbel-Softmax bottleneck, forward and backward, without ever writing the noise or the weights of all rows.

   The noise of row n, code k is a function of (seed, n, k), so the backward pass makes it again. A thread works on a few rows
   at a time, whose weights stay in its cache. */

#define GUMBEL_ROWS (4 * TILE_ROWS)
#define CODES_AT_ONCE 256 /* of the backward pass: their vectors and gradients stay in the second-level cache */

/* Two 32-bit keys for a row, from the 64-bit seed and the row's number: the mixer of SplitMix64, Steele et al. 2014. */
INLINE uint64_t row_keys(uint64_t seed, uint64_t row) {
    uint64_t x = seed + (row + 1) * 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* Standard Gumbel noise for ways x LANES codes from `first` on: -ln(-ln u), u = (24 random bits + 1) / 2^24. The random bits are
   the finaliser of MurmurHash3 over the code's number, one key before it and one in its middle. */
INLINE void gumbel_noises(uint64_t keys, uint32_t first, vec *noise, int ways) {
    uvec lanes = {0}, x[WAYS];
    for (int lane = 0; lane < LANES; lane++) lanes[lane] = lane;
    EACH x[w] = ((lanes + (first + w * LANES)) * 0x9e3779b9u) ^ (uint32_t)keys;
    EACH x[w] = (x[w] ^ (x[w] >> 16)) * 0x85ebca6bu;
    EACH x[w] = (x[w] ^ (x[w] >> 13)) + (uint32_t)(keys >> 32);
    EACH x[w] = x[w] * 0xc2b2ae35u;
    EACH x[w] = x[w] ^ (x[w] >> 16);
    EACH noise[w] = (__builtin_convertvector((ivec)(x[w] >> 8), vec) + 1.0f) * 0x1p-24f;
    vlogs(noise, ways);
    EACH noise[w] = vmax(-noise[w], splat(0x1p-25f)); /* u = 1 */
    vlogs(noise, ways);
    EACH noise[w] = -noise[w];
}

/* LANES floats of a row of `size` from k on, filled up with minus infinity. */
INLINE vec load_filled(const float *row, long k, long size) {
    vec value = splat(-INFINITY);
    if (k + LANES <= size) return load(row + k);
    memcpy(&value, row + k, sizeof(float) * (size > k ? size - k : 0));
    return value;
}

typedef struct {
    float lse, entropy;   /* of softmax(logits) */
    float highest, scale; /* of the logits with noise; 1 / sum of e^((logits + noise - highest) / temperature) */
    long code, sampled;   /* arg max of the logits, and of the logits with noise */
} row_t;

/* The largest value of each lane so far, and the first code that it was seen at. */
typedef struct {
    vec value;
    ivec at;
} tally_t;

INLINE void keep_best(tally_t *best, vec value, long k) {
    ivec better = value > best->value;
    best->value = choose(better, value, best->value);
    best->at = (better & (int32_t)k) | (~better & best->at);
}

INLINE long first_best(const tally_t *best, float top, long size) {
    long code = size;
    for (int lane = 0; lane < LANES; lane++)
        if (best->value[lane] == top && best->at[lane] + lane < code) code = best->at[lane] + lane;
    return code < size ? code : 0; /* not a number anywhere */
}

/* One row: what there is to know of it and, if `soft`, weights[k] = softmax((logits + noise) / temperature). The weights are filled up to
   a multiple of WAYS x LANES. */
static row_t gumbel_row(const float *logits, float *weights, long size, float inverse_temperature, uint64_t keys, int soft) {
    const int ways = WAYS;
    long step = WAYS * LANES, padded = (size + step - 1) / step * step;
    tally_t plain = {splat(-INFINITY), {0}}, noisy = plain;
    for (long k = 0; k < padded; k += step) {
        vec moved[WAYS];
        gumbel_noises(keys, (uint32_t)k, moved, ways);
        EACH {
            vec value = load_filled(logits, k + w * LANES, size);
            moved[w] += value;
            keep_best(&plain, value, k + w * LANES);
            keep_best(&noisy, moved[w], k + w * LANES);
            store(weights + k + w * LANES, moved[w]);
        }
    }
    float top = largest(plain.value), noisy_top = largest(noisy.value);
    row_t row = {0, 0, noisy_top, 0, first_best(&plain, top, size), first_best(&noisy, noisy_top, size)};
    vec sum = splat(0), weighted = splat(0), shares = splat(0);
    for (long k = 0; k < padded; k += step) {
        vec value[WAYS], share[WAYS], weight[WAYS];
        EACH share[w] = value[w] = load_filled(logits, k + w * LANES, size) - top;
        EACH weight[w] = (load(weights + k + w * LANES) - noisy_top) * inverse_temperature;
        vexps(share, ways);
        vexps(weight, ways);
        EACH { /* e^-infinity is not quite 0 in vexps, and 0 times infinity is not a number */
            ivec nothing = value[w] == splat(-INFINITY);
            share[w] = choose(nothing, splat(0), share[w]);
            weight[w] = choose(nothing, splat(0), weight[w]);
            sum += share[w];
            weighted += share[w] * choose(nothing, splat(0), value[w]);
            shares += weight[w];
            store(weights + k + w * LANES, weight[w]);
        }
    }
    float normaliser = total(sum);
    row.lse = top + logf(normaliser);
    row.entropy = logf(normaliser) - total(weighted) / normaliser;
    row.scale = 1.0f / total(shares);
    for (long k = 0; soft && k < padded; k += LANES) store(weights + k, load(weights + k) * row.scale);
    return row;
}

/* latents (rows, dim) = weights x codebook, soft, or the sampled code vector, hard; kl (rows) = ln K - entropy; codes, sampled (rows);
   stats (rows, 4) for the backward pass. `packed` is the codebook's transpose (dim columns, depth K) in panels, `codebook` (K, dim). */
void NAME(gumbel)(const float *logits, const float *packed, const float *codebook, float *latents, float *kl, int64_t *codes,
                  int64_t *sampled, float *stats, int64_t rows, int64_t size, int64_t dim, float temperature, int64_t hard, int64_t seed,
                  int threads) {
    long stride = (size / (WAYS * LANES) + 1) * WAYS * LANES + LANES, panels = (dim + PANEL - 1) / PANEL;
    PARALLEL(num_threads(threads)) {
        float *weights = malloc(sizeof(float) * GUMBEL_ROWS * stride);
        vec(*sums)[2] = malloc(panels * GUMBEL_ROWS * sizeof *sums);
#pragma omp for schedule(dynamic)
        for (long start = 0; start < rows; start += GUMBEL_ROWS) {
            long count = rows - start < GUMBEL_ROWS ? rows - start : GUMBEL_ROWS;
            for (long r = 0; r < count; r++) {
                long n = start + r;
                row_t row = gumbel_row(logits + n * size, weights + r * stride, size, 1.0f / temperature,
                                       row_keys((uint64_t)seed, (uint64_t)n), !hard);
                kl[n] = logf((float)size) - row.entropy;
                codes[n] = row.code, sampled[n] = row.sampled;
                memcpy(stats + n * 4, &row, sizeof(float) * 4);
                if (hard) memcpy(latents + n * dim, codebook + row.sampled * dim, sizeof(float) * dim);
            }
            if (hard) continue;
            memset(sums, 0, panels * GUMBEL_ROWS * sizeof *sums);
            for (long k = 0; k < size; k += DEPTH_PART)
                for (long p = 0; p < panels; p++)
                    linear_rows(weights + k, stride, packed + (p * size + k) * PANEL,
                                size - k < DEPTH_PART ? size - k : DEPTH_PART, sums + p * GUMBEL_ROWS, count);
            for (long p = 0; p < panels; p++) {
                long width = dim - p * PANEL < PANEL ? dim - p * PANEL : PANEL;
                for (long r = 0; r < count; r++)
                    memcpy(latents + (start + r) * dim + p * PANEL, sums[p * GUMBEL_ROWS + r], sizeof(float) * width);
            }
        }
        free(weights);
        free(sums);
    }
}

/* sums (K, width) += weights^T x gradients for a tile of codes; both operands are read where they lie. */
INLINE void outer_tile(const float *weights, long stride, const float *gradients, long width, long count, float *sums, int codes) {
    vec here[TILE_ROWS][2];
    UNROLL for (int r = 0; r < codes; r++) here[r][0] = load(sums + r * width), here[r][1] = load(sums + r * width + LANES);
    for (long n = 0; n < count; n++) {
        vec first = load(gradients + n * width), second = load(gradients + n * width + LANES);
        UNROLL for (int r = 0; r < codes; r++) {
            vec value = splat(weights[n * stride + r]);
            here[r][0] += value * first;
            here[r][1] += value * second;
        }
    }
    UNROLL for (int r = 0; r < codes; r++) store(sums + r * width, here[r][0]), store(sums + r * width + LANES, here[r][1]);
}

/* What the backward pass reads and writes. */
typedef struct {
    const float *logits, *packed, *up, *kl_gradient, *stats, *means;
    float *out, *codebook_gradient;
    long rows, size, dim, width; /* width: dim, filled up to whole panels */
    float inverse_temperature;
    uint64_t seed;
} backward_t;

/* weights[k] of `gumbel_row` for some codes from `first` on. */
INLINE void weights_again(const backward_t *all, long n, long first, long codes, float *weights) {
    const float *logits = all->logits + n * all->size + first;
    const int ways = WAYS;
    uint64_t keys = row_keys(all->seed, (uint64_t)n);
    float highest = all->stats[n * 4 + 2], scale = all->stats[n * 4 + 3];
    for (long k = 0; k < codes; k += WAYS * LANES) {
        vec weight[WAYS];
        gumbel_noises(keys, (uint32_t)(first + k), weight, ways);
        EACH weight[w] = (weight[w] + load_filled(logits, k + w * LANES, codes) - highest) * all->inverse_temperature;
        vexps(weight, ways);
        EACH store(weights + k + w * LANES, weight[w] * scale);
    }
}

/* The gradient in some logits of a row: of the latents by weights and pulls, and of the KL. */
INLINE void logits_gradient(const backward_t *all, long n, long first, long codes, const float *weights, const float *pulls, float mean) {
    const float *logits = all->logits + n * all->size + first;
    const int ways = WAYS;
    float *out = all->out + n * all->size + first, outer = all->kl_gradient[n], lse = all->stats[n * 4], entropy = all->stats[n * 4 + 1];
    for (long k = 0; k < codes; k += WAYS * LANES) {
        vec result[WAYS], log_q[WAYS], q[WAYS];
        EACH result[w] = load(weights + k + w * LANES) * (load(pulls + k + w * LANES) - mean) * all->inverse_temperature;
        if (outer != 0) {
            EACH q[w] = log_q[w] = load_filled(logits, k + w * LANES, codes) - lse;
            vexps(q, ways);
            EACH result[w] += outer * q[w] * (log_q[w] + entropy);
        }
        if (k + WAYS * LANES <= codes) {
            EACH store(out + k + w * LANES, result[w]);
        } else
            memcpy(out + k, result, sizeof(float) * (codes - k));
    }
}

/* Some rows times some codes, `first` a multiple of PANEL. With `means` given, the codebook's gradient (K, width) is added to as well;
   without, these are all codes and the means are made here. `scratch` holds 2 * GUMBEL_ROWS * stride floats. */
static void gumbel_block(const backward_t *all, long start, long rows, long first, long codes, float *scratch, long stride) {
    float *weights = scratch, *pulls = scratch + GUMBEL_ROWS * stride;
    const float *up = all->up + start * all->width;
    vec sums[GUMBEL_ROWS][2];
    for (long r = 0; r < rows; r++) weights_again(all, start + r, first, codes, weights + r * stride);
    for (long k = 0; k < codes; k += PANEL) { /* pulls = up x codebook^T */
        memset(sums, 0, sizeof sums);
        linear_rows(up, all->width, all->packed + (first + k) * all->dim, all->dim, sums, rows);
        for (long r = 0; r < rows; r++) memcpy(pulls + r * stride + k, sums[r], sizeof *sums);
    }
    for (long r = 0; r < rows; r++) {
        const float *weight = weights + r * stride, *pull = pulls + r * stride;
        logits_gradient(all, start + r, first, codes, weight, pull, all->means ? all->means[start + r] : dot(weight, pull, codes));
    }
    for (long k = 0; all->means && k < codes; k += TILE_ROWS) {
        long some = codes - k < TILE_ROWS ? codes - k : TILE_ROWS;
        for (long d = 0; d < all->width; d += PANEL) {
#define CALL(n) \
    outer_tile(weights + k, stride, up + d, all->width, rows, all->codebook_gradient + (first + k) * all->width + d, n)
            WITH_ROWS(some, CALL)
#undef CALL
        }
    }
}

/* Gradients in the logits (rows, K) from those in the latents, `up` (rows, width), and in kl (rows); soft, also in the codebook
   (K, width), which starts at zero. `packed` is the codebook (K columns, depth dim) in panels, `means` (rows) is latents . up. Soft, a
   thread takes some codes through all rows: they stay in its cache, and every sum is made in one order. Hard, there are no
   such means beforehand, and a thread takes some rows. */
void NAME(gumbel_backward)(const float *logits, const float *packed, const float *up, const float *kl_gradient, const float *stats,
                           const float *means, float *logits_gradient, float *codebook_gradient, int64_t rows, int64_t size,
                           int64_t dim, float temperature, int64_t hard, int64_t seed, int threads) {
    long width = (dim + PANEL - 1) / PANEL * PANEL, blocks = (rows + GUMBEL_ROWS - 1) / GUMBEL_ROWS;
    long chunk = (size + threads - 1) / threads < CODES_AT_ONCE ? (size + threads - 1) / threads : CODES_AT_ONCE;
    chunk = hard ? size : (chunk + PANEL - 1) / PANEL * PANEL;
    long chunks = (size + chunk - 1) / chunk, stride = (chunk / (WAYS * LANES) + 1) * WAYS * LANES + LANES;
    backward_t all = {logits, packed, up, kl_gradient, stats, hard ? 0 : means, logits_gradient, codebook_gradient, rows, size, dim, width,
                      1.0f / temperature, (uint64_t)seed};
    PARALLEL(num_threads(threads)) {
        float *scratch = malloc(sizeof(float) * 2 * GUMBEL_ROWS * stride);
#pragma omp for schedule(dynamic)
        for (long part = 0; part < (hard ? blocks : chunks); part++)
            for (long block = hard ? part : 0; block < (hard ? part + 1 : blocks); block++) {
                long start = block * GUMBEL_ROWS, first = hard ? 0 : part * chunk;
                gumbel_block(&all, start, rows - start < GUMBEL_ROWS ? rows - start : GUMBEL_ROWS, first,
                             size - first < chunk ? size - first : chunk, scratch, stride);
            }
        free(scratch);
    }
}

/* The noise itself, (rows, K): for tests, and for the plain form. */
void NAME(gumbel_noise)(float *noise, int64_t rows, int64_t size, int64_t seed, int threads) {
    PARALLEL(for num_threads(threads))
    for (long n = 0; n < rows; n++) {
        uint64_t keys = row_keys((uint64_t)seed, (uint64_t)n);
        for (long k = 0; k < size; k += WAYS * LANES) {
            vec values[WAYS];
            gumbel_noises(keys, (uint32_t)k, values, WAYS);
            memcpy(noise + n * size + k, values, sizeof(float) * (size - k < WAYS * LANES ? size - k : WAYS * LANES));
        }
    }
}
