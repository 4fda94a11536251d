/* Entropy coding: a range coder, and the binary context model of smalti/codec/adaptive.py, which says the same in Python and
   explains it. Nothing here is floating point, and nothing depends on the number of threads or the instruction set: every machine
   writes the same bytes. Nothing is written or read beyond the words that a coder has.

   What it buys, on one thread of an AMD EPYC (Zen 5, AVX-512), codes a second with K = 512: the adaptive coder writes 1.9 million
   and reads 1.8 million where its twin in Python has 4,400 and 6,000. Symbols alone are no faster than constriction's, 244 million a
   second written and 20 million read (221 and 38): this coder is here because the kernels need one between their own steps. */

#define CONTEXTS 7
#define INPUTS 8 /* of the mixer: the contexts, and one that is always on */
#define LEVELS 5 /* of the tree of decisions that lie together in memory: */
#define SLOTS 32 /* the slots of their nodes, two lines of the cache */
#define WEIGHT_SETS 64
#define MOST_SEEN 60
#define STRETCH_LIMIT 3071
#define LEAST_CHANCE 127 /* of 2^22: steps are rounded down, by less than this */
#define MOST_CHANCE ((1 << 22) - 128)
#define EVEN (1u << 31) /* slots are kept with this bit turned, so that memory full of zeros says 1/2 everywhere */

/* constriction's range coder, bit for bit: 32-bit words, 64-bit state, 24-bit frequencies. */
typedef struct {
    uint64_t lower, range, point; /* the interval; when decoding, the number that the stream names */
    uint64_t place, count;        /* words written or read so far; room, or how many there are */
    uint64_t held, first;         /* words held back because a carry may change them, and the first of them before any carry */
    uint32_t *words;
} range_coder;
_Static_assert(sizeof(range_coder) == 8 * sizeof(uint64_t), "NativeCoder in smalti/codec/streams.py has its fields, 8 bytes each");

/* Binary decisions for a code in [0, size) at most; sizes go up to 2^32. */
INLINE int tree_depth(long size) {
    int depth = 1;
    while (depth < 32 && (size - 1) >> depth) depth++;
    return depth;
}

INLINE void put_word(range_coder *coder, uint32_t word) {
    if (coder->place < coder->count) coder->words[coder->place] = word;
    coder->place++;
}

INLINE void put_held(range_coder *coder, int carry) {
    put_word(coder, (uint32_t)coder->first + carry);
    for (; coder->held > 1; coder->held--) put_word(coder, carry ? 0 : 0xffffffffu);
    coder->held = 0;
}

/* Write a symbol of `size` of 2^24 above those of `below`. */
INLINE void write_interval(range_coder *coder, uint32_t below, uint32_t size) {
    uint64_t scale = coder->range >> 24, lower = coder->lower + scale * below, range = scale * size;
    if (coder->held) {
        if (lower < coder->lower) put_held(coder, 1);
        else if (lower + range > lower) put_held(coder, 0);
    }
    if (range >> 32 == 0) {
        uint32_t word = (uint32_t)(lower >> 32);
        lower <<= 32;
        range <<= 32;
        if (coder->held) coder->held++;
        else if (lower + range > lower) put_word(coder, word);
        else coder->held = 1, coder->first = word;
    }
    coder->lower = lower;
    coder->range = range;
}

INLINE void take_interval(range_coder *coder, uint32_t below, uint32_t size) {
    uint64_t scale = coder->range >> 24;
    coder->lower += scale * below;
    coder->range = scale * size;
    if (coder->range >> 32 == 0) {
        coder->lower <<= 32;
        coder->range <<= 32;
        coder->point = coder->point << 32 | (coder->place < coder->count ? coder->words[coder->place] : 0);
        coder->place++;
    }
}

INLINE void write_bit(range_coder *coder, int bit, uint32_t ones) {
    uint32_t zeros = (1u << 24) - ones;
    write_interval(coder, bit ? zeros : 0, bit ? ones : zeros);
}

INLINE int read_bit(range_coder *coder, uint32_t ones) {
    uint32_t zeros = (1u << 24) - ones;
    int bit = coder->point - coder->lower >= (coder->range >> 24) * zeros;
    take_interval(coder, bit ? zeros : 0, bit ? ones : zeros);
    return bit;
}

/* Write symbols by the intervals [below, below + size) of 2^24 that their models give them. */
void NAME(write_intervals)(range_coder *shared, const int64_t *below, const int64_t *sizes, long count, int threads) {
    range_coder coder = *shared;
    (void)threads;
    for (long n = 0; n < count; n++) write_interval(&coder, (uint32_t)below[n], (uint32_t)sizes[n]);
    *shared = coder;
}

/* The last words: as few as name a number in the interval. */
void NAME(end_stream)(range_coder *coder, int threads) {
    (void)threads;
    if (coder->range == ~(uint64_t)0) return; /* nothing was written */
    uint64_t point = coder->lower + 0xffffffffu;
    if (coder->held) put_held(coder, point < coder->lower);
    put_word(coder, (uint32_t)(point >> 32));
    if ((uint32_t)((coder->lower + coder->range) >> 32) == (uint32_t)(point >> 32)) put_word(coder, 0);
}

/* Read symbols in [0, size). `ends` (models, size) are the cumulative frequencies of one model, or of each symbol's own. */
void NAME(read_symbols)(range_coder *shared, const int64_t *ends, int64_t *symbols, long count, long size, long models, int threads) {
    range_coder coder = *shared;
    (void)threads;
    for (long n = 0; n < count; n++) {
        uint64_t scale = coder.range >> 24, offset = coder.point - coder.lower;
        long first = 0, last = size - 1; /* the symbol is one of these; the last one takes what no writer writes */
        while (first < last) {
            long middle = (first + last) / 2;
            if (scale * (uint64_t)ends[middle] <= offset) first = middle + 1;
            else last = middle;
        }
        uint32_t below = first ? (uint32_t)ends[first - 1] : 0;
        take_interval(&coder, below, (uint32_t)ends[first] - below);
        symbols[n] = first;
        if (models > 1) ends += size;
    }
    *shared = coder;
}

typedef struct {
    uint32_t *lines[CONTEXTS];   /* slots: 22 bits of probability of a 1, 10 bits of how often seen */
    uint32_t mask;               /* lines of each context, less one */
    int32_t weights[WEIGHT_SETS][INPUTS];
    int32_t rates[MOST_SEEN + 1]; /* how far a slot moves that was seen so often: 2^16 / (seen + 1.5) */
    const int16_t *stretch;      /* ln(p / (1 - p)) x 256, of 12 bits of p */
    const uint16_t *squash;      /* its inverse, 16 bits, of -STRETCH_LIMIT to STRETCH_LIMIT */
} code_model;

INLINE uint32_t mixed(uint32_t x) { /* the finaliser of MurmurHash3 */
    x = (x ^ (x >> 16)) * 0x85ebca6bu;
    x = (x ^ (x >> 13)) * 0xc2b2ae35u;
    return x ^ (x >> 16);
}

INLINE int seen_class(int32_t slot) { /* never, once, two or three times, more */
    int seen = slot & 1023;
    return seen < 2 ? seen : seen < 4 ? 2 : 3;
}

/* One decision: the probability of a 1 from the slots of all contexts at a node, the bit, and what is learnt from it. */
INLINE int one_bit(code_model *model, range_coder *coder, uint32_t **lines, int node, int bit, int decoding) {
    int32_t slots[INPUTS] = {0}, inputs[INPUTS], rates[INPUTS];
    for (int c = 0; c < CONTEXTS; c++) slots[c] = (int32_t)(lines[c][node] ^ EVEN);
    for (int c = 0; c < CONTEXTS; c++) inputs[c] = model->stretch[(uint32_t)slots[c] >> 20], rates[c] = model->rates[slots[c] & 1023];
    inputs[CONTEXTS] = 256, rates[CONTEXTS] = 0;
    int32_t *weights = model->weights[seen_class(slots[3]) * 16 + seen_class(slots[1]) * 4 + seen_class(slots[2])], odds = 0;
    for (int c = 0; c < INPUTS; c++) odds += weights[c] * inputs[c];
    odds >>= 14;
    odds = odds > STRETCH_LIMIT ? STRETCH_LIMIT : odds < -STRETCH_LIMIT ? -STRETCH_LIMIT : odds;
    int32_t p = model->squash[odds + STRETCH_LIMIT];
    if (decoding) bit = read_bit(coder, (uint32_t)p << 8);
    else write_bit(coder, bit, (uint32_t)p << 8);
    int32_t error = ((bit << 16) - p) >> 1, target = bit ? MOST_CHANCE : LEAST_CHANCE;
    for (int c = 0; c < INPUTS; c++) {
        int32_t weight = weights[c] + ((inputs[c] * error + (1 << 15)) >> 16);
        weights[c] = weight > 65535 ? 65535 : weight < -65535 ? -65535 : weight;
        int32_t chance = (int32_t)((uint32_t)slots[c] >> 10), seen = slots[c] & 1023;
        chance += ((target - chance) >> 7) * rates[c] >> 9;
        slots[c] = (int32_t)((uint32_t)chance << 10 | (uint32_t)(seen < MOST_SEEN ? seen + 1 : seen));
    }
    for (int c = 0; c < CONTEXTS; c++) lines[c][node] = (uint32_t)slots[c] ^ EVEN;
    return bit;
}

/* Where a context keeps the levels from `level` on, after the bits of `prefix`. */
INLINE uint32_t *lines_of(const code_model *model, int c, uint32_t context, uint32_t prefix, int level) {
    return model->lines[c] + (size_t)(mixed(context + (prefix + 1) * 0x9e3779b9u + level) & model->mask) * SLOTS;
}

/* One code, from its highest bit down; a decision whose 1 no code has is left out. When decoding, `code` is ignored. */
INLINE int64_t one_code(code_model *model, range_coder *coder, const uint32_t *contexts, int64_t code, int64_t size, int depth, int decoding) {
    uint32_t *lines[CONTEXTS] = {0}, prefix = 0;
    int node = 1;
    for (int level = 0; level < depth; level++) {
        if (level % LEVELS == 0) {
            node = 1;
            for (int c = 0; c < CONTEXTS; c++) {
                lines[c] = lines_of(model, c, contexts[c], prefix, level);
                __builtin_prefetch(lines[c]);
                __builtin_prefetch(lines[c] + SLOTS / 2);
            }
        }
        int below = depth - 1 - level, bit = 0;
        if ((((int64_t)prefix * 2 + 1) << below) < size) bit = one_bit(model, coder, lines, node, (code >> below) & 1, decoding);
        prefix = prefix * 2 + bit;
        node = node * 2 + bit;
    }
    return prefix;
}

/* What the contexts are told by: the neighbours of a code, as hashes. */
INLINE void contexts_of(uint32_t *contexts, const int64_t *codes, const int64_t *hints, int64_t here, int64_t q, int64_t y, int64_t x,
                        int64_t planes, int64_t height, int64_t width) {
    int64_t area = height * width;
#define AT(there, known) ((known) ? (uint32_t)codes[there] + 1 : 0)
    uint32_t plane = (uint32_t)(q + 1) * 0x632be5abu, left = AT(here - 1, x), above = AT(here - width, y);
    uint32_t corner = AT(here - width - 1, x && y), right = AT(here - width + 1, y && x + 1 < width);
    uint32_t under = AT(here - area, q), before = AT(here - planes * area, here >= planes * area);
#undef AT
    contexts[0] = plane;
    contexts[1] = mixed(plane + left);
    contexts[2] = mixed(plane + above + 0x10000000u);
    contexts[3] = mixed(mixed(plane + left) + above);
    contexts[4] = mixed(plane + (hints ? (uint32_t)hints[here] : (uint32_t)(y * 4096 + x)) + 0x20000000u);
    contexts[5] = q ? mixed(plane + under + 0x30000000u) : mixed(mixed(above + 0x40000000u) + right * 0x9e3779b1u + corner);
    contexts[6] = hints ? mixed(mixed(plane + (uint32_t)hints[here] + 0x50000000u) + left) : mixed(plane + before + 0x50000000u);
}

#define DECISIONS_A_WORD 1453625 /* at most: each takes log2(65536 / 65535) of 32 bits at least */

/* Whether a stream ends too early for `left` codes more. A reader is two words ahead, and the interval holds another at most. Of all
   codes size - 1 takes the fewest decisions: one wherever it has a 1. */
INLINE int ends_early(const range_coder *coder, int64_t left, int64_t size) {
    int64_t words = (int64_t)(coder->count - coder->place) + 4;
    return left * __builtin_popcountll((uint64_t)size - 1) > words * DECISIONS_A_WORD;
}

/* All codes of all images, (planes, height, width) each; of a stream that ends too early, those before. `hints`, if any, are something
   known of each code, which two contexts take in place of the position and of the image before. */
INLINE void all_codes(code_model *model, range_coder *coder, int64_t *codes, const int64_t *hints, const int64_t *shapes, long images, long size, int decoding) {
    int depth = tree_depth(size);
    int64_t left = 0;
    for (int64_t i = 0; i < images; i++) left += shapes[3 * i] * shapes[3 * i + 1] * shapes[3 * i + 2];
    for (int64_t i = 0, here = 0; i < images; i++) {
        int64_t planes = shapes[3 * i], height = shapes[3 * i + 1], width = shapes[3 * i + 2];
        for (int64_t q = 0; q < planes; q++)
            for (int64_t y = 0; y < height; y++, left -= width) {
                if (decoding && ends_early(coder, left, size)) {
                    coder->place = coder->count + 3; /* beyond what any writer writes: `is_beyond` in streams.py */
                    return;
                }
                for (int64_t x = 0; x < width; x++, here++) {
                    uint32_t contexts[CONTEXTS], next[CONTEXTS];
                    contexts_of(contexts, codes, hints, here, q, y, x, planes, height, width);
                    if (x + 1 < width) { /* the next code's contexts, but for what the one on its left will tell: fetched in advance */
                        contexts_of(next, codes, hints, here + 1, q, y, x + 1, planes, height, width);
                        for (int c = 0; c < CONTEXTS; c++)
                            if (c != 1 && c != 3 && (c != 6 || !hints)) __builtin_prefetch(lines_of(model, c, next[c], 0, 0));
                    }
                    int64_t found = one_code(model, coder, contexts, codes[here], size, depth, decoding);
                    if (decoding) codes[here] = found;
                }
            }
    }
}

/* Write or read codes (N) in [0, size) of images of `shapes` (images, 3). `memory` (CONTEXTS, lines, SLOTS) is full of zeros; lines
   are a power of two. */
void NAME(adaptive_codes)(range_coder *shared, int64_t *codes, const int64_t *hints, const int64_t *shapes, const int16_t *stretch,
                          const uint16_t *squash, uint32_t *memory, long images, long size, long lines, long decoding, int threads) {
    range_coder coder = *shared;
    code_model model = {.mask = (uint32_t)lines - 1, .stretch = stretch, .squash = squash};
    (void)threads;
    for (int c = 0; c < CONTEXTS; c++) model.lines[c] = memory + (size_t)c * lines * SLOTS;
    for (int seen = 0; seen <= MOST_SEEN; seen++) model.rates[seen] = (2 << 16) / (2 * seen + 3);
    for (int s = 0; s < WEIGHT_SETS; s++)
        for (int c = 0; c < CONTEXTS; c++) model.weights[s][c] = 1 << 12;
    if (decoding) all_codes(&model, &coder, codes, hints, shapes, images, size, 1);
    else all_codes(&model, &coder, codes, hints, shapes, images, size, 0);
    *shared = coder;
}
