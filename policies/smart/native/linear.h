/* Linear layers and layer normalisation. */

#ifndef LINEAR_H
#define LINEAR_H

#include "vectors.h"

/* Outputs of a linear layer that are worked on together, for how many rows. */
#define BLOCK (2 * WIDTH)
#define TILE (WIDTH / 2)

/* The weights of BLOCK outputs lie together: those for the first input, for the second and so on. */
struct linear {
    int64_t in, out;
    const float *weight, *bias;
};

struct norm {
    const float *gain, *shift;
};

INLINE void multiply_tile(struct linear layer, int64_t block, int64_t count, const float *from,
                          int64_t stride, float *to) {
    const float *weight = layer.weight + block * layer.in, *row[TILE];
    vec one[TILE], other[TILE];
    UNROLL for (int i = 0; i < TILE; i++) {
        /* Behind the last row comes the last again. */
        row[i] = from + (i < count ? i : count - 1) * stride;
        one[i] = load(layer.bias + block);
        other[i] = load(layer.bias + block + WIDTH);
    }
    for (int64_t j = 0; j < layer.in; j++) {
        vec left = load(weight + j * BLOCK), right = load(weight + j * BLOCK + WIDTH);
        KEEP(left);
        KEEP(right);
        UNROLL for (int i = 0; i < TILE; i++) {
            vec factor = all(row[i][j]);
            one[i] += factor * left;
            other[i] += factor * right;
        }
    }
    UNROLL for (int i = 0; i < TILE; i++) {
        if (i >= count) continue;
        store(to + i * layer.out + block, one[i]);
        store(to + i * layer.out + block + WIDTH, other[i]);
    }
}

static void multiply(struct linear layer, int64_t count, const float *from, float *to) {
    for (int64_t block = 0; block < layer.out; block += BLOCK)
        for (int64_t first = 0; first < count; first += TILE)
            multiply_tile(layer, block, count - first, from + first * layer.in, layer.in,
                          to + first * layer.out);
}

/* Normalises a row, and adds it to another. */
INLINE void normalise(struct norm norm, int64_t hidden, const float *from, const float *plus,
                      float *to) {
    vec sum = {0}, squares = {0};
    for (int64_t i = 0; i < hidden; i += WIDTH) sum += load(from + i);
    float mean = sum_within(sum) / hidden;
    for (int64_t i = 0; i < hidden; i += WIDTH) {
        vec centred = load(from + i) - mean;
        squares += centred * centred;
    }
    float factor = 1.0f / sqrtf(sum_within(squares) / hidden + 1e-5f);
    for (int64_t i = 0; i < hidden; i += WIDTH) {
        vec value = (load(from + i) - mean) * factor * load(norm.gain + i) + load(norm.shift + i);
        store(to + i, plus ? load(plus + i) + value : value);
    }
}

#endif
