/* What one core can do at most: fused multiply-adds of whole vectors that wait for nothing. `common.py` compiles it for this processor.

   Two units that start a multiply-add each cycle and need up to five cycles for it are busy with ten chains or more. With the factor
   -1 and the term 1 a value alternates between x and 1 - x: it neither grows nor shrinks, however long it runs. Both are arguments,
   so that the compiler knows nothing of it. */

#include <stdint.h>

#if defined(__AVX512F__)
enum { LANES = 16, CHAINS = 24 };
#elif defined(__AVX__)
enum { LANES = 8, CHAINS = 12 }; /* of 16 registers */
#else
enum { LANES = 4, CHAINS = 12 };
#endif

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4)));

int64_t peak_values(void) { return LANES * CHAINS; } /* floats of all chains: each takes two operations an iteration */

/* `values` are where the chains start, and where they end. */
void peak(float *values, int64_t iterations, float factor, float term) {
    vec chains[CHAINS], factors = factor - (vec){0}, terms = term - (vec){0};
    _Pragma("GCC unroll 32") for (int c = 0; c < CHAINS; c++) chains[c] = *(vec *)(values + c * LANES);
    for (int64_t i = 0; i < iterations; i++) {
        _Pragma("GCC unroll 32") for (int c = 0; c < CHAINS; c++) chains[c] = chains[c] * factors + terms;
    }
    _Pragma("GCC unroll 32") for (int c = 0; c < CHAINS; c++) *(vec *)(values + c * LANES) = chains[c];
}
