/* Embeddings of a few numbers: what `FourierEmbedding` in `layers.py` describes. */

#include "linear.h"

#define MOST_CURVES 8

/* The network of a number that has no table. */
struct waves {
    int64_t column;    /* Which number of a row it is. */
    int64_t count;     /* A multiple of WIDTH. */
    const float *frequency;
    struct linear in;  /* Of cosines, sines and the number itself. */
    struct norm norm;
    struct linear out; /* Makes sums that are zero. */
};

/* Places on each of several curves, one curve behind the other. */
struct curves {
    int64_t columns;    /* Numbers in a row. */
    int64_t waves_count;
    const struct waves *waves;
    int64_t count;      /* At most MOST_CURVES. */
    int64_t places;     /* On each curve. */
    int64_t hidden;     /* Features of a place: a multiple of 2 * WIDTH. */
    const int64_t *column; /* Which number of a row each curve is of. */
    const float *table;
    const float *first; /* The number that belongs to the first place of each curve, */
    const float *scale; /* and how many places the next whole number is away. */
    const float *gain;  /* What the sum of places is multiplied by, once it is normalised, */
    const float *shift; /* and what is added then. */
    const float *matrix; /* The last layer, turned so that it is triangular; transposed. */
    const float *bias;
};

/* Rows that are worked on together. */
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
        float place = (number[curves->column[c]] - curves->first[c]) * curves->scale[c];
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

/* Sums the places on all curves, and what is there already if something is, and returns squares that
   are to be summed. */
INLINE vec sum_places(const struct curves *curves, const struct place *place, int is_begun,
                      float *to) {
    int64_t hidden = curves->hidden;
    vec squares = {0};
    for (int64_t i = 0; i < hidden; i += WIDTH) {
        vec sum = is_begun ? load(to + i) : all(0);
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

/* Adds what a network makes of its number in some rows. */
static void add_waves(const struct waves *waves, int64_t columns, int64_t count,
                      const float *number, float *room, float *to) {
    int64_t hidden = waves->out.out;
    float *wave = room, *between = room + ROWS * waves->in.in, *out = between + ROWS * hidden;
    for (int64_t i = 0; i < count; i++) {
        float value = number[i * columns + waves->column], *here = wave + i * waves->in.in;
        for (int64_t j = 0; j < waves->count; j += WIDTH) {
            vec cosine, sine;
            turn(value * load(waves->frequency + j), &cosine, &sine);
            store(here + j, cosine);
            store(here + waves->count + j, sine);
        }
        here[2 * waves->count] = value;
    }
    multiply(waves->in, count, wave, between);
    for (int64_t i = 0; i < count * hidden; i += hidden)
        normalise(waves->norm, hidden, between + i, NULL, between + i);
    for (int64_t i = 0; i < count * hidden; i += WIDTH) store(between + i, clamp(load(between + i)));
    multiply(waves->out, count, between, out);
    for (int64_t i = 0; i < count * hidden; i += WIDTH) store(to + i, load(to + i) + load(out + i));
}

/* Begins rows: with what is given, centred, or with zeros. */
INLINE void begin_rows(int64_t hidden, int64_t count, const float *given, float *to) {
    for (int64_t i = 0; i < count * hidden; i += hidden) {
        vec sum = {0};
        for (int64_t j = 0; given && j < hidden; j += WIDTH) sum += load(given + i + j);
        float mean = sum_within(sum) / hidden;
        for (int64_t j = 0; j < hidden; j += WIDTH)
            store(to + i + j, given ? load(given + i + j) - mean : all(0));
    }
}

/* Sums what becomes of all numbers of some rows, and of what is given if it is; normalises, scales,
   shifts and clamps. `room` is for networks. */
INLINE void embed_rows(const struct curves *curves, int64_t count, const float *number,
                       const float *given, float *room, float *to) {
    int64_t hidden = curves->hidden;
    int is_begun = given || curves->waves_count;
    struct place places[ROWS];
    vec squares[ROWS];
    float factor[ROWS];
    if (is_begun) begin_rows(hidden, count, given, to);
    for (int64_t w = 0; w < curves->waves_count; w++)
        add_waves(curves->waves + w, curves->columns, count, number, room, to);
    for (int64_t i = 0; i < count; i++) places[i] = find(curves, number + i * curves->columns);
    for (int64_t i = 0; i < ROWS; i++) {
        if (i + AHEAD < count) fetch(curves, places + i + AHEAD);
        squares[i] = i < count ? sum_places(curves, places + i, is_begun, to + i * hidden) : all(0);
    }
    inverse_deviations(hidden, squares, factor);
    for (int64_t i = 0; i < count; i++) {
        for (int64_t j = 0; j < hidden; j += WIDTH) {
            vec gain = factor[i] * load(curves->gain + j);
            vec value = load(to + i * hidden + j) * gain + load(curves->shift + j);
            store(to + i * hidden + j, clamp(value));
        }
    }
}

/* Makes room for the largest network, if there is one. */
INLINE float *make_room(const struct curves *curves) {
    int64_t most = 0;
    for (int64_t w = 0; w < curves->waves_count; w++)
        if (curves->waves[w].in.in > most) most = curves->waves[w].in.in;
    return malloc(sizeof(float) * ROWS * (most + 2 * curves->hidden));
}

/* Embeds each row of numbers up to the last layer. */
int embed(const struct curves *curves, const float *number, const float *given, float *to,
          int64_t begin, int64_t end) {
    int64_t hidden = curves->hidden;
    float *room = make_room(curves);
    if (!room) return 1;
    for (int64_t first = begin; first < end; first += ROWS) {
        int64_t count = end - first < ROWS ? end - first : ROWS;
        embed_rows(curves, count, number + first * curves->columns,
                   given ? given + first * hidden : NULL, room, to + first * hidden);
    }
    free(room);
    return 0;
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

/* Does the same, and divides by the deviation behind the last layer. */
int encode(const struct curves *curves, const float *number, float *to, float *scale,
           int64_t begin, int64_t end) {
    int64_t hidden = curves->hidden;
    float *room = make_room(curves);
    if (!room) return 1;
    for (int64_t first = begin; first < end; first += ROWS) {
        int64_t count = end - first < ROWS ? end - first : ROWS;
        const float *row[ROWS];
        vec squares[ROWS];
        for (int64_t i = 0; i < ROWS; i++) {
            /* Behind the last row comes the last again. */
            row[i] = to + (first + (i < count ? i : count - 1)) * hidden;
            squares[i] = (vec){0};
        }
        embed_rows(curves, count, number + first * curves->columns, NULL, room,
                   to + first * hidden);
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
    free(room);
    return 0;
}
