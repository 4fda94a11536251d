/* What the processor can do at most, for the benchmarks: fused multiply-adds that wait for nothing. */

#define PEAK_CHAINS 12 /* two a cycle, four cycles each, and some to spare */

/* `iterations` times PEAK_CHAINS fused multiply-adds of a vector on every thread; `out` keeps them from being left out. */
void NAME(peak)(float *out, int64_t iterations, int threads) {
    PARALLEL(num_threads(threads)) {
        vec chains[PEAK_CHAINS], factor = splat(0.999f), term = splat(out[0]);
        UNROLL for (int c = 0; c < PEAK_CHAINS; c++) chains[c] = splat((float)c);
        for (long i = 0; i < iterations; i++) {
            UNROLL for (int c = 0; c < PEAK_CHAINS; c++) chains[c] = chains[c] * factor + term;
        }
        float sum = 0;
        UNROLL for (int c = 0; c < PEAK_CHAINS; c++) sum += total(chains[c]);
#pragma omp critical
        out[1] += sum;
    }
}

int NAME(peak_flops)(void) { return 2 * LANES * PEAK_CHAINS; } /* of one iteration on one thread */
