/* The vector type that all kernels are written with, one width for each instruction set.

   A file kernels_NAME.c sets VARIANT and LANES and includes this file and then the kernels, so that every kernel exists once
   as text and once per instruction set as code. GCC's and Clang's vector extensions do the rest: a + b, a * b and
   comparisons work on whole vectors, and a * b + c becomes one fused instruction where the machine has it. */

#ifndef SMALTI_VECTORS_H
#define SMALTI_VECTORS_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef _OPENMP
#define PARALLEL(clauses) _Pragma(SMALTI_TEXT(omp parallel clauses))
#else
#define PARALLEL(clauses)
#endif
#define SMALTI_TEXT(words) #words

#define JOIN_(name, variant) name##_##variant
#define JOIN(name, variant) JOIN_(name, variant)
#define NAME(name) JOIN(smalti_##name, VARIANT)

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES), aligned(4)));

#define PANEL (2 * LANES) /* columns of a packed matrix that are worked on together: two vectors */

INLINE vec splat(float value) { return value - (vec){0}; }
INLINE vec load(const float *from) { return *(const vec *)from; }
INLINE void store(float *to, vec value) { *(vec *)to = value; }
INLINE vec choose(ivec mask, vec yes, vec no) { return (vec)((mask & (ivec)yes) | (~mask & (ivec)no)); }

#endif
