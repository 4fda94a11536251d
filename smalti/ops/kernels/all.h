/* Every kernel, for the instruction set that the including file names. */
#include <stddef.h>

#include "vectors.h"
#include "tiles.h"
#include "nearest.h"
#include "gumbel.h"
#include "codes.h"
#include "decisions.h"
#include "raster.h"

/* Numbers that Python shares: it reads some of them, and refuses a library whose others differ from LAYOUT in native.py. */
typedef struct {
    const char *name;
    int64_t value;
} layout_number;

const layout_number *NAME(layout)(void) {
    static const layout_number numbers[] = {
        {"SOURCES", SMALTI_SOURCES}, /* a checksum of these files, from setup.py */
        {"PANEL", PANEL},
        {"STRETCH_LIMIT", STRETCH_LIMIT},
        {"CONTEXTS", CONTEXTS},
        {"SLOTS", SLOTS},
        {"OPERATION", sizeof(operation) / sizeof(int64_t)},
        {"TASK", sizeof(task) / sizeof(int64_t)},
        {"KINDS", KINDS},
        {"FUNCTIONS", FUNCTIONS},
        {NULL, 0},
    };
    return numbers;
}
