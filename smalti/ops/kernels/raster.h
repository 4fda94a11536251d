/* A small machine that draws grids of codes in raster order, for every prior made of causal convolutions.

   A prior hands it two lists of operations: those done once before a row, for all its columns, and those done at each column. A
   value lives in memory of the caller at an address that moves with the image, the row and the column. Threads take images, so they
   never wait for each other. Where there are more threads than images they share the columns of what is done before a row, and an
   image's columns are drawn by one thread, since waking another takes as long as a product. */

enum { PRODUCT, RELU, ELU, GATED, GLU, ADD, SHIFT, ATTEND, DRAW };

typedef struct {
    float *start;
    int64_t image, row, column; /* steps, in floats */
} place;

/* As the Python side lays it out, see priors/raster.py. */
typedef struct {
    int64_t kind;
    place in, more, out;
    const float *table; /* panels of a matrix; the embedding where codes are drawn */
    int64_t depth, columns;
    int64_t extra[4];
} operation;

typedef struct {
    const double *noise; /* (width, batch, codebook size) */
    const int64_t *known;
    int64_t *codes; /* (width, batch) */
    float temperature, top_p;
    long top_k, batch, width, row;
} drawing;

/* Some images, and in each some columns: what one thread works on. */
typedef struct {
    long first, images, column, columns;
} block;

INLINE float *at(place where, long image, long row, long column) {
    return where.start + image * where.image + row * where.row + column * where.column;
}

/* The same for a single image and column. */
static void raster_single(const operation *op, long row, block part) {
    const float *in = at(op->in, part.first, row, part.column), *more = at(op->more, part.first, row, part.column);
    float *out = at(op->out, part.first, row, part.column);
    long step = op->depth * PANEL, whole = op->columns / (WIDE * PANEL) * WIDE;
    vec sums[WIDE][2];
    for (long p = 0; p < whole; p += WIDE) {
        memcpy(sums, more + p * PANEL, sizeof sums);
        linear_wide(in, op->table + p * step, step, op->depth, sums);
        memcpy(out + p * PANEL, sums, sizeof sums);
    }
    for (long p = whole; p * PANEL < op->columns; p++) {
        long width = op->columns - p * PANEL < PANEL ? op->columns - p * PANEL : PANEL;
        memset(sums, 0, sizeof *sums);
        memcpy(sums, more + p * PANEL, sizeof(float) * width);
        linear_rows(in, 0, op->table + p * step, op->depth, sums, 1);
        memcpy(out + p * PANEL, sums, sizeof(float) * width);
    }
}

/* out = more + in x table, for all images and columns of a block. The rows of a tile are images or columns, whichever are many. */
static void raster_product(const operation *op, long row, block part, vec (*sums)[2]) {
    int across = part.columns > 1;
    long outer = across ? part.images : 1, inner = across ? part.columns : part.images, depth = op->depth;
    long stride = across ? op->in.column : op->in.image;
    for (long p = 0; p < (op->columns + PANEL - 1) / PANEL; p++) {
        const float *panel = op->table + p * depth * PANEL;
        long width = op->columns - p * PANEL < PANEL ? op->columns - p * PANEL : PANEL;
        for (long i = 0; i < outer; i++)
            for (long k = 0; k < inner; k++) {
                vec *sum = sums[i * inner + k];
                sum[0] = sum[1] = splat(0);
                memcpy(sum, at(op->more, part.first + (across ? i : k), row, part.column + (across ? k : 0)) + p * PANEL,
                       sizeof(float) * width);
            }
        for (long d = 0; d < depth; d += DEPTH_PART) {
            long some = depth - d < DEPTH_PART ? depth - d : DEPTH_PART;
            for (long i = 0; i < outer; i++)
                linear_rows(at(op->in, part.first + i, row, part.column) + d, stride, panel + d * PANEL, some, sums + i * inner, inner);
        }
        for (long i = 0; i < outer; i++)
            for (long k = 0; k < inner; k++)
                memcpy(at(op->out, part.first + (across ? i : k), row, part.column + (across ? k : 0)) + p * PANEL, sums[i * inner + k],
                       sizeof(float) * width);
    }
}

/* One vector of a result from one or two vectors of its input. */
INLINE vec activation(int64_t kind, vec first, vec second) {
    switch (kind) {
        case RELU: return vmax(first, splat(0));
        case ELU: return choose(first > splat(0), first, vexp(first) - 1.0f);
        case GATED: return vtanh(first) * vsigmoid(second);
        case GLU: return first * vsigmoid(second);
        default: return first + second; /* ADD */
    }
}

/* out (columns) = f(in), f(in, more) for ADD, or f(in, in + columns) for the gates. */
INLINE void raster_activate(int64_t kind, const float *in, const float *more, float *out, long columns) {
    const float *other = kind == ADD ? more : kind == GATED || kind == GLU ? in + columns : in;
    long c = 0;
    for (; c + LANES <= columns; c += LANES) store(out + c, activation(kind, load(in + c), load(other + c)));
    if (c < columns) {
        vec first = splat(0), second = splat(0), result;
        memcpy(&first, in + c, sizeof(float) * (columns - c));
        memcpy(&second, other + c, sizeof(float) * (columns - c));
        result = activation(kind, first, second);
        memcpy(out + c, &result, sizeof(float) * (columns - c));
    }
}

/* Attention of one position of one image over itself and all before. Keys and values are kept in blocks of LANES positions, so that they
   are read from end to end: [head][block][channel][lane]. `scratch` holds `length` shares, then a vector for each channel of a value. */
static void raster_attend(const operation *op, const float *qkv, float *cache, float *out, long position, float *scratch) {
    long heads = op->extra[0], key_width = op->extra[1], value_width = op->extra[2], length = op->extra[3], count = position + 1;
    long block = position / LANES, lane = position % LANES;
    float scale = 1.0f / sqrtf((float)key_width), *shares = scratch;
    vec *sums = (vec *)(scratch + length);
    for (long head = 0; head < heads; head++) {
        const float *query = qkv + head * key_width, *key = query + heads * key_width;
        const float *value = qkv + 2 * heads * key_width + head * value_width;
        float *keys = cache + head * length * key_width, *values = cache + heads * length * key_width + head * length * value_width;
        for (long k = 0; k < key_width; k++) keys[(block * key_width + k) * LANES + lane] = key[k];
        for (long k = 0; k < value_width; k++) values[(block * value_width + k) * LANES + lane] = value[k];
        vec highest = splat(-INFINITY);
        for (long n = 0; n <= block; n++) {
            vec sum = splat(0);
            for (long k = 0; k < key_width; k++) sum += query[k] * load(keys + (n * key_width + k) * LANES);
            sum *= scale;
            for (long behind = n < block ? LANES : lane + 1; behind < LANES; behind++) sum[behind] = -INFINITY;
            store(shares + n * LANES, sum);
            highest = vmax(highest, sum);
        }
        float sum = exponentials(shares, count, largest(highest));
        for (long t = count; t % LANES; t++) shares[t] = 0;
        for (long k = 0; k < value_width; k++) sums[k] = splat(0);
        for (long n = 0; n <= block; n++) {
            vec share = load(shares + n * LANES);
            for (long k = 0; k < value_width; k++) sums[k] += share * load(values + (n * value_width + k) * LANES);
        }
        for (long k = 0; k < value_width; k++) out[head * value_width + k] = total(sums[k]) / sum;
    }
}

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
static long kept_candidates(const candidate *order, long size, long top_k, float top_p) {
    long kept = top_k > 0 && top_k < size ? top_k : size;
    if (top_p < 1) {
        double sum = 0, before = 0;
        for (long k = 0; k < kept; k++) sum += exp(order[k].logit - order[0].logit);
        for (long k = 0; k < kept; k++) {
            if (before / sum >= (double)top_p) return k;
            before += exp(order[k].logit - order[0].logit);
        }
    }
    return kept;
}

/* The code with the largest logit / temperature + noise among those that the rules keep; temperature 0 is greedy. */
static long drawn(const float *logits, const double *noise, long size, const drawing *all, candidate *order) {
    double best = -INFINITY;
    long code = 0, kept = size;
    int ordered = all->temperature > 0 && ((all->top_k > 0 && all->top_k < size) || all->top_p < 1);
    if (ordered) {
        for (long k = 0; k < size; k++) order[k] = (candidate){logits[k] / all->temperature, k};
        qsort(order, size, sizeof *order, likelier);
        kept = kept_candidates(order, size, all->top_k, all->top_p);
    }
    for (long n = 0; n < kept; n++) {
        long k = ordered ? order[n].code : n;
        double value = all->temperature > 0 ? (double)(logits[k] / all->temperature) + noise[k] : (double)logits[k];
        if (value > best || (value == best && k < code)) best = value, code = k;
    }
    return code;
}

static void raster_draw(const operation *op, const drawing *all, block part, candidate *order) {
    for (long i = part.first; i < part.first + part.images; i++) {
        int64_t *code = all->codes + part.column * all->batch + i;
        if (!all->known[part.column])
            *code = drawn(at(op->in, i, all->row, part.column), all->noise + (part.column * all->batch + i) * op->columns, op->columns, all,
                          order);
        memcpy(at(op->out, i, all->row, part.column), op->table + *code * op->depth, sizeof(float) * op->depth);
    }
}

static void raster_run(const operation *op, const drawing *all, block part, vec (*sums)[2], float *scratch, candidate *order) {
    if (op->kind == PRODUCT && part.images * part.columns == 1) return raster_single(op, all->row, part);
    if (op->kind == PRODUCT) return raster_product(op, all->row, part, sums);
    if (op->kind == DRAW) return raster_draw(op, all, part, order);
    for (long i = part.first; i < part.first + part.images; i++) {
        if (op->kind == SHIFT) { /* `columns` rows of `depth` floats: each takes the place of the one above it */
            float *rows = op->out.start + i * op->out.image;
            if (part.column == 0) memmove(rows, rows + op->depth, sizeof(float) * op->depth * (op->columns - 1));
            continue;
        }
        for (long x = part.column; x < part.column + part.columns; x++) {
            const float *in = at(op->in, i, all->row, x), *more = at(op->more, i, all->row, x);
            float *out = at(op->out, i, all->row, x);
            switch (op->kind) { /* a constant in every call, so that each becomes a loop of its own */
#define CASE(kind) \
    case kind: raster_activate(kind, in, more, out, op->columns); break;
                CASE(RELU) CASE(ELU) CASE(GATED) CASE(GLU) CASE(ADD)
#undef CASE
                case ATTEND: raster_attend(op, in, (float *)more, out, all->row * all->width + x, scratch);
            }
        }
    }
}

/* Floats that attention needs beside its cache. */
static long scratch_size(const operation *all, long count) {
    long most = 0;
    for (long n = 0; n < count; n++) {
        long need = all[n].kind == ATTEND ? all[n].extra[3] + all[n].extra[2] * LANES : 0;
        most = need > most ? need : most;
    }
    return most;
}

/* One operation before a row after the other, its columns shared by the threads. */
static void raster_before(const operation *all, long before, const drawing *task, int threads) {
    long share = (task->width + threads - 1) / threads;
    PARALLEL(num_threads(threads)) {
        vec(*sums)[2] = aligned_alloc(64, (sizeof *sums * task->batch * share + 63) / 64 * 64);
        for (long k = 0; k < before; k++) {
#pragma omp for schedule(static, 1)
            for (long column = 0; column < task->width; column += share) {
                long columns = task->width - column < share ? task->width - column : share;
                raster_run(all + k, task, (block){0, task->batch, column, columns}, sums, NULL, NULL);
            }
        }
        free(sums);
    }
}

/* Draws row `row` of all images: the first `before` operations for the whole row, the rest at each column. codes (width, batch), of
   which those in columns with known[column] are given; noise (width, batch, size). */
void NAME(raster_row)(const int64_t *operations, const double *noise, const int64_t *known, int64_t *codes, long before, long count,
                      long batch, long width, long row, long size, long top_k, float temperature, float top_p, int threads) {
    const operation *all = (const operation *)operations;
    drawing task = {noise, known, codes, temperature, top_p, top_k, batch, width, row};
    long share = (batch + threads - 1) / threads, shares = (batch + share - 1) / share, done = 0;
    if (threads > batch) raster_before(all, done = before, &task, threads);
    PARALLEL(for num_threads(shares) schedule(static, 1) if (shares > 1))
    for (long n = 0; n < shares; n++) {
        block part = {n * share, batch - n * share < share ? batch - n * share : share, 0, width};
        vec(*sums)[2] = aligned_alloc(64, (sizeof *sums * part.images * width + 63) / 64 * 64);
        float *scratch = aligned_alloc(64, (sizeof(float) * scratch_size(all, count) + 63) / 64 * 64);
        candidate *order = malloc(sizeof *order * size);
        for (long k = done; k < before; k++) raster_run(all + k, &task, part, sums, scratch, order);
        part.columns = 1;
        for (; part.column < width; part.column++)
            for (long k = before; k < count; k++) raster_run(all + k, &task, part, sums, scratch, order);
        free(sums), free(scratch), free(order);
    }
}
