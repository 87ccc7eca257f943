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

/* Rows that are multiplied together, and how many of these read the same columns of the matrix. */
#define TILE (WIDTH / 2)
#define ROWS 32

/* Rows ahead of the one that is worked on, whose places are fetched from memory. */
#define AHEAD 4

/* Where a row of numbers lies on the curves. */
struct place {
    const float *below[MOST_CURVES];
    float fraction[MOST_CURVES];
};

INLINE struct place find(const struct curves *curves, const float *number) {
    struct place found;
    int64_t last = curves->places - 1;
    for (int64_t c = 0; c < curves->count; c++) {
        float place = (number[c] - curves->first[c]) * curves->scale[c];
        /* Written so that NaN lies in the table and has a fraction of NaN. */
        if (place < 0) place = 0;
        if (place > last) place = last;
        int64_t whole = place > 0 ? (place < last ? (int64_t)place : last - 1) : 0;
        found.fraction[c] = place - whole;
        found.below[c] = curves->table + (c * curves->places + whole) * curves->hidden;
    }
    return found;
}

INLINE void fetch(const struct curves *curves, const struct place *place) {
    for (int64_t c = 0; c < curves->count; c++)
        for (int64_t i = 0; i < 2 * curves->hidden; i += LINE)
            __builtin_prefetch(place->below[c] + i);
}

/* Sums the places on all curves, and returns squares that are to be summed. */
INLINE vec sum_places(const struct curves *curves, const struct place *place, float *to) {
    int64_t hidden = curves->hidden;
    vec squares = {0};
    for (int64_t i = 0; i < hidden; i += WIDTH) {
        vec sum = {0};
        for (int64_t c = 0; c < curves->count; c++) {
            vec one = load(place->below[c] + i), other = load(place->below[c] + hidden + i);
            sum += (1 - place->fraction[c]) * one + place->fraction[c] * other;
        }
        squares += sum * sum;
        store(to + i, sum);
    }
    return squares;
}

/* What layer normalisation multiplies some rows of mean zero by, whose squares these are. */
INLINE void inverse_deviations(int64_t hidden, const vec *squares, float *to) {
    for (int i = 0; i < ROWS; i += WIDTH) {
        vec part[WIDTH];
        UNROLL for (int j = 0; j < WIDTH; j++) part[j] = squares[i + j];
        store(to + i, sums_within(part));
    }
    for (int i = 0; i < ROWS; i++) to[i] = 1.0f / sqrtf(to[i] / hidden + 1e-5f);
}

/* Sums the places on all curves of some rows of numbers, normalises, scales, shifts and clamps. */
INLINE void embed(const struct curves *curves, int64_t count, const float *number, float *to) {
    int64_t hidden = curves->hidden;
    struct place places[ROWS];
    vec squares[ROWS];
    float factor[ROWS];
    for (int64_t i = 0; i < count; i++) places[i] = find(curves, number + i * curves->count);
    for (int64_t i = 0; i < ROWS; i++) {
        if (i + AHEAD < count) fetch(curves, places + i + AHEAD);
        squares[i] = i < count ? sum_places(curves, places + i, to + i * hidden) : (vec){0};
    }
    inverse_deviations(hidden, squares, factor);
    for (int64_t i = 0; i < count; i++) {
        for (int64_t j = 0; j < hidden; j += WIDTH) {
            vec gain = factor[i] * load(curves->gain + j);
            vec value = load(to + i * hidden + j) * gain + load(curves->shift + j);
            store(to + i * hidden + j, choose(value < 0.0f, all(0.0f), value));
        }
    }
}

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
        embed(curves, count, number + first * curves->count, to + first * hidden);
        for (int64_t column = 0; column < hidden; column += 2 * WIDTH)
            for (int64_t i = 0; i < count; i += TILE)
                add_squares(curves, row + i, column, squares + i);
        float factor[ROWS];
        inverse_deviations(hidden, squares, factor);
        for (int64_t i = 0; i < count; i++) {
            float *here = to + (first + i) * hidden;
            scale[first + i] = factor[i];
            for (int64_t j = 0; j < hidden; j += WIDTH) store(here + j, load(here + j) * factor[i]);
        }
    }
    return 0;
}
