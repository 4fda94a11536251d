/* Logits to the binary decisions of a code's bits, and codes from a stream by them: smalti/codec/frequencies.py explains it and says
   the same in numpy. Other than in codes.h, the last digits may differ from machine to machine; the encoder's shifts see to it that
   this changes nothing.

   What it buys, on one thread of an AMD EPYC (Zen 5), codes a second with K = 512: `decisions` 2.1 million with AVX-512, 1.8 million
   with AVX2, 0.9 million portable, where numpy has 62,000 to 70,000; `read_codes`, 64 rows at a time, 1.3, 1.3 and 0.7 million, where
   numpy has 56,000 to 65,000. */

#define FEWEST_MASS 1e-30f /* sums below this are made again in double precision */

typedef struct { /* RULES in smalti/codec/frequencies.py */
    double cells, softness, largest_odds, relative_noise, float_noise;
} coding_rules;
_Static_assert(sizeof(coding_rules) == 5 * sizeof(double), "RULES in smalti/codec/frequencies.py has its fields");

/* A row of logits, and for all nodes of the binary tree over its codes the sums of exp(logit - largest logit) below them, and, unless
   it is NULL, of that times the logit's noise. The leaves are at 1 << depth. */
typedef struct {
    const float *logits;
    float *mass, *noisy;
    long size;
    int depth;
    float relative, absolute; /* noise: so much of each logit, and of the largest */
} code_tree;

typedef struct {
    double odds, noise;
} decision;

INLINE void fill_tree(const code_tree *tree) {
    const float *logits = tree->logits;
    float *mass = tree->mass, *noisy = tree->noisy;
    long size = tree->size, leaves = 1L << tree->depth, whole = size / LANES * LANES;
    vec most = splat(-INFINITY), largest_size = splat(0);
    for (long k = 0; k < whole; k += LANES) {
        vec value = load(logits + k);
        most = vmax(most, value);
        largest_size = vmax(largest_size, vmax(value, -value));
    }
    float top = largest(most), reach = largest(largest_size);
    for (long k = whole; k < size; k++) {
        top = logits[k] > top ? logits[k] : top;
        reach = fabsf(logits[k]) > reach ? fabsf(logits[k]) : reach;
    }
    float relative = tree->relative, everywhere = tree->absolute * reach;
    for (long k = 0; k < whole; k += LANES) {
        vec value = load(logits + k), weight = vexp(value - top);
        store(mass + leaves + k, weight);
        if (noisy) store(noisy + leaves + k, weight * (relative * vmax(value, -value) + everywhere));
    }
    for (long k = whole; k < leaves; k++) {
        mass[leaves + k] = k < size ? expf(logits[k] - top) : 0;
        if (noisy) noisy[leaves + k] = k < size ? mass[leaves + k] * (relative * fabsf(logits[k]) + everywhere) : 0;
    }
    for (long node = leaves - 1; node > 0; node--) {
        mass[node] = mass[2 * node] + mass[2 * node + 1];
        if (noisy) noisy[node] = noisy[2 * node] + noisy[2 * node + 1];
    }
}

/* A decision in double precision from the logits below the children of a node; `first` is the first code below the left one, `width`
   how many codes are below each. */
static decision exact_decision(const code_tree *tree, long first, long width) {
    double mass[2], noisy[2], log_sum[2], reach = 0;
    const float *logits = tree->logits;
    for (long k = 0; k < tree->size; k++) reach = fabs(logits[k]) > reach ? fabs(logits[k]) : reach;
    for (int side = 0; side < 2; side++) {
        long start = first + side * width, end = start + width < tree->size ? start + width : tree->size;
        double top = -INFINITY;
        for (long k = start; k < end; k++) top = logits[k] > top ? logits[k] : top;
        mass[side] = noisy[side] = 0;
        for (long k = start; k < end; k++) {
            double weight = exp(logits[k] - top);
            mass[side] += weight;
            noisy[side] += weight * (tree->relative * fabs(logits[k]) + tree->absolute * reach);
        }
        log_sum[side] = log(mass[side]) + top;
    }
    return (decision){log_sum[1] - log_sum[0], noisy[0] / mass[0] + noisy[1] / mass[1]};
}

/* The decision below a prefix, the code's highest `level` bits; its noise is -1 where no code has a 1 there and nothing is asked. */
INLINE decision decide(const code_tree *tree, int level, long prefix) {
    long left = 2 * ((1L << level) + prefix), width = 1L << (tree->depth - 1 - level);
    if (prefix < 0 || (2 * prefix + 1) * width >= tree->size) return (decision){0, -1};
    float zero = tree->mass[left], one = tree->mass[left + 1];
    if (zero < FEWEST_MASS || one < FEWEST_MASS) return exact_decision(tree, 2 * prefix * width, width);
    double noise = tree->noisy ? (double)tree->noisy[left] / zero + (double)tree->noisy[left + 1] / one : 0;
    return (decision){log((double)one / zero), noise};
}

/* odds and noise (rows, depth) of the decisions on the way to codes (rows) under logits (rows, size). */
void NAME(decisions)(const float *logits, const int64_t *codes, const coding_rules *rules, double *odds, double *noise, long rows, long size,
                     int threads) {
    int depth = tree_depth(size);
    PARALLEL(num_threads(threads)) {
        float *mass = malloc((4L << depth) * sizeof(float));
#pragma omp for schedule(dynamic, 16)
        for (long n = 0; n < rows; n++) {
            code_tree tree = {logits + n * size, mass, mass + (2L << depth), size, depth, (float)rules->relative_noise, (float)rules->float_noise};
            fill_tree(&tree);
            for (int level = 0; level < depth; level++) {
                decision found = decide(&tree, level, codes[n] >> (depth - level));
                odds[n * depth + level] = found.odds, noise[n * depth + level] = found.noise;
            }
        }
        free(mass);
    }
}

/* Read codes (rows) under logits (rows, size), level after level for all rows, with boundaries of the cells shifted by `offset` cells.
   `frequencies` (cells + 1) of a 1 are those of the cells; `mass` (rows, 2 << depth) is room to work in. */
void NAME(read_codes)(range_coder *shared, const float *logits, const int64_t *frequencies, const coding_rules *rules, float *mass, int64_t *codes,
                      long rows, long size, float offset, int threads) {
    range_coder coder = *shared;
    int depth = tree_depth(size);
#define TREE(n) {.logits = logits + (n) * size, .mass = mass + (n) * (2L << depth), .size = size, .depth = depth}
#pragma omp parallel for num_threads(threads) if (rows > 1)
    for (long n = 0; n < rows; n++) {
        code_tree tree = TREE(n);
        fill_tree(&tree);
        codes[n] = 0;
    }
    double most = rules->largest_odds;
    for (int level = 0; level < depth; level++)
        for (long n = 0; n < rows; n++) {
            code_tree tree = TREE(n);
            decision found = decide(&tree, level, codes[n]);
            double odds = found.odds > most ? most : found.odds < -most ? -most : found.odds;
            double place = (odds / (fabs(odds) + rules->softness) + 1) * (rules->cells / 2) + offset;
            place = place > 0 ? place < rules->cells ? place : rules->cells : 0; /* 0, too, if it is not a number */
            codes[n] = 2 * codes[n] + (found.noise < 0 ? 0 : read_bit(&coder, (uint32_t)frequencies[(long)place]));
        }
#undef TREE
    *shared = coder;
}
