/* The Gumbel-Softmax bottleneck, forward and backward, without ever writing the noise or the weights of all rows.

   The noise of row n, code k is a function of (seed, n, k), so the backward pass makes it again. A thread works on a few rows
   at a time, whose weights stay in its cache. */

#define GUMBEL_ROWS (4 * TILE_ROWS)

/* Two 32-bit keys for a row, from the 64-bit seed and the row's number: the mixer of SplitMix64, Steele et al. 2014. */
INLINE uint64_t row_keys(uint64_t seed, uint64_t row) {
    uint64_t x = seed + (row + 1) * 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* Standard Gumbel noise for LANES codes from `first` on: -ln(-ln u), u = (24 random bits + 1) / 2^24. The random bits are
   the finaliser of MurmurHash3 over the code's number, one key before it and one in its middle. */
INLINE vec gumbel_noise(uint64_t keys, uint32_t first) {
    uvec x = {0};
    for (int lane = 0; lane < LANES; lane++) x[lane] = lane;
    x = ((x + first) * 0x9e3779b9u) ^ (uint32_t)keys;
    x = (x ^ (x >> 16)) * 0x85ebca6bu;
    x = (x ^ (x >> 13)) + (uint32_t)(keys >> 32);
    x = x * 0xc2b2ae35u;
    x = x ^ (x >> 16);
    vec u = (__builtin_convertvector((ivec)(x >> 8), vec) + 1.0f) * 0x1p-24f;
    vec exponential = -vlog(u);
    exponential = choose(exponential < splat(0x1p-25f), splat(0x1p-25f), exponential); /* u = 1 */
    return -vlog(exponential);
}

typedef struct {
    float lse, entropy; /* of softmax(logits) */
    long code, drawn;   /* arg max of the logits, and of the logits with noise */
} row_t;

/* One row: weights[k] = softmax((logits + noise) / temperature), and what else there is to know. The row and the weights are
   filled up to a multiple of LANES, the row's copy with -infinity. */
static row_t gumbel_row(const float *logits, float *weights, long size, float inverse_temperature, uint64_t keys, int soft) {
    long whole = size / LANES * LANES, padded = (size + LANES - 1) / LANES * LANES;
    float tail[LANES];
    for (int lane = 0; lane < LANES; lane++) tail[lane] = whole + lane < size ? logits[whole + lane] : -INFINITY;
    vec plain = splat(-INFINITY), noisy = splat(-INFINITY);
    ivec plain_at = {0}, noisy_at = {0};
    for (long k = 0; k < padded; k += LANES) {
        vec value = k < whole ? load(logits + k) : load(tail), moved = value + gumbel_noise(keys, (uint32_t)k);
        ivec better = value > plain, best = moved > noisy;
        plain = choose(better, value, plain);
        plain_at = (better & (int32_t)k) | (~better & plain_at);
        noisy = choose(best, moved, noisy);
        noisy_at = (best & (int32_t)k) | (~best & noisy_at);
        store(weights + k, moved);
    }
    row_t row = {0, 0, size, size};
    float top = largest(plain), noisy_top = largest(noisy);
    for (int lane = LANES - 1; lane >= 0; lane--) {
        if (plain[lane] == top && plain_at[lane] + lane < row.code) row.code = plain_at[lane] + lane;
        if (noisy[lane] == noisy_top && noisy_at[lane] + lane < row.drawn) row.drawn = noisy_at[lane] + lane;
    }
    if (row.code == size) row.code = row.drawn = 0; /* not a number anywhere */
    vec sum = splat(0), weighted = splat(0), shares = splat(0);
    for (long k = 0; k < padded; k += LANES) {
        vec value = k < whole ? load(logits + k) : load(tail), below = value - top, share = vexp(below);
        if (k >= whole) { /* e^-infinity is not quite 0 in vexp, and 0 times infinity is not a number */
            share = choose(value == splat(-INFINITY), splat(0), share);
            below = choose(value == splat(-INFINITY), splat(0), below);
        }
        sum += share;
        weighted += share * below;
        if (soft) {
            vec weight = vexp((load(weights + k) - noisy_top) * inverse_temperature);
            if (k >= whole) weight = choose(value == splat(-INFINITY), splat(0), weight);
            shares += weight;
            store(weights + k, weight);
        }
    }
    float normaliser = total(sum);
    row.lse = top + logf(normaliser);
    row.entropy = logf(normaliser) - total(weighted) / normaliser;
    if (soft) {
        float scale = 1.0f / total(shares);
        for (long k = 0; k < padded; k += LANES) store(weights + k, load(weights + k) * scale);
    }
    return row;
}

/* latents (rows, dim) = weights x codebook, soft, or the drawn code vector, hard; kl (rows) = ln K - entropy; codes (rows).
   `packed` is the codebook's transpose (dim columns, depth K) in panels, `codebook` (K, dim). */
void NAME(gumbel)(const float *logits, const float *packed, const float *codebook, float *latents, float *kl, int64_t *codes,
                  long rows, long size, long dim, float temperature, long seed, long hard, int threads) {
    long stride = (size + LANES - 1) / LANES * LANES + LANES, panels = (dim + PANEL - 1) / PANEL;
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
                codes[n] = row.code;
                if (hard) memcpy(latents + n * dim, codebook + row.drawn * dim, sizeof(float) * dim);
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

/* Gradients in the logits (rows, K) and the codebook (K, dim) from those in the latents (rows, dim) and in kl (rows).
   `packed` is the codebook (K columns, depth dim) in panels. Rows are dealt to threads by number and the threads' sums
   added in order, so that the same call gives the same bits. */
void NAME(gumbel_backward)(const float *logits, const float *packed, const float *latents_gradient, const float *kl_gradient,
                           float *logits_gradient, float *codebook_gradient, long rows, long size, long dim,
                           float temperature, long seed, long hard, int threads) {
    long stride = (size + LANES - 1) / LANES * LANES + LANES, panels = (size + PANEL - 1) / PANEL;
    long width = (dim + PANEL - 1) / PANEL * PANEL;
    long blocks = (rows + GUMBEL_ROWS - 1) / GUMBEL_ROWS, shares = threads < blocks ? threads : blocks;
    float *parts = calloc((shares ? shares : 1) * size * width, sizeof(float)); /* of the codebook's, from each share of the rows */
    PARALLEL(for num_threads(threads) schedule(static, 1))
    for (long share = 0; share < shares; share++) {
        float *own = parts + share * size * width;
        float *weights = malloc(sizeof(float) * GUMBEL_ROWS * stride);
        float *pulls = malloc(sizeof(float) * GUMBEL_ROWS * panels * PANEL), *gradients = malloc(sizeof(float) * GUMBEL_ROWS * width);
        vec sums[GUMBEL_ROWS][2];
        row_t found[GUMBEL_ROWS];
        for (long block = blocks * share / shares; block < blocks * (share + 1) / shares; block++) {
            long start = block * GUMBEL_ROWS;
            long count = rows - start < GUMBEL_ROWS ? rows - start : GUMBEL_ROWS;
            memset(gradients, 0, sizeof(float) * count * width);
            for (long r = 0; r < count; r++) {
                long n = start + r;
                found[r] = gumbel_row(logits + n * size, weights + r * stride, size, 1.0f / temperature,
                                      row_keys((uint64_t)seed, (uint64_t)n), 1);
                memcpy(gradients + r * width, latents_gradient + n * dim, sizeof(float) * dim);
            }
            for (long p = 0; p < panels; p++) { /* pulls = gradients x codebook^T */
                memset(sums, 0, sizeof sums);
                linear_rows(gradients, width, packed + p * dim * PANEL, dim, sums, count);
                for (long r = 0; r < count; r++) memcpy(pulls + r * panels * PANEL + p * PANEL, sums[r], sizeof *sums);
            }
            for (long r = 0; r < count; r++) {
                long n = start + r;
                const float *weight = weights + r * stride, *pull = pulls + r * panels * PANEL, *logit = logits + n * size;
                float *out = logits_gradient + n * size, mean = dot(weight, pull, size);
                float scale = 1.0f / temperature, outer = kl_gradient[n];
                long k = 0;
                for (; k + LANES <= size; k += LANES) {
                    vec log_q = load(logit + k) - found[r].lse;
                    vec own_part = outer * vexp(log_q) * (log_q + found[r].entropy);
                    store(out + k, load(weight + k) * (load(pull + k) - mean) * scale + own_part);
                }
                for (; k < size; k++) {
                    float log_q = logit[k] - found[r].lse;
                    out[k] = weight[k] * (pull[k] - mean) * scale + outer * expf(log_q) * (log_q + found[r].entropy);
                }
                if (hard)
                    for (long d = 0; d < dim; d++) own[found[r].drawn * width + d] += gradients[r * width + d];
            }
            for (long k = 0; k < size && !hard; k += TILE_ROWS) {
                long codes = size - k < TILE_ROWS ? size - k : TILE_ROWS;
                for (long d = 0; d < width; d += PANEL) {
#define CALL(n) outer_tile(weights + k, stride, gradients + d, width, count, own + k * width + d, n)
                    WITH_ROWS(codes, CALL)
#undef CALL
                }
            }
        }
        free(weights);
        free(pulls);
        free(gradients);
    }
    PARALLEL(for num_threads(threads))
    for (long k = 0; k < size; k++)
        for (long d = 0; d < dim; d++) {
            float sum = 0;
            for (long share = 0; share < shares; share++) sum += parts[(share * size + k) * width + d];
            codebook_gradient[k * dim + d] = sum;
        }
    free(parts);
}

/* The noise itself, (rows, K): for tests, and for the plain form. */
void NAME(gumbel_noise)(float *noise, long rows, long size, long seed, int threads) {
    PARALLEL(for num_threads(threads))
    for (long n = 0; n < rows; n++) {
        uint64_t keys = row_keys((uint64_t)seed, (uint64_t)n);
        for (long k = 0; k < size; k += LANES) {
            vec values = gumbel_noise(keys, (uint32_t)k);
            memcpy(noise + n * size + k, &values, sizeof(float) * (size - k < LANES ? size - k : LANES));
        }
    }
}
