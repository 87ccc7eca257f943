/* Who is near whom, and how they stand to each other: what `graph.py` describes. */

/* Torch rounds each product. Rounded differently, what is straight behind changes sides. */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#else
#pragma GCC optimize("fp-contract=off")
#endif

#include "vectors.h"

#define PI 3.14159265358979f

/* The angle of a point, to 3 units in the last place; 0 at the origin, whatever its sign. */
INLINE vec angle_of(vec y, vec x) {
    ivec sign = (ivec){0} + INT32_MIN;
    vec x_size = (vec)((ivec)x & ~sign), y_size = (vec)((ivec)y & ~sign);
    ivec is_steep = y_size > x_size;
    vec smaller = choose(is_steep, x_size, y_size), larger = choose(is_steep, y_size, x_size);
    vec ratio = choose(larger == 0.0f, all(0.0f), smaller / larger);
    vec square = ratio * ratio;
    vec angle = all(0.0029035562f); /* A fit of atan(a) / a, off by at most 1.4e-8. */
    angle = angle * square - 0.016283024f;
    angle = angle * square + 0.043039396f;
    angle = angle * square - 0.07533679f;
    angle = angle * square + 0.10654679f;
    angle = angle * square - 0.14207134f;
    angle = angle * square + 0.19993055f;
    angle = angle * square - 0.33333093f;
    angle = angle * square * ratio + ratio;
    angle = choose(is_steep, PI / 2 - angle, angle);
    angle = choose(x < 0.0f, PI - angle, angle);
    return (vec)((ivec)angle | ((ivec)y & sign));
}

/* As `wrap_angle`, to the bit. */
INLINE float wrap(float angle) {
    const float turn = 2 * PI;
    float shifted = angle + PI;
    if (shifted >= turn) shifted = shifted < 2 * turn ? shifted - turn : fmodf(shifted, turn);
    if (shifted < 0) {
        shifted = shifted > -turn ? shifted : fmodf(shifted, turn);
        if (shifted != 0) shifted += turn;
    }
    return shifted - PI;
}

struct poses {
    const float *xy, *heading;
};

/* Distance, bearing and heading of sources, seen from the destinations. */
int relate(struct poses destinations, struct poses sources, const int64_t *destination,
           const int64_t *source, float *to, int64_t begin, int64_t end) {
    float along[WIDTH], across[WIDTH], square[WIDTH], turn[WIDTH], cos = 1, sin = 0;
    int64_t of = -1;
    for (int64_t first = begin; first < end; first += WIDTH) {
        int64_t count = end - first < WIDTH ? end - first : WIDTH;
        for (int64_t i = 0; i < WIDTH; i++) {
            /* Behind the last comes the last again. */
            int64_t edge = first + (i < count ? i : count - 1), from = source[edge];
            if (destination[edge] != of) {
                of = destination[edge];
                cos = cosf(destinations.heading[of]);
                sin = sinf(destinations.heading[of]);
            }
            float x = sources.xy[2 * from] - destinations.xy[2 * of];
            float y = sources.xy[2 * from + 1] - destinations.xy[2 * of + 1];
            along[i] = cos * x + sin * y;
            across[i] = cos * y - sin * x;
            square[i] = x * x + y * y;
            turn[i] = wrap(sources.heading[from] - destinations.heading[of]);
        }
        vec bearing = angle_of(load(across), load(along));
        for (int64_t i = 0; i < count; i++) {
            float *pose = to + 3 * (first + i);
            pose[0] = sqrtf(square[i]);
            pose[1] = bearing[i];
            pose[2] = turn[i];
        }
    }
    return 0;
}

/* Sources in square cells, sorted by the number of their cell. Groups have rows of their own. */
struct grid {
    int64_t count;
    const int64_t *key;    /* The cell of each, in order. */
    const int64_t *source; /* Which source it is, */
    const float *xy;       /* and where. */
    const float *origin;   /* The least coordinates, where row and column 0 begin. */
    float size;            /* Of a cell. */
    int64_t num_rows;      /* Of a group. */
    int64_t num_columns;
    int64_t reach; /* How many cells a radius reaches in each direction. */
};

/* The first source whose cell is not before one. Written so that no branch is to be guessed. */
INLINE int64_t first_from(const struct grid *grid, int64_t key) {
    const int64_t *low = grid->key;
    for (int64_t count = grid->count; count; count -= (count + 1) / 2)
        low += low[count / 2] < key ? (count + 1) / 2 : 0;
    return low - grid->key;
}

/* The cells in reach of a place, from the first to the last; the first is greater if none is. */
struct range {
    int64_t first, last;
};

INLINE struct range in_reach(const struct grid *grid, int axis, const float *xy, int64_t count) {
    float cell = floorf((xy[axis] - grid->origin[axis]) / grid->size);
    /* Written so that NaN is in no reach. */
    if (!(cell >= -grid->reach && cell < count + grid->reach)) return (struct range){1, 0};
    int64_t first = (int64_t)cell - grid->reach, last = (int64_t)cell + grid->reach;
    return (struct range){first < 0 ? 0 : first, last < count ? last : count - 1};
}

INLINE int is_near(const float *xy, const float *other, float limit) {
    float x = other[0] - xy[0], y = other[1] - xy[1];
    return x * x + y * y < limit;
}

/* Counts the sources within a radius of each destination, but not itself if the destinations are
   the sources. Where `to` is not null, lists them: destination and source, those of destination i
   from `starts[i]` on. */
int search(const struct grid *grid, const float *xy, const int64_t *group, int are_sources,
           float radius, int64_t *degree, const int64_t *starts, int64_t *of, int64_t *to,
           int64_t begin, int64_t end) {
    float limit = radius * radius;
    for (int64_t i = begin; i < end; i++) {
        const float *here = xy + 2 * i;
        struct range rows = in_reach(grid, 1, here, grid->num_rows);
        struct range columns = in_reach(grid, 0, here, grid->num_columns);
        /* Itself is as near as can be. */
        int64_t found = to || !are_sources || !is_near(here, here, limit) ? 0 : -1;
        for (int64_t row = rows.first; row <= rows.last && columns.first <= columns.last; row++) {
            /* Cells of a row follow each other. */
            int64_t line = (group[i] * grid->num_rows + row) * grid->num_columns;
            int64_t first = first_from(grid, line + columns.first);
            int64_t last = first;
            while (last < grid->count && grid->key[last] <= line + columns.last) last++;
            for (int64_t j = first; j < last && !to; j++)
                found += is_near(here, grid->xy + 2 * j, limit);
            for (int64_t j = first; j < last && to; j++) {
                if (!is_near(here, grid->xy + 2 * j, limit)) continue;
                if (are_sources && grid->source[j] == i) continue;
                of[starts[i] + found] = i;
                to[starts[i] + found] = grid->source[j];
                found++;
            }
        }
        degree[i] = found;
    }
    return 0;
}
