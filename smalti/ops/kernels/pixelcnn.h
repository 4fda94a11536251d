/* A row of codes drawn by a gated PixelCNN: the horizontal stack, column after column, and the draw. What the rows above contribute is
   given. A thread takes some images through the whole row, so threads never wait for each other. */

/* One gated layer, as the Python side lays it out: addresses and numbers. */
typedef struct {
    const float *horizontal, *mix, *mix_bias; /* panels: 2C columns of depth taps x C; C columns of depth C */
    const float *from_above;                  /* (width, batch, 2C), with all biases */
    int64_t taps, reach;
} gated_layer;

/* out (rows, columns) = start + left (rows, depth at a stride) x panels, where start is (rows, columns) at a stride, or one row for all. */
INLINE void product(const float *left, long stride, const float *panels, long depth, const float *start, long start_stride, float *out,
                    long columns, long rows, vec (*sums)[2]) {
    for (long p = 0; p * PANEL < columns; p++) {
        const float *panel = panels + p * depth * PANEL;
        long width = columns - p * PANEL < PANEL ? columns - p * PANEL : PANEL;
        for (long r = 0; r < rows; r++) {
            sums[r][0] = sums[r][1] = splat(0);
            memcpy(sums[r], start + r * start_stride + p * PANEL, sizeof(float) * width);
        }
        for (long d = 0; d < depth; d += DEPTH_PART) {
            long part = depth - d < DEPTH_PART ? depth - d : DEPTH_PART;
            linear_rows(left + d, stride, panel + d * PANEL, part, sums, rows);
        }
        for (long r = 0; r < rows; r++) memcpy(out + r * columns + p * PANEL, sums[r], sizeof(float) * width);
    }
}

/* out (rows, C) = tanh of the first C of both (rows, 2C), times the sigmoid of the others. */
INLINE void gated(const float *both, float *out, long channels, long rows) {
    for (long r = 0; r < rows; r++)
        for (long c = 0; c < channels; c += LANES) {
            float signal[LANES] = {0}, gates[LANES] = {0};
            long width = channels - c < LANES ? channels - c : LANES;
            memcpy(signal, both + r * 2 * channels + c, sizeof(float) * width);
            memcpy(gates, both + (r * 2 + 1) * channels + c, sizeof(float) * width);
            vec value = vtanh(load(signal)) * vsigmoid(load(gates));
            memcpy(out + r * channels + c, &value, sizeof(float) * width);
        }
}

INLINE void rectify(float *values, long count) {
    for (long k = 0; k < count; k++) values[k] = values[k] > 0 ? values[k] : 0;
}

/* codes (width, batch), of which those in columns with known[column] are given, the others drawn: arg max of logits / temperature
   + noise (width, batch, size); temperature 0 is greedy. `layers` is an array of gated_layer; `head` and `hidden` are panels. */
void NAME(pixelcnn_row)(const int64_t *layers, const float *embedding, const float *hidden, const float *hidden_bias, const float *head,
                        const float *head_bias, const double *noise, const int64_t *known, int64_t *codes, long count, long batch,
                        long width, long channels, long size, float temperature, int threads) {
    const gated_layer *layer = (const gated_layer *)layers;
    long share = (batch + threads - 1) / threads, shares = (batch + share - 1) / share;
    PARALLEL(for num_threads(threads) schedule(static, 1))
    for (long part = 0; part < shares; part++) {
        long first = part * share, rows = batch - first < share ? batch - first : share, kept = 0, place = 0;
        for (long n = 0; n < count; n++) kept += (layer[n].reach + width) * rows * channels;
        float *memory = calloc(kept, sizeof(float)), **inputs = malloc(count * sizeof *inputs);
        for (long n = 0; n < count; place += (layer[n].reach + width) * rows * channels, n++) inputs[n] = memory + place;
        float *both = malloc(sizeof(float) * rows * 2 * channels), *gate = malloc(sizeof(float) * rows * channels);
        float *stream = malloc(sizeof(float) * rows * channels), *logits = malloc(sizeof(float) * rows * size);
        vec(*sums)[2] = aligned_alloc(64, (sizeof *sums * rows + 63) / 64 * 64);
        for (long x = 0; x < width; x++) {
            for (long n = 0; n < count; n++) {
                long stride = (layer[n].reach + width) * channels;
                if (n) /* the first layer does not see its own column */
                    for (long r = 0; r < rows; r++)
                        memcpy(inputs[n] + r * stride + (layer[n].reach + x) * channels, stream + r * channels, sizeof(float) * channels);
                product(inputs[n] + x * channels, stride, layer[n].horizontal, layer[n].taps * channels,
                        layer[n].from_above + (x * batch + first) * 2 * channels, 2 * channels, both, 2 * channels, rows, sums);
                gated(both, gate, channels, rows);
                product(gate, channels, layer[n].mix, channels, layer[n].mix_bias, 0, both, channels, rows, sums);
                for (long k = 0; k < rows * channels; k++) stream[k] = n ? stream[k] + both[k] : both[k];
            }
            memcpy(gate, stream, sizeof(float) * rows * channels);
            rectify(gate, rows * channels);
            product(gate, channels, hidden, channels, hidden_bias, 0, both, channels, rows, sums);
            rectify(both, rows * channels);
            product(both, channels, head, channels, head_bias, 0, logits, size, rows, sums);
            for (long r = 0; r < rows; r++) {
                int64_t *code = codes + x * batch + first + r;
                if (!known[x]) {
                    const double *own = noise + (x * batch + first + r) * size;
                    double best = -INFINITY;
                    *code = 0;
                    for (long k = 0; k < size; k++) {
                        double value = temperature > 0 ? (double)(logits[r * size + k] / temperature) + own[k] : logits[r * size + k];
                        if (value > best) best = value, *code = k;
                    }
                }
                memcpy(inputs[0] + r * (layer[0].reach + width) * channels + (layer[0].reach + x) * channels, embedding + *code * channels,
                       sizeof(float) * channels);
            }
        }
        free(memory), free(inputs), free(both), free(gate), free(stream), free(logits), free(sums);
    }
}
