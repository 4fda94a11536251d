/* The vector type that all kernels are written with, one width for each instruction set.

   A file kernels_NAME.c sets VARIANT and LANES and includes this file and then the kernels, so that every kernel exists once
   as text and once per instruction set as code. GCC's and Clang's vector extensions do the rest: a + b, a * b and
   comparisons work on whole vectors, and a * b + c becomes one fused instruction where the machine has it. */

#ifndef SMALTI_VECTORS_H
#define SMALTI_VECTORS_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if LANES > 4
#include <immintrin.h>
#endif

#ifdef _OPENMP
#define PARALLEL(clauses) _Pragma(SMALTI_TEXT(omp parallel clauses))
#else
#define PARALLEL(clauses)
#endif
#define SMALTI_TEXT(words) #words

#define JOIN_(name, variant) name##_##variant
#define JOIN(name, variant) JOIN_(name, variant)
#define NAME(name) JOIN(smalti_##name, VARIANT)

_Static_assert(sizeof(long) == sizeof(int64_t), "the kernels count in long what Python hands over as int64");

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint32_t uvec __attribute__((vector_size(4 * LANES), aligned(4)));

#define PANEL (2 * LANES) /* columns of a packed matrix that are worked on together: two vectors */

INLINE vec splat(float value) { return value - (vec){0}; }
INLINE vec load(const float *from) { return *(const vec *)from; }
INLINE void store(float *to, vec value) { *(vec *)to = value; }
/* The larger of each pair; `second` where one is not a number. */
INLINE vec vmax(vec first, vec second) {
#if LANES == 16
    return (vec)_mm512_max_ps((__m512)first, (__m512)second);
#elif LANES == 8
    return (vec)_mm256_max_ps((__m256)first, (__m256)second);
#else
    ivec larger = first > second;
    return (vec)((larger & (ivec)first) | (~larger & (ivec)second));
#endif
}
/* Whether a comparison holds in any lane. */
INLINE int any(ivec mask) {
#if LANES == 16
    return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#elif LANES == 8
    return _mm256_movemask_ps((__m256)mask) != 0;
#else
    return (mask[0] | mask[1] | mask[2] | mask[3]) != 0;
#endif
}
INLINE vec choose(ivec mask, vec yes, vec no) { return (vec)((mask & (ivec)yes) | (~mask & (ivec)no)); }

/* The functions below are long chains of operations that wait for each other. They take several vectors, one operation of all
   after the other: a processor looks some 250 instructions ahead, and so finds as many chains to work on as there are vectors. */
#define WAYS 4
#define EACH UNROLL for (int w = 0; w < ways; w++)

/* e^x within 2 units in the last place; for x below -87 it is e^-87, above 88 e^88. With n the nearest whole number to
   x / ln 2 and r the rest, e^x = 2^n (1 + r + r^2 q(r)); q is a least-squares fit at 400 Chebyshev nodes. */
INLINE void vexps(vec *x, int ways) {
    vec n[WAYS], r[WAYS], q[WAYS];
    EACH x[w] = choose(x[w] < splat(-87.0f), splat(-87.0f), x[w]);
    EACH x[w] = choose(x[w] > splat(88.0f), splat(88.0f), x[w]);
    EACH n[w] = (x[w] * 1.44269504f + 12582912.0f) - 12582912.0f; /* adding 1.5 * 2^23 rounds to a whole number */
    EACH r[w] = x[w] - n[w] * 0.693359375f;                       /* ln 2 in two parts, the first with few bits */
    EACH r[w] -= n[w] * -2.12194440e-4f;
    EACH q[w] = 1.374829955e-3f * r[w] + 8.371041559e-3f;
    EACH q[w] = q[w] * r[w] + 4.166982788e-2f;
    EACH q[w] = q[w] * r[w] + 1.666649730e-1f;
    EACH q[w] = q[w] * r[w] + 4.999998613e-1f;
    EACH q[w] = q[w] * r[w] * r[w] + r[w] + 1.0f;
    EACH x[w] = (vec)((ivec)q[w] + (__builtin_convertvector(n[w], ivec) << 23));
}

/* ln x for positive normal x, within 2 units in the last place. With x = 2^n m, m within a factor sqrt 2 of 1, and t = m - 1
   it is n ln 2 + t + t^2 q(t); q is a least-squares fit at 2000 Chebyshev nodes. */
INLINE void vlogs(vec *x, int ways) {
    vec whole[WAYS], t[WAYS], q[WAYS];
    EACH {
        ivec n = ((ivec)x[w] - 0x3f3504f3) >> 23; /* 0x3f3504f3 is sqrt(1/2) */
        t[w] = (vec)((ivec)x[w] - (n << 23)) - 1.0f;
        whole[w] = __builtin_convertvector(n, vec);
    }
    EACH q[w] = 8.649196304e-2f * t[w] - 1.438149908e-1f;
    EACH q[w] = q[w] * t[w] + 1.498124834e-1f;
    EACH q[w] = q[w] * t[w] - 1.656325363e-1f;
    EACH q[w] = q[w] * t[w] + 1.995525839e-1f;
    EACH q[w] = q[w] * t[w] - 2.500192088e-1f;
    EACH q[w] = q[w] * t[w] + 3.333412996e-1f;
    EACH q[w] = q[w] * t[w] - 4.999999027e-1f;
    EACH x[w] = whole[w] * 0.693359375f + (t[w] + (q[w] * t[w] * t[w] + whole[w] * -2.12194440e-4f));
}

INLINE vec vexp(vec x) {
    vexps(&x, 1);
    return x;
}

INLINE vec vsigmoid(vec x) { return 1.0f / (1.0f + vexp(-x)); }
INLINE vec vtanh(vec x) { return 1.0f - 2.0f / (1.0f + vexp(2.0f * x)); }

INLINE float largest(vec x) {
    float highest = x[0];
    for (int lane = 1; lane < LANES; lane++) highest = x[lane] > highest ? x[lane] : highest;
    return highest;
}

INLINE float total(vec x) {
#if LANES == 16
    return _mm512_reduce_add_ps((__m512)x);
#else
    float sum = 0;
    for (int lane = 0; lane < LANES / 2; lane++) sum += x[lane] + x[lane + LANES / 2];
    return sum;
#endif
}

/* x . y over n floats. */
INLINE float dot(const float *x, const float *y, long n) {
    vec sum = splat(0);
    long i = 0;
    for (; i + LANES <= n; i += LANES) sum += load(x + i) * load(y + i);
    float rest = 0;
    for (; i < n; i++) rest += x[i] * y[i];
    return total(sum) + rest;
}

#endif
