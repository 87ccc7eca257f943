/* Encodings of relations: what `FourierEmbedding.normalised` in `layers.py` describes. */

#include "vectors.h"

#define MOST_CURVES 8

/* Places on each of several curves, one curve behind the other. */
struct curves {
    int64_t count;      /* At most MOST_CURVES. */
    int64_t places;     /* On each curve. */
    int64_t hidden;     /* Features of a place: a multiple of 2 * WIDTH. */
    const float *table;
    const float *first; /* The number that belongs to the first place of each curve, */
    const float *scale; /* and how many places the next whole number is away. */
    const float *gain;  /* What the sum of places is multiplied by, once it is normalised, */
    const float *shift; /* and what is added then. */
    const float *matrix; /* The last layer, turned so that it is triangular; transposed. */
    const float *bias;
};

/* What layer normalisation multiplies numbers of mean zero by. */
INLINE float inverse_deviation(vec squares, int64_t count) {
    return 1.0f / sqrtf(sum_within(squares) / count + 1e-5f);
}

/* Sums the places on all curves of a row of numbers, normalises, scales, shifts and clamps. */
INLINE void embed(const struct curves *curves, const float *number, float *to) {
    int64_t hidden = curves->hidden, last = curves->places - 1;
    const float *below[MOST_CURVES];
    float fraction[MOST_CURVES];
    for (int64_t c = 0; c < curves->count; c++) {
        float place = (number[c] - curves->first[c]) * curves->scale[c];
        /* Written so that NaN lies in the table and has a fraction of NaN. */
        if (place < 0) place = 0;
        if (place > last) place = last;
        int64_t whole = place > 0 ? (place < last ? (int64_t)place : last - 1) : 0;
        fraction[c] = place - whole;
        below[c] = curves->table + (c * curves->places + whole) * hidden;
    }
    vec squares = {0};
    for (int64_t i = 0; i < hidden; i += WIDTH) {
        vec sum = {0};
        for (int64_t c = 0; c < curves->count; c++) {
            vec one = load(below[c] + i), other = load(below[c] + hidden + i);
            sum += (1 - fraction[c]) * one + fraction[c] * other;
        }
        squares += sum * sum;
        store(to + i, sum);
    }
    float factor = inverse_deviation(squares, hidden);
    for (int64_t i = 0; i < hidden; i += WIDTH) {
        vec value = load(to + i) * (factor * load(curves->gain + i)) + load(curves->shift + i);
        store(to + i, choose(value < 0.0f, all(0.0f), value));
    }
}

/* Rows that are multiplied together, and how many of these read the same columns of the matrix. */
#define TILE (WIDTH / 2)
#define ROWS 32

/* Adds the squares of 2 * WIDTH numbers of the last layer of each row: those from `begin` on. */
INLINE void add_squares(const struct curves *curves, const float *const *row, int64_t begin,
                        vec *squares) {
    int64_t hidden = curves->hidden;
    vec one[TILE], other[TILE];
    UNROLL for (int i = 0; i < TILE; i++) {
        one[i] = load(curves->bias + begin);
        other[i] = load(curves->bias + begin + WIDTH);
    }
    /* The matrix is triangular. */
    for (int64_t j = begin; j < hidden; j++) {
        vec left = load(curves->matrix + j * hidden + begin);
        vec right = load(curves->matrix + j * hidden + begin + WIDTH);
        KEEP(left);
        KEEP(right);
        UNROLL for (int i = 0; i < TILE; i++) {
            vec factor = all(row[i][j]);
            one[i] += factor * left;
            other[i] += factor * right;
        }
    }
    UNROLL for (int i = 0; i < TILE; i++) squares[i] += one[i] * one[i] + other[i] * other[i];
}

/* Embeds each row of numbers up to the last layer, and divides by the deviation behind it. */
int encode(const struct curves *curves, const float *number, float *to, float *scale,
           int64_t begin, int64_t end) {
    int64_t hidden = curves->hidden;
    for (int64_t first = begin; first < end; first += ROWS) {
        int64_t count = end - first < ROWS ? end - first : ROWS;
        const float *row[ROWS];
        vec squares[ROWS];
        for (int64_t i = 0; i < ROWS; i++) {
            /* Behind the last row comes the last again. */
            row[i] = to + (first + (i < count ? i : count - 1)) * hidden;
            squares[i] = (vec){0};
        }
        for (int64_t i = 0; i < count; i++)
            embed(curves, number + (first + i) * curves->count, to + (first + i) * hidden);
        for (int64_t column = 0; column < hidden; column += 2 * WIDTH)
            for (int64_t i = 0; i < count; i += TILE)
                add_squares(curves, row + i, column, squares + i);
        for (int64_t i = 0; i < count; i++) {
            float factor = scale[first + i] = inverse_deviation(squares[i], hidden);
            float *here = to + (first + i) * hidden;
            for (int64_t j = 0; j < hidden; j += WIDTH) store(here + j, load(here + j) * factor);
        }
    }
    return 0;
}
