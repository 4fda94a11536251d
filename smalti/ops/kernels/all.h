/* Every kernel, for the instruction set that the including file names. */
#include "vectors.h"
#include "tiles.h"
#include "nearest.h"
#include "gumbel.h"
#include "codes.h"
#include "decisions.h"
#include "raster.h"
#include "peak.h"

int NAME(panel)(void) { return PANEL; }
