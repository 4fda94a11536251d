/* An interpreter for autoregressive sampling: a network as a list of operations, run position after position in raster order.

   smalti/priors/machine.py makes the list from the record of a network. Some operations are done once before a row, for all its
   columns, the others at each column. A value lies in the caller's memory at an address that moves with the image, the row and the
   column; its channels are filled up to whole vectors of 16 with zeros, so that no loop has a rest.

   Threads take images as long as each has one and the matrices are small, and then never wait for each other. Otherwise all work on the
   same images: they share the panels of a product and the heads of an attention, and meet after every operation. */

#ifdef _OPENMP
#include <omp.h>
#endif
#include <sched.h>

enum { PRODUCT, ACTIVATE, NORM, ATTEND, SHIFT, KINDS };
enum { PLAIN, RELU, ELU, GELU, GATED, GLU, ADD, FUNCTIONS };

typedef struct {
    float *start;
    int64_t image, row, column; /* steps, in floats */
} place;

/* As machine.py lays it out. A place that is not wanted starts at NULL.
   PRODUCT   out = f(in x table + bias + start) + residual; `also` is another function of out.
             in goes over `segments` stretches of `depth` floats, `step` floats apart.
   ACTIVATE  out = f(in), or in + residual
   NORM      out = in less its mean, divided by its deviation, x table + bias, over `depth` channels
   ATTEND    out = attention of in (queries, keys, values) over the cache at `table`
   SHIFT     the rows of a window, `depth` floats each, `step` of them, move up by one */
typedef struct {
    int64_t kind, by_row, function, also_function;
    place in, start, residual, out, also;
    float *table;
    const float *bias;
    int64_t depth, segments, step, columns; /* columns: channels of out, filled up */
    int64_t heads, key_width, value_width, length, offset;
    double epsilon;
} operation;

typedef struct {
    int64_t first, count, batch, width, copies; /* positions to go through; images, of which `copies` share their codes */
    int64_t *codes;                             /* (T, batch / copies) */
    const int64_t *known;                       /* (T): the code is given; NULL: nothing is sampled, and `count` is 1 */
    const double *noise;                        /* (count, batch / copies, size) */
    const float *embedding;                     /* (size, depth) */
    int64_t size, depth, top_k;
    double temperature, top_p, guidance;
    place embedded, logits;
} task;

/* What one thread works on: some images, some columns, and in them its share of every operation. */
typedef struct {
    long first, images, column, columns, row, part, parts;
} block;

/* Threads that wait for each other; they spin, since a product takes less time than waking a thread. */
typedef struct {
    int arrived, turn;
} meeting;

static void meet(meeting *here, long parts) {
    if (parts == 1) return;
    int turn = __atomic_load_n(&here->turn, __ATOMIC_RELAXED);
    if (__atomic_add_fetch(&here->arrived, 1, __ATOMIC_ACQ_REL) == parts) {
        here->arrived = 0;
        __atomic_store_n(&here->turn, turn + 1, __ATOMIC_RELEASE);
        return;
    }
    for (long spins = 0; __atomic_load_n(&here->turn, __ATOMIC_ACQUIRE) == turn; spins++) {
        if (spins > 2000) sched_yield(); /* the other one may have no core at all */
#if LANES > 4
        else __builtin_ia32_pause();
#endif
    }
}

INLINE float *at(place where, long image, long row, long column) {
    return where.start + image * where.image + row * where.row + column * where.column;
}

/* A thread's share of `count` things. */
INLINE long share(long count, block part, long which) { return count * (part.part + which) / part.parts; }

/* ------------------------------------------------------------------ functions of one position */

/* GELU with the tanh of GPT-2. */
INLINE vec vgelu(vec x) { return 0.5f * x * (1.0f + vtanh(0.797884561f * (x + 0.044715f * x * x * x))); }

INLINE vec function_of(int64_t function, vec first, vec second) {
    switch (function) {
        case RELU: return vmax(first, splat(0));
        case ELU: return choose(first > splat(0), first, vexp(first) - 1.0f);
        case GELU: return vgelu(first);
        case GATED: return vtanh(first) * vsigmoid(second);
        case GLU: return first * vsigmoid(second);
        case ADD: return first + second;
        default: return first;
    }
}

INLINE int has_halves(int64_t function) { return function == GATED || function == GLU; }

static void activate(const operation *op, long image, block part, long column) {
    const float *in = at(op->in, image, part.row, column);
    const float *other = op->function == ADD ? at(op->residual, image, part.row, column) : in + (has_halves(op->function) ? op->columns : 0);
    float *out = at(op->out, image, part.row, column);
    for (long c = share(op->columns / LANES, part, 0) * LANES; c < share(op->columns / LANES, part, 1) * LANES; c += LANES)
        store(out + c, function_of(op->function, load(in + c), load(other + c)));
}

static void normalise(const operation *op, long image, block part, long column) {
    const float *in = at(op->in, image, part.row, column);
    float *out = at(op->out, image, part.row, column);
    vec sum = splat(0), squares = splat(0);
    for (long c = 0; c < op->columns; c += LANES) sum += load(in + c);
    float mean = total(sum) / op->depth;
    for (long c = 0; c < op->columns; c += LANES) squares += (load(in + c) - mean) * (load(in + c) - mean);
    float variance = (total(squares) - (op->columns - op->depth) * mean * mean) / op->depth;
    float scale = 1.0f / sqrtf(variance + (float)op->epsilon);
    for (long c = 0; c < op->columns; c += LANES) store(out + c, (load(in + c) - mean) * scale * load(op->table + c) + load(op->bias + c));
}

/* ------------------------------------------------------------------ products */

/* Where the two vectors of a panel lie among the channels: side by side, or one in each half where a gate wants both. */
typedef struct {
    long first, second;
    int both;
} channels;

INLINE channels channels_of(const operation *op, long panel) {
    if (has_halves(op->function)) return (channels){panel * LANES, op->columns + panel * LANES, 1};
    return (channels){panel * PANEL, panel * PANEL + LANES, panel * PANEL + LANES < op->columns};
}

INLINE void begin_sums(const operation *op, channels where, const float *start, vec *sums) {
    sums[0] = op->bias ? load(op->bias + where.first) : splat(0);
    sums[1] = op->bias && where.both ? load(op->bias + where.second) : splat(0);
    if (!start) return;
    sums[0] += load(start + where.first);
    if (where.both) sums[1] += load(start + where.second);
}

INLINE void finish_vector(const operation *op, int64_t function, long c, vec first, vec second, const float *residual, float *out, float *also) {
    vec value = function_of(function, first, second);
    if (residual) value += load(residual + c);
    store(out + c, value);
    if (also) store(also + c, function_of(op->also_function, value, value));
}

INLINE void finish_sums(const operation *op, int64_t function, channels where, const vec *sums, long image, long row, long column) {
    float *out = at(op->out, image, row, column), *also = op->also.start ? at(op->also, image, row, column) : NULL;
    const float *residual = op->residual.start ? at(op->residual, image, row, column) : NULL;
    finish_vector(op, function, where.first, sums[0], sums[1], residual, out, also);
    if (where.both && !has_halves(function)) finish_vector(op, function, where.second, sums[1], sums[1], residual, out, also);
}

static void finish(const operation *op, channels where, const vec *sums, long image, long row, long column) {
    switch (op->function) { /* a constant in every call */
#define CASE(f) \
    case f: finish_sums(op, f, where, sums, image, row, column); break;
        CASE(PLAIN) CASE(RELU) CASE(ELU) CASE(GELU) CASE(GATED) CASE(GLU)
#undef CASE
    }
}

INLINE long panels_of(const operation *op) {
    return has_halves(op->function) ? op->columns / LANES : (op->columns + PANEL - 1) / PANEL;
}

/* One or two images at one column: `wide` panels at a time. */
INLINE void product_wide(const operation *op, block part, int rows, int wide) {
    long step = op->depth * op->segments * PANEL, last = share(panels_of(op), part, 1), p = share(panels_of(op), part, 0);
    const float *in = at(op->in, part.first, part.row, part.column);
    for (; p < last; p += wide) {
        vec sums[2][WIDE][2];
        int here = last - p < wide ? (int)(last - p) : wide;
        for (int r = 0; r < rows; r++)
            for (int w = 0; w < here; w++)
                begin_sums(op, channels_of(op, p + w), op->start.start ? at(op->start, part.first + r, part.row, part.column) : NULL, sums[r][w]);
        for (long s = 0; s < op->segments; s++) {
            const float *left = in + s * op->step, *panels = op->table + p * step + s * op->depth * PANEL;
            if (here == wide) linear_wide(left, op->in.image, panels, step, op->depth, sums, rows, wide);
            else for (int w = 0; w < here; w++)
                for (int r = 0; r < rows; r++) linear_rows(left + r * op->in.image, 0, panels + w * step, op->depth, &sums[r][w], 1);
        }
        for (int r = 0; r < rows; r++)
            for (int w = 0; w < here; w++) finish(op, channels_of(op, p + w), sums[r][w], part.first + r, part.row, part.column);
    }
}

/* Many images or columns: one panel at a time, its rows the images or the columns, whichever are many. */
static void product_rows(const operation *op, block part, vec (*sums)[2]) {
    int across = part.columns > 1;
    long outer = across ? part.images : 1, inner = across ? part.columns : part.images, stride = across ? op->in.column : op->in.image;
#define IMAGE (part.first + (across ? i : k))
#define COLUMN (part.column + (across ? k : 0))
    for (long p = share(panels_of(op), part, 0); p < share(panels_of(op), part, 1); p++) {
        const float *panel = op->table + p * op->depth * op->segments * PANEL;
        channels where = channels_of(op, p);
        for (long i = 0; i < outer; i++)
            for (long k = 0; k < inner; k++)
                begin_sums(op, where, op->start.start ? at(op->start, IMAGE, part.row, COLUMN) : NULL, sums[i * inner + k]);
        for (long s = 0; s < op->segments; s++)
            for (long d = 0; d < op->depth; d += DEPTH_PART, panel += DEPTH_PART * PANEL) {
                long some = op->depth - d < DEPTH_PART ? op->depth - d : DEPTH_PART;
                for (long i = 0; i < outer; i++)
                    linear_rows(at(op->in, part.first + i, part.row, part.column) + s * op->step + d, stride, panel, some, sums + i * inner, inner);
                if (some < DEPTH_PART) panel += (some - DEPTH_PART) * PANEL;
            }
        for (long i = 0; i < outer; i++)
            for (long k = 0; k < inner; k++) finish(op, where, sums[i * inner + k], IMAGE, part.row, COLUMN);
    }
#undef IMAGE
#undef COLUMN
}

static void product(const operation *op, block part, vec (*sums)[2]) {
    if (part.images * part.columns == 1) product_wide(op, part, 1, WIDE);
    else if (part.images == 2 && part.columns == 1) product_wide(op, part, 2, LANES == 16 ? WIDE : 2);
    else product_rows(op, part, sums);
}

/* ------------------------------------------------------------------ attention */

/* e^(x - highest) in place over n floats; returns their sum. */
INLINE float exponentials(float *x, long n, float highest) {
    vec sum = splat(0);
    long i = 0;
    for (; i + LANES <= n; i += LANES) {
        vec y = vexp(load(x + i) - highest);
        store(x + i, y);
        sum += y;
    }
    float rest = 0;
    for (; i < n; i++) {
        x[i] = vexp(splat(x[i] - highest))[0];
        rest += x[i];
    }
    return total(sum) + rest;
}

#define AHEAD 4096 /* floats: what is asked for before it is wanted, over the pages at which the processor's own foresight ends */

/* out (`ways` vectors) = the sum of `count` rows of `values`, `width` floats each, times their shares, over `sum`. */
INLINE void mix_rows(const float *shares, const float *values, long width, long count, float sum, vec *out, int ways) {
    vec mixed[4][WAYS];
    UNROLL for (int r = 0; r < 4; r++) UNROLL for (int w = 0; w < ways; w++) mixed[r][w] = splat(0);
    long t = 0;
    for (; t + 4 <= count; t += 4, values += 4 * width)
        UNROLL for (int r = 0; r < 4; r++) {
            vec portion = splat(shares[t + r]);
            UNROLL for (int w = 0; w < ways; w++) {
                __builtin_prefetch(values + r * width + w * LANES + AHEAD);
                mixed[r][w] += portion * load(values + r * width + w * LANES);
            }
        }
    for (; t < count; t++, values += width)
        UNROLL for (int w = 0; w < ways; w++) mixed[0][w] += splat(shares[t]) * load(values + w * LANES);
    UNROLL for (int w = 0; w < ways; w++) out[w] = ((mixed[0][w] + mixed[1][w]) + (mixed[2][w] + mixed[3][w])) / sum;
}

/* One head of one image. Keys are kept in blocks of LANES positions, [block][channel][lane], so that a vector holds scores; values as
   rows, [position][channel], filled up to whole vectors. `scratch` holds a share for each position. */
static void attend(const operation *op, const float *qkv, float *cache, float *out, long position, long head, float *scratch) {
    long heads = op->heads, key_width = op->key_width, value_width = op->value_width, length = op->length, count = position + 1;
    long block = position / LANES, lane = position % LANES, width = (value_width + LANES - 1) / LANES * LANES;
    float scale = 1.0f / sqrtf((float)key_width), *shares = scratch;
    vec highest = splat(-INFINITY);
    const float *query = qkv + head * key_width, *key = query + heads * key_width, *value = qkv + 2 * heads * key_width + head * value_width;
    float *keys = cache + head * length * key_width, *values = cache + heads * length * key_width + head * length * width;
    for (long k = 0; k < key_width; k++) keys[(block * key_width + k) * LANES + lane] = key[k];
    memcpy(values + position * width, value, sizeof(float) * value_width);
    for (long n = 0; n <= block; n++) {
        vec sum[4] = {splat(0), splat(0), splat(0), splat(0)};
        const float *here = keys + n * key_width * LANES;
        long k = 0;
        for (; k + 4 <= key_width; k += 4)
            UNROLL for (int w = 0; w < 4; w++) {
                __builtin_prefetch(here + (k + w) * LANES + AHEAD);
                sum[w] += query[k + w] * load(here + (k + w) * LANES);
            }
        for (; k < key_width; k++) sum[0] += query[k] * load(here + k * LANES);
        vec score = ((sum[0] + sum[1]) + (sum[2] + sum[3])) * scale;
        for (long behind = n < block ? LANES : lane + 1; behind < LANES; behind++) score[behind] = -INFINITY;
        store(shares + n * LANES, score);
        highest = vmax(highest, score);
    }
    float sum = exponentials(shares, count, largest(highest));
    for (long c = 0; c < width; c += WAYS * LANES) {
        vec mixed[WAYS];
        long left = value_width - c < WAYS * LANES ? value_width - c : WAYS * LANES;
        switch ((left + LANES - 1) / LANES) { /* a constant in every call */
#define CASE(n) \
    case n: mix_rows(shares, values + c, width, count, sum, mixed, n); break;
            CASE(1) CASE(2) CASE(3) CASE(4)
#undef CASE
        }
        memcpy(out + head * value_width + c, mixed, sizeof(float) * left);
    }
}

static void attend_all(const operation *op, block part, long width, float *scratch) {
    long filled = (op->value_width + LANES - 1) / LANES * LANES, position = op->offset + part.row * width + part.column;
    long size = op->heads * (op->key_width + filled) * op->length;
    for (long n = share(part.images * op->heads, part, 0); n < share(part.images * op->heads, part, 1); n++) {
        long image = part.first + n / op->heads;
        attend(op, at(op->in, image, part.row, part.column), op->table + image * size, at(op->out, image, part.row, part.column), position,
               n % op->heads, scratch);
    }
}

/* ------------------------------------------------------------------ codes from logits */

typedef struct {
    double logit;
    long code;
} candidate;

static int likelier(const void *first, const void *second) {
    const candidate *one = first, *other = second;
    if (one->logit != other->logit) return one->logit > other->logit ? -1 : 1;
    return one->code < other->code ? -1 : 1;
}

/* Top-k, then top-p, on logits in order; returns how many remain. */
static long kept_candidates(const candidate *order, long size, long top_k, double top_p) {
    long kept = top_k > 0 && top_k < size ? top_k : size;
    if (top_p < 1) {
        double sum = 0, before = 0;
        for (long k = 0; k < kept; k++) sum += exp(order[k].logit - order[0].logit);
        for (long k = 0; k < kept; k++) {
            if (before / sum >= top_p) return k;
            before += exp(order[k].logit - order[0].logit);
        }
    }
    return kept;
}

static double log_sum(const float *logits, long size) {
    vec highest = splat(-INFINITY), sum = splat(0);
    float most, rest = 0;
    long k = 0;
    for (; k + LANES <= size; k += LANES) highest = vmax(highest, load(logits + k));
    for (most = largest(highest); k < size; k++) most = logits[k] > most ? logits[k] : most;
    for (k = 0; k + LANES <= size; k += LANES) sum += vexp(load(logits + k) - most);
    for (; k < size; k++) rest += expf(logits[k] - most);
    return most + log((double)total(sum) + rest);
}

/* The logits that the rules begin with: guided, and divided by the temperature; (size) doubles. */
static void ruled(const float *logits, const float *without, const task *all, double *out) {
    double of_both = without ? log_sum(logits, all->size) : 0, of_other = without ? log_sum(without, all->size) : 0;
    float temperature = all->temperature > 0 ? (float)all->temperature : 1;
    for (long k = 0; k < all->size; k++) {
        double other = without ? without[k] - of_other : 0;
        float logit = without ? (float)(other + all->guidance * (logits[k] - of_both - other)) : logits[k];
        out[k] = logit / temperature;
    }
}

/* The code with the largest logit plus noise among those that the rules keep, the lowest of equals; temperature 0 is greedy. */
static long sampled(const double *logits, const double *noise, const task *all, candidate *order) {
    double best = -INFINITY, loud = all->temperature > 0 ? 1 : 0;
    long code = 0, size = all->size, kept = size;
    if (!loud || ((all->top_k <= 0 || all->top_k >= size) && all->top_p >= 1)) {
        for (long k = 0; k < size; k++) {
            double value = logits[k] + loud * noise[k];
            if (value > best) best = value, code = k;
        }
        return code;
    }
    for (long k = 0; k < size; k++) order[k] = (candidate){logits[k], k};
    qsort(order, size, sizeof *order, likelier);
    kept = kept_candidates(order, size, all->top_k, all->top_p);
    for (long n = 0; n < kept; n++) {
        double value = order[n].logit + noise[order[n].code];
        if (value > best || (value == best && order[n].code < code)) best = value, code = order[n].code;
    }
    return code;
}

/* The images of a block, `copies` at a time, each with a code of its own: a thread's share of them. */
static void sample_codes(const task *all, block part, long position, double *values, candidate *order) {
    long count = part.images / all->copies, first = part.first / all->copies, batch = all->batch / all->copies;
    for (long n = first + share(count, part, 0); n < first + share(count, part, 1); n++) {
        const float *logits = at(all->logits, n * all->copies, part.row, part.column);
        const float *without = all->copies > 1 ? at(all->logits, n * all->copies + 1, part.row, part.column) : NULL;
        const double *noise = all->noise + ((position - all->first) * batch + n) * all->size;
        if (all->known[position]) continue;
        ruled(logits, without, all, values);
        all->codes[position * batch + n] = sampled(values, noise, all, order);
    }
}

/* Puts the vectors of a position's codes where the network reads them. */
static void embed(const task *all, block part, long position) {
    for (long n = part.first + share(part.images, part, 0); n < part.first + share(part.images, part, 1); n++) {
        int64_t code = all->codes[(position * all->batch + n) / all->copies];
        memcpy(at(all->embedded, n, position / all->width, position % all->width), all->embedding + code * all->depth,
               sizeof(float) * all->depth);
    }
}

/* ------------------------------------------------------------------ the interpreter */

static void run(const operation *op, block part, long width, vec (*sums)[2], float *scratch) {
    if (op->kind == PRODUCT) return product(op, part, sums);
    if (op->kind == ATTEND) return attend_all(op, part, width, scratch);
    int whole = op->kind == NORM || op->kind == SHIFT; /* an image at a time; of the others each thread does some channels */
    long first = whole ? share(part.images, part, 0) : 0, last = whole ? share(part.images, part, 1) : part.images;
    for (long i = part.first + first; i < part.first + last; i++) {
        float *rows = op->out.start + i * op->out.image;
        if (op->kind == SHIFT) memmove(rows, rows + op->depth, sizeof(float) * op->depth * (op->step - 1));
        else for (long x = part.column; x < part.column + part.columns; x++)
            op->kind == NORM ? normalise(op, i, part, x) : activate(op, i, part, x);
    }
}

/* Goes through the positions of a task with some images. */
static void go(const operation *all, long count, const task *what, block part, meeting *here) {
    long most = 0;
    for (long n = 0; n < count; n++)
        if (all[n].kind == ATTEND && all[n].length > most) most = all[n].length;
    vec(*sums)[2] = aligned_alloc(64, (sizeof *sums * part.images * what->width + 63) / 64 * 64);
    float *scratch = aligned_alloc(64, (sizeof(float) * most + 127) / 64 * 64);
    candidate *order = malloc(sizeof *order * what->size);
    double *values = malloc(sizeof *values * what->size);
    for (long position = what->first; position < what->first + what->count; position++) {
        part.row = position / what->width, part.column = position % what->width, part.columns = 1;
        if (position) {
            embed(what, part, position - 1);
            meet(here, part.parts);
        }
        if (!part.column) {
            part.columns = what->width;
            for (long n = 0; n < count; n++)
                if (all[n].by_row) run(all + n, part, what->width, sums, scratch), meet(here, part.parts);
            part.columns = 1;
        }
        for (long n = 0; n < count; n++)
            if (!all[n].by_row) run(all + n, part, what->width, sums, scratch), meet(here, part.parts);
        if (!what->known) continue;
        sample_codes(what, part, position, values, order);
        meet(here, part.parts);
    }
    free(sums), free(scratch), free(order), free(values);
}

#define SMALL_TABLES (16L << 20) /* bytes of matrices that every thread can read for itself */

void NAME(raster)(const int64_t *operations, const int64_t *what, int64_t count, int threads) {
    const operation *all = (const operation *)operations;
    const task *one = (const task *)what;
    if (one->batch < 1 || one->copies < 1 || one->width < 1) return;
    long images = one->batch / one->copies, bytes = 0;
    for (long n = 0; n < count; n++)
        if (all[n].kind == PRODUCT) bytes += all[n].depth * all[n].segments * all[n].columns * (has_halves(all[n].function) + 1) * 4;
    int together = images < threads || bytes > SMALL_TABLES;
    meeting here = {0, 0};
    PARALLEL(num_threads(threads) if (threads > 1)) {
        long team = 1, own = 0;
#ifdef _OPENMP
        team = omp_get_num_threads(), own = omp_get_thread_num();
#endif
        block part = {.images = one->batch, .part = own, .parts = team};
        if (!together) {
            long first = images * own / team;
            part = (block){.first = first * one->copies, .images = (images * (own + 1) / team - first) * one->copies, .parts = 1};
        }
        if (part.images) go(all, count, one, part, &here);
    }
}
