/* Logits to the binary decisions that tell a code: smalti/codec/frequencies.py explains it and says the same in numpy. Other than in
   codes.h, the last digits may differ from machine to machine; the encoder's shifts see to it that this changes nothing. */

#define FEWEST_MASS 1e-30f /* sums below this are made again in double precision */

typedef struct {
    double odds, noise;
} decision;

/* mass[node] and noisy[node], the sums of exp(logit - top) and of that times the logit's noise, for all nodes of a tree whose
   leaves are at 1 << depth. */
INLINE void fill_tree(const float *logits, long size, int depth, float relative, float absolute, float *mass, float *noisy) {
    long leaves = 1L << depth, whole = size / LANES * LANES;
    vec most = splat(-INFINITY), largest_size = splat(0);
    float top, reach;
    for (long k = 0; k < whole; k += LANES) {
        vec value = load(logits + k);
        most = vmax(most, value);
        largest_size = vmax(largest_size, vmax(value, -value));
    }
    top = largest(most), reach = largest(largest_size);
    for (long k = whole; k < size; k++) {
        top = logits[k] > top ? logits[k] : top;
        reach = fabsf(logits[k]) > reach ? fabsf(logits[k]) : reach;
    }
    float everywhere = absolute * reach;
    for (long k = 0; k < whole; k += LANES) {
        vec value = load(logits + k), weight = vexp(value - top);
        store(mass + leaves + k, weight);
        store(noisy + leaves + k, weight * (relative * vmax(value, -value) + everywhere));
    }
    for (long k = whole; k < size; k++) {
        mass[leaves + k] = expf(logits[k] - top);
        noisy[leaves + k] = mass[leaves + k] * (relative * fabsf(logits[k]) + everywhere);
    }
    for (long k = size; k < leaves; k++) mass[leaves + k] = noisy[leaves + k] = 0;
    for (long node = leaves - 1; node > 0; node--) {
        mass[node] = mass[2 * node] + mass[2 * node + 1];
        noisy[node] = noisy[2 * node] + noisy[2 * node + 1];
    }
}

/* One decision in double precision from the logits below the children of a node; `first` is the first code below the left one,
   `width` how many codes are below each. */
static decision exact_decision(const float *logits, long size, long first, long width, float relative, float absolute) {
    double mass[2], noisy[2], log_sum[2], reach = 0;
    for (long k = 0; k < size; k++) reach = fabs(logits[k]) > reach ? fabs(logits[k]) : reach;
    for (int side = 0; side < 2; side++) {
        long start = first + side * width, end = start + width < size ? start + width : size;
        double top = -INFINITY;
        for (long k = start; k < end; k++) top = logits[k] > top ? logits[k] : top;
        mass[side] = noisy[side] = 0;
        for (long k = start; k < end; k++) {
            double weight = exp(logits[k] - top);
            mass[side] += weight;
            noisy[side] += weight * (relative * fabs(logits[k]) + absolute * reach);
        }
        log_sum[side] = log(mass[side]) + top;
    }
    return (decision){log_sum[1] - log_sum[0], noisy[0] / mass[0] + noisy[1] / mass[1]};
}

INLINE decision decide(const float *logits, long size, const float *mass, const float *noisy, int depth, int level, long prefix,
                       float relative, float absolute) {
    long node = (1L << level) + prefix, below = depth - 1 - level;
    float zero = mass[2 * node], one = mass[2 * node + 1];
    if (zero < FEWEST_MASS || one < FEWEST_MASS) return exact_decision(logits, size, (2 * prefix) << below, 1L << below, relative, absolute);
    return (decision){log((double)one / zero), (double)noisy[2 * node] / zero + (double)noisy[2 * node + 1] / one};
}

INLINE int asked(long prefix, int depth, int level, long size) { return ((2 * prefix + 1) << (depth - 1 - level)) < size; }

/* odds and noise (rows, depth) of the decisions on the way to `codes` (rows); where nothing is asked, noise is -1. */
void NAME(decisions)(const float *logits, const int64_t *codes, double *odds, double *noise, long rows, long size, long depth,
                     float relative, float absolute, int threads) {
    PARALLEL(num_threads(threads)) {
        float *mass = malloc((4L << depth) * sizeof(float)), *noisy = mass + (2L << depth);
#pragma omp for schedule(dynamic, 16)
        for (long n = 0; n < rows; n++) {
            fill_tree(logits + n * size, size, depth, relative, absolute, mass, noisy);
            for (int level = 0; level < depth; level++) {
                long prefix = codes[n] >> (depth - level);
                decision found = {0, -1};
                if (asked(prefix, depth, level, size))
                    found = decide(logits + n * size, size, mass, noisy, depth, level, prefix, relative, absolute);
                odds[n * depth + level] = found.odds, noise[n * depth + level] = found.noise;
            }
        }
        free(mass);
    }
}

/* mass (rows, 2 << depth): the sums of exp(logit - largest logit) below every node of every row's tree. */
void NAME(masses)(const float *logits, float *mass, long rows, long size, long depth, int threads) {
    PARALLEL(num_threads(threads)) {
        float *noisy = malloc((2L << depth) * sizeof(float)); /* not wanted here */
#pragma omp for schedule(static)
        for (long n = 0; n < rows; n++) fill_tree(logits + n * size, size, depth, 0, 0, mass + n * (2L << depth), noisy);
        free(noisy);
    }
}

/* Bits by their frequencies of a 1. `state` is the range coder's: lower, range, point, and words read. */
void NAME(read_bits)(uint32_t *words, uint64_t *state, const int64_t *ones, int64_t *bits, long count, long room, int threads) {
    range_coder coder = {.lower = state[0], .range = state[1], .point = state[2], .place = (int64_t)state[3], .words = words, .count = room};
    (void)threads;
    for (long n = 0; n < count; n++) bits[n] = read_bit(&coder, (uint32_t)ones[n]);
    state[0] = coder.lower, state[1] = coder.range, state[2] = coder.point, state[3] = (uint64_t)coder.place;
}

/* The codes (rows) that a stream says under logits (rows, size), level after level for all rows. `table` has the frequencies of a 1
   at `entries` places over `cells` cells; `shift` is in parts of a cell, of which there are `shifts`. */
void NAME(read_codes)(const float *logits, uint32_t *words, uint64_t *state, const int64_t *table, int64_t *codes, long rows, long size,
                      long depth, long room, long entries, long cells, long shift, long shifts, float softness, float most, int threads) {
    range_coder coder = {.lower = state[0], .range = state[1], .point = state[2], .place = (int64_t)state[3], .words = words, .count = room};
    long nodes = 2L << depth;
    float *mass = malloc(rows * nodes * sizeof(float));
    NAME(masses)(logits, mass, rows, size, depth, threads);
    memset(codes, 0, rows * sizeof *codes);
    for (int level = 0; level < depth; level++)
        for (long n = 0; n < rows; n++) {
            long bit = 0;
            if (asked(codes[n], depth, level, size)) {
                const float *own = mass + n * nodes;
                double odds = decide(logits + n * size, size, own, own, depth, level, codes[n], 0, 0).odds;
                odds = odds > most ? most : odds < -most ? -most : odds;
                double place = (odds / (fabs(odds) + softness) + 1) * (cells / 2.0) + (double)shift / shifts;
                long middle = (long)floor(place) * shifts + shifts / 2 - shift;
                middle = middle < 0 ? 0 : middle >= cells * shifts ? cells * shifts - 1 : middle;
                bit = read_bit(&coder, (uint32_t)table[middle * entries / (cells * shifts)]);
            }
            codes[n] = 2 * codes[n] + bit;
        }
    free(mass);
    state[0] = coder.lower, state[1] = coder.range, state[2] = coder.point, state[3] = (uint64_t)coder.place;
}
