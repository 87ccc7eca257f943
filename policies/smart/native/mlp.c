/* Linear layers with normalisation and clamping between them: what `mlp.py` describes. */

#include "linear.h"

/* Rows that go through all layers before the next do, so that they stay in the cache. */
#define ROWS 32

struct stage {
    struct linear linear;
    struct norm norm; /* Behind it, before clamping. The last layer has none. */
};

/* Runs rows through all layers. */
int mlp(const struct stage *stages, int64_t count, const float *from, float *to, int64_t begin,
        int64_t end) {
    struct linear first = stages[0].linear, last = stages[count - 1].linear;
    int64_t widest = 0;
    for (int64_t i = 0; i + 1 < count; i++)
        if (stages[i].linear.out > widest) widest = stages[i].linear.out;
    float *room = malloc(sizeof(float) * (2 * ROWS * widest + 1));
    if (!room) return 1;
    for (int64_t row = begin; row < end; row += ROWS) {
        int64_t rows = end - row < ROWS ? end - row : ROWS;
        const float *here = from + row * first.in;
        for (int64_t i = 0; i + 1 < count; i++) {
            int64_t out = stages[i].linear.out;
            float *next = room + i % 2 * ROWS * widest;
            multiply(stages[i].linear, rows, here, next);
            for (int64_t j = 0; j < rows * out; j += out)
                normalise(stages[i].norm, out, next + j, NULL, next + j);
            for (int64_t j = 0; j < rows * out; j += WIDTH) store(next + j, clamp(load(next + j)));
            here = next;
        }
        multiply(last, rows, here, to + row * last.out);
    }
    free(room);
    return 0;
}
