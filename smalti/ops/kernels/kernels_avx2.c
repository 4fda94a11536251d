/* All kernels for processors with AVX2 and FMA. */
#if defined(__x86_64__) && defined(__GNUC__)
#pragma GCC target("avx2,fma")
#define VARIANT avx2
#define LANES 8
#include "all.h"
int NAME(supported)(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
#endif
