/* Convolutions of channels-last images, and the gradients of their weights.

   Some rows of an image are copied with zeros around them. What an output pixel sees of one row of its window is then one run of
   numbers, columns by channels, and a step to the right moves that run by `step` pixels: a convolution is a product for each row of
   the window. A transposed convolution with step s is s x s of these, each of which makes every s-th row and column of the output. */

/* One convolution; a transposed one has several. As the Python side lays it out, see convolution.py. */
typedef struct {
    float *weight;                                    /* of output, row, column and channel of the window, */
    int64_t of_output, of_row, of_column, of_channel; /* so many floats apart; below 0 where the kernel is turned round */
    float *out;
    const float *gate;                                /* NULL, or laid out as `out`: where it is not above 0, `out` is 0 */
    int64_t image, row, column;                       /* floats from one of the output to the next */
    int64_t rows, columns, outputs;                   /* of the output */
    int64_t images, height, width, channels;          /* of the input */
    int64_t rectified;                                /* whether the input is the positive part of what is given */
    int64_t high, wide, step, top, left;              /* the window: its size, how far it moves, where it starts above and left */
} convolution;

#define CONVOLUTION_PIXELS 64 /* about so many output pixels, in whole rows, share a window */
#define CONVOLUTION_TILE (TILE_ROWS < 6 ? TILE_ROWS : 6) /* pixels at a time: so many addresses fit into registers */

static long rows_together(const convolution *c) {
    long rows = CONVOLUTION_PIXELS / c->columns;
    return rows < 1 ? 1 : rows < c->rows ? rows : c->rows;
}

/* Columns by channels of the window of a whole row. */
INLINE long window_line(const convolution *c) { return ((c->columns - 1) * c->step + c->wide) * c->channels; }

static float *new_window(const convolution *c, long together) {
    long lines = (together - 1) * c->step + c->high;
    return aligned_alloc(64, (sizeof(float) * lines * window_line(c) + 63) / 64 * 64);
}

INLINE void copy_rectified(float *to, const float *from, long count) {
    long i = 0;
    for (; i + LANES <= count; i += LANES) store(to + i, vmax(splat(0), load(from + i)));
    for (; i < count; i++) to[i] = from[i] <= 0 ? 0 : from[i];
}

/* The input rows that output rows `row` and so on see, with zeros around: in `window`, or where they lie if nothing is around. */
static const float *window_of(const convolution *c, const float *image, long row, long rows, float *window) {
    int single = c->high == 1 && c->wide == 1 && c->step == 1 && c->top == 0 && c->left == 0;
    if (single && c->columns == c->width && row + rows <= c->height && !c->rectified)
        return image + row * c->width * c->channels;
    const float *filled = window;
    long line = window_line(c), across = line / c->channels, lines = (rows - 1) * c->step + c->high;
    long from = c->left > 0 ? c->left : 0, to = c->width + c->left < across ? c->width + c->left : across;
    for (long n = 0; n < lines; n++, window += line) {
        long y = row * c->step - c->top + n;
        int outside = y < 0 || y >= c->height || to <= from;
        long first = outside ? across : from, last = outside ? across : to;
        memset(window, 0, sizeof(float) * first * c->channels);
        if (outside) continue;
        float *to = window + first * c->channels;
        const float *seen = image + (y * c->width + first - c->left) * c->channels;
        if (c->rectified)
            copy_rectified(to, seen, (last - first) * c->channels);
        else
            memcpy(to, seen, sizeof(float) * (last - first) * c->channels);
        memset(window + last * c->channels, 0, sizeof(float) * (across - last) * c->channels);
    }
    return filled;
}

/* A panel of the weights: [row][column][channel][PANEL], filled up with zeros. */
static void pack_weights(const convolution *c, long p, float *packed) {
    long width = c->outputs - p * PANEL < PANEL ? c->outputs - p * PANEL : PANEL;
    const float *weight = c->weight + p * PANEL * c->of_output;
    for (long y = 0; y < c->high; y++)
        for (long x = 0; x < c->wide; x++)
            for (long k = 0; k < c->channels; k++, packed += PANEL)
                for (long o = 0; o < PANEL; o++)
                    packed[o] = o < width ? weight[o * c->of_output + y * c->of_row + x * c->of_column + k * c->of_channel] : 0;
}

/* A panel of outputs of a few pixels, or its first vector, each one chain of fused multiply-adds in the order of the window. `seen` and
   `made` say where what the pixels see and where they themselves begin. */
INLINE void convolve_tile(const convolution *c, const float *window, const long *seen, const float *panel, const float *bias, float *out,
                          const long *made, long width, int vectors, int count) {
    long line = window_line(c), depth = c->wide * c->channels;
    vec sums[TILE_ROWS][2];
    UNROLL for (int i = 0; i < count; i++) UNROLL for (int v = 0; v < vectors; v++) sums[i][v] = load(bias + v * LANES);
    for (long y = 0; y < c->high; y++, window += line, panel += depth * PANEL) {
        const float *left[TILE_ROWS];
        UNROLL for (int i = 0; i < count; i++) left[i] = window + seen[i];
        _Pragma("GCC unroll 4") for (long d = 0; d < depth; d++) {
            vec weights[2];
            UNROLL for (int v = 0; v < vectors; v++) weights[v] = load(panel + d * PANEL + v * LANES);
            UNROLL for (int i = 0; i < count; i++) {
                vec value = splat(left[i][d]);
                UNROLL for (int v = 0; v < vectors; v++) sums[i][v] += value * weights[v];
            }
        }
    }
    UNROLL for (int i = 0; i < count; i++) {
        float *pixel = out + made[i], edge[PANEL], *to = width < vectors * LANES ? edge : pixel;
        const float *gate = c->gate + (pixel - c->out);
        UNROLL for (int v = 0; v < vectors; v++) {
            if (c->gate && to == pixel) sums[i][v] = choose(load(gate + v * LANES) > splat(0), sums[i][v], splat(0));
            store(to + v * LANES, sums[i][v]);
        }
        if (to == pixel) continue;
        for (long k = 0; k < width; k++) pixel[k] = c->gate && !(gate[k] > 0) ? 0 : edge[k];
    }
}

/* Some pixels of the output of one image, whose window this is. */
static void convolve_pixels(const convolution *c, const float *packed, const float *window, const float *bias, float *out, long pixels,
                            const long *seen, const long *made) {
    long size = c->high * c->wide * c->channels * PANEL;
    for (long p = 0; p * PANEL < c->outputs; p++) {
        long width = c->outputs - p * PANEL < PANEL ? c->outputs - p * PANEL : PANEL, count;
        long tiles = (pixels + CONVOLUTION_TILE - 1) / CONVOLUTION_TILE;
        for (long i = 0; i < pixels; i += count, tiles--) {
            count = (pixels - i + tiles - 1) / tiles; /* 8 pixels are twice 4 and not 6 and 2 */
#define CALL_1(n) convolve_tile(c, window, seen + i, packed + p * size, bias + p * PANEL, out + p * PANEL, made + i, width, 1, n)
#define CALL_2(n) convolve_tile(c, window, seen + i, packed + p * size, bias + p * PANEL, out + p * PANEL, made + i, width, 2, n)
            if (width <= LANES)
                WITH_ROWS(count, CALL_1)
            else
                WITH_ROWS(count, CALL_2)
#undef CALL_1
#undef CALL_2
        }
    }
}

/* What one thread needs for one convolution: room for a window, and where each pixel of some rows sees it and is written. */
typedef struct {
    float *window;
    long *seen, *made;
} workplace;

static workplace new_workplace(const convolution *c, long together) {
    long pixels = together * c->columns;
    workplace own = {new_window(c, together), malloc(sizeof(long) * pixels), malloc(sizeof(long) * pixels)};
    for (long i = 0; i < pixels; i++) {
        own.seen[i] = i / c->columns * c->step * window_line(c) + i % c->columns * c->step * c->channels;
        own.made[i] = i / c->columns * c->row + i % c->columns * c->column;
    }
    return own;
}

/* The room that all convolutions' weights take when packed; with `packed` given, they are packed by the threads of a team. */
static long packed_weights(const convolution *all, long count, float *packed) {
    long place = 0;
    for (const convolution *c = all; c < all + count; c++) {
        long panels = (c->outputs + PANEL - 1) / PANEL, size = c->high * c->wide * c->channels * PANEL;
        if (packed) {
#pragma omp for schedule(static) nowait
            for (long p = 0; p < panels; p++) pack_weights(c, p, packed + place + p * size);
        }
        place += panels * size;
    }
    return place;
}

/* out = bias + the convolution of `in` for each of `count` convolutions; they share the images, the channels and the outputs, and the
   first has the most pixels. The bias, (outputs), may be NULL. */
void NAME(convolve)(const int64_t *numbers, const float *in, const float *bias, long count, int threads) {
    const convolution *all = (const convolution *)numbers;
    long together = rows_together(all), chunks = (all->rows + together - 1) / together;
    long panels = (all->outputs + PANEL - 1) / PANEL, size = packed_weights(all, count, NULL);
    float *packed = aligned_alloc(64, (sizeof(float) * (size + panels * PANEL) + 63) / 64 * 64), *filled = packed + size;
    memset(filled, 0, sizeof(float) * panels * PANEL);
    if (bias) memcpy(filled, bias, sizeof(float) * all->outputs);
    PARALLEL(num_threads(threads)) {
        packed_weights(all, count, packed);
        workplace *places = malloc(sizeof *places * count);
        for (long n = 0; n < count; n++) places[n] = new_workplace(all + n, together);
#pragma omp barrier
#pragma omp for schedule(dynamic)
        for (long chunk = 0; chunk < all->images * chunks; chunk++) {
            long image = chunk / chunks, row = chunk % chunks * together, place = 0;
            for (long n = 0; n < count; n++) {
                const convolution *c = all + n;
                long rows = c->rows - row < together ? c->rows - row : together;
                if (rows > 0) {
                    const float *first = in + image * c->height * c->width * c->channels;
                    const float *window = window_of(c, first, row, rows, places[n].window);
                    convolve_pixels(c, packed + place, window, filled, c->out + image * c->image + row * c->row,
                                    rows * c->columns, places[n].seen, places[n].made);
                }
                place += panels * c->high * c->wide * c->channels * PANEL;
            }
        }
        for (long n = 0; n < count; n++) free(places[n].window), free(places[n].seen), free(places[n].made);
        free(places);
    }
    free(packed);
}

/* sums[i] += what pixel x of the window has at i, times what the gradient of its output has at a panel, for all pixels. */
INLINE void gradient_tile(const float *window, long line, long step, const float *gradient, long rows, long columns, float *out, int count) {
    vec sums[TILE_ROWS][2];
    UNROLL for (int i = 0; i < count; i++) sums[i][0] = load(out + i * PANEL), sums[i][1] = load(out + i * PANEL + LANES);
    for (long r = 0; r < rows; r++)
        _Pragma("GCC unroll 4") for (long x = 0; x < columns; x++, gradient += PANEL) {
            vec first = load(gradient), second = load(gradient + LANES);
            UNROLL for (int i = 0; i < count; i++) {
                vec value = splat(window[r * line + x * step + i]);
                sums[i][0] += value * first;
                sums[i][1] += value * second;
            }
        }
    UNROLL for (int i = 0; i < count; i++) store(out + i * PANEL, sums[i][0]), store(out + i * PANEL + LANES, sums[i][1]);
}

/* Adds the gradient of one panel of the matrix, and below it of the bias, from some rows of one image; the window is theirs. */
static void gradient_panel(const convolution *c, const float *window, const float *gradients, long rows, float *out) {
    long line = window_line(c), depth = c->wide * c->channels;
    const float one = 1;
    for (long y = 0; y < c->high; y++)
        for (long d = 0; d < depth; d += TILE_ROWS, out += TILE_ROWS * PANEL) {
            long count = depth - d < TILE_ROWS ? depth - d : TILE_ROWS;
#define CALL(n) gradient_tile(window + y * line + d, c->step * line, c->step * c->channels, gradients, rows, c->columns, out, n)
            WITH_ROWS(count, CALL)
#undef CALL
            out -= (TILE_ROWS - count) * PANEL;
        }
    gradient_tile(&one, 0, 0, gradients, rows, c->columns, out, 1);
}

/* What the output's gradient has at a panel, for some rows of one image: [row][column][PANEL], filled up with zeros. */
static void pack_gradients(const convolution *c, const float *gradient, long rows, long width, int rectified, float *out) {
    for (long r = 0; r < rows; r++)
        for (long x = 0; x < c->columns; x++, out += PANEL) {
            const float *pixel = gradient + r * c->row + x * c->column;
            if (width < PANEL) memset(out, 0, sizeof(float) * PANEL);
            if (rectified)
                copy_rectified(out, pixel, width);
            else
                memcpy(out, pixel, sizeof(float) * width);
        }
}

/* The gradient of a panel of the weights and of the bias: the sum of `shares` parts that lie `step` floats apart. */
static void add_parts(const convolution *c, long p, const float *parts, long shares, long step, float *bias) {
    long width = c->outputs - p * PANEL < PANEL ? c->outputs - p * PANEL : PANEL, size = c->high * c->wide * c->channels;
    float *weight = c->weight + p * PANEL * c->of_output;
    for (long d = 0; d <= size; d++, parts += PANEL) {
        vec sums[2] = {load(parts), load(parts + LANES)};
        for (long n = 1; n < shares; n++) sums[0] += load(parts + n * step), sums[1] += load(parts + n * step + LANES);
        long y = d / c->channels / c->wide, x = d / c->channels % c->wide, k = d % c->channels;
        float *to = d == size ? bias + p * PANEL : weight + y * c->of_row + x * c->of_column + k * c->of_channel;
        for (long o = 0; o < width; o++) to[o * (d == size ? 1 : c->of_output)] = sums[o / LANES][o % LANES];
    }
}

/* Gradients of the weights and of the bias (outputs), from the input and the gradient of the output. The pixels are dealt out to
   `shares`; `parts` is room for what each finds: shares x panels x (high x wide x channels + 1) x PANEL. Which pixels a share is made
   of does not depend on the threads, so neither does their sum. With `rectified` it is the positive part of `gradient` that counts:
   in a transposed convolution input and output change places. */
void NAME(convolve_weights)(const int64_t *numbers, const float *in, const float *gradient, float *parts, float *bias, long shares,
                            long rectified, int threads) {
    const convolution *c = (const convolution *)numbers;
    long together = rows_together(c), chunks = (c->rows + together - 1) / together, total = c->images * chunks;
    long panels = (c->outputs + PANEL - 1) / PANEL, size = (c->high * c->wide * c->channels + 1) * PANEL;
    long groups = (4 * threads + shares - 1) / shares; /* of panels: enough work for all threads, however few the pixels */
    groups = groups < panels ? groups : panels;
    PARALLEL(num_threads(threads)) {
        float *buffer = new_window(c, together), *gradients = aligned_alloc(64, sizeof(float) * together * c->columns * PANEL);
#pragma omp for schedule(dynamic)
        for (long task = 0; task < shares * groups; task++) {
            long share = task / groups, first = panels * (task % groups) / groups, last = panels * (task % groups + 1) / groups;
            float *own = parts + share * panels * size;
            memset(own + first * size, 0, sizeof(float) * (last - first) * size);
            for (long chunk = total * share / shares; chunk < total * (share + 1) / shares; chunk++) {
                long image = chunk / chunks, row = chunk % chunks * together, rows = c->rows - row < together ? c->rows - row : together;
                const float *window = window_of(c, in + image * c->height * c->width * c->channels, row, rows, buffer);
                for (long p = first; p < last; p++) {
                    long width = c->outputs - p * PANEL < PANEL ? c->outputs - p * PANEL : PANEL;
                    pack_gradients(c, gradient + image * c->image + row * c->row + p * PANEL, rows, width, rectified, gradients);
                    gradient_panel(c, window, gradients, rows, own + p * size);
                }
            }
        }
#pragma omp for schedule(dynamic)
        for (long p = 0; p < panels; p++) add_parts(c, p, parts + p * size, shares, panels * size, bias);
        free(buffer), free(gradients);
    }
}
