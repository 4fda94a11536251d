/* All kernels for any processor: vectors of four, which are NEON on ARM and SSE2 on older x86. */
#define VARIANT portable
#define LANES 4
#include "all.h"
int NAME(supported)(void) { return 1; }
