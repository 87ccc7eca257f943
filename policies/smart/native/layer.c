/* A layer of attention before and after it attends: what `layer.py` describes. */

#include "vectors.h"

/* Outputs of a linear layer that are worked on together, for how many rows. */
#define BLOCK (2 * WIDTH)
#define TILE (WIDTH / 2)
/* Rows that go through all of it before the next do, so that they stay in the cache. */
#define ROWS 64

/* The weights of BLOCK outputs lie together: those for the first input, for the second and so on. */
struct linear {
    int64_t in, out;
    const float *weight, *bias;
};

struct norm {
    const float *gain, *shift;
};

struct layer {
    int64_t hidden, width; /* Features of a row, and of the queries of all heads. */
    struct norm before;
    struct linear project; /* To queries, skips, gates, and perhaps keys and values. */
    struct linear gate, out;
    struct norm behind_out, before_first;
    struct linear first, second;
    struct norm behind_second;
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

INLINE vec sigmoid(vec x) {
    vec power = exponential(choose(x < 0.0f, x, -x));
    return choose(x < 0.0f, power, all(1.0f)) / (1.0f + power);
}

/* Normalises rows and projects them. */
int enter_layer(const struct layer *layer, const float *from, float *projected, int64_t begin,
                int64_t end) {
    int64_t hidden = layer->hidden;
    float *room = malloc(sizeof(float) * ROWS * hidden);
    if (!room) return 1;
    for (int64_t first = begin; first < end; first += ROWS) {
        int64_t count = end - first < ROWS ? end - first : ROWS;
        for (int64_t i = 0; i < count; i++)
            normalise(layer->before, hidden, from + (first + i) * hidden, NULL, room + i * hidden);
        multiply(layer->project, count, room, projected + first * layer->project.out);
    }
    free(room);
    return 0;
}

/* Lets some of what rows attended to pass, and adds it to them; feeds them forward. */
int leave_layer(const struct layer *layer, const float *from, const float *projected,
                const float *gathered, float *to, int64_t begin, int64_t end) {
    int64_t hidden = layer->hidden, width = layer->width;
    float *passed = malloc(sizeof(float) * ROWS * (width + hidden + layer->first.out));
    if (!passed) return 1;
    float *room = passed + ROWS * width, *between = room + ROWS * hidden;
    for (int64_t first = begin; first < end; first += ROWS) {
        int64_t count = end - first < ROWS ? end - first : ROWS;
        float *row = to + first * hidden;
        multiply(layer->gate, count, gathered + first * width, passed);
        for (int64_t i = 0; i < count; i++) {
            const float *skip = projected + (first + i) * layer->project.out + width;
            for (int64_t j = 0; j < width; j += WIDTH) {
                vec gate = sigmoid(load(skip + width + j) + load(passed + i * width + j));
                vec value = load(gathered + (first + i) * width + j);
                store(passed + i * width + j, value + gate * (load(skip + j) - value));
            }
        }
        multiply(layer->out, count, passed, room);
        for (int64_t i = 0; i < count * hidden; i += hidden) {
            normalise(layer->behind_out, hidden, room + i, from + first * hidden + i, row + i);
            normalise(layer->before_first, hidden, row + i, NULL, room + i);
        }
        multiply(layer->first, count, room, between);
        for (int64_t i = 0; i < count * layer->first.out; i += WIDTH) {
            vec value = load(between + i);
            store(between + i, choose(value < 0.0f, all(0.0f), value));
        }
        multiply(layer->second, count, between, room);
        for (int64_t i = 0; i < count * hidden; i += hidden)
            normalise(layer->behind_second, hidden, room + i, row + i, row + i);
    }
    free(passed);
    return 0;
}
