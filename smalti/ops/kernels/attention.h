/* One position attending to all before it and itself, over keys and values that are kept. */

/* x . y over n floats. */
INLINE float dot(const float *x, const float *y, long n) {
    vec sum = splat(0);
    long i = 0;
    for (; i + LANES <= n; i += LANES) sum += load(x + i) * load(y + i);
    float rest = 0;
    for (; i < n; i++) rest += x[i] * y[i];
    return total(sum) + rest;
}

/* y += a * x over n floats. */
INLINE void add_scaled(float *y, float a, const float *x, long n) {
    long i = 0;
    for (; i + LANES <= n; i += LANES) store(y + i, load(y + i) + a * load(x + i));
    for (; i < n; i++) y[i] += a * x[i];
}

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

/* For each image and head: keep the new key and value at `place`, then out = softmax(q . keys / sqrt(width)) x values.
   qkv (batch, heads * key_width | heads * key_width | heads * value_width), keys (batch, heads, length, key_width),
   values (batch, heads, length, value_width), out (batch, heads * value_width). */
void NAME(attend)(const float *qkv, float *keys, float *values, float *out, long batch, long heads, long place, long length,
                  long key_width, long value_width, int threads) {
    float scale = 1.0f / sqrtf((float)key_width);
    PARALLEL(num_threads(threads)) {
        float *shares = malloc(sizeof(float) * (place + 1));
#pragma omp for schedule(static)
        for (long i = 0; i < batch * heads; i++) {
            long b = i / heads, head = i % heads, count = place + 1;
            float *k = keys + i * length * key_width, *v = values + i * length * value_width;
            float *result = out + i * value_width, highest = -INFINITY;
            const float *query = qkv + b * heads * (2 * key_width + value_width) + head * key_width;
            const float *value = query + (2 * heads - head) * key_width + head * value_width;
            memcpy(k + place * key_width, query + heads * key_width, sizeof(float) * key_width);
            memcpy(v + place * value_width, value, sizeof(float) * value_width);
            for (long t = 0; t < count; t++) {
                shares[t] = scale * dot(query, k + t * key_width, key_width);
                highest = shares[t] > highest ? shares[t] : highest;
            }
            float sum = exponentials(shares, count, highest);
            memset(result, 0, sizeof(float) * value_width);
            for (long t = 0; t < count; t++) add_scaled(result, shares[t] / sum, v + t * value_width, value_width);
        }
        free(shares);
    }
}
