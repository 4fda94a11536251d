/* Every kernel, for the instruction set that the including file names. */
#include "vectors.h"
#include "linear.h"
#include "attention.h"

int NAME(panel)(void) { return PANEL; }
