/* Attention over lists of neighbours: what `attention.py` describes, for float32 on a processor.

   A row is a destination with neighbours of its own number, whose encodings lie one behind the
   other. For each neighbour and head there are two long products with the encoding, one for the
   score and one for the weighted sum. Both are done where the encodings are, in tiles that stay in
   registers; between them the scores of a row stay in the first-level cache. Nothing is gathered,
   copied or padded.

   No sum depends on how rows are divided among threads. */

#include "vectors.h"

/* Neighbours ahead of the one that is worked on, whose features are fetched from memory. */
#define AHEAD 8

/* Sizes of a layer, the same for all rows. */
struct sizes {
    int64_t hidden;   /* Features of an encoding: a multiple of WIDTH. */
    int64_t head_dim; /* Features of a head: a multiple or a divisor of WIDTH. */
    int64_t stride;   /* From the features of a source to those of the next. */
    int64_t head_stride; /* From what relates to a head to what relates to the next. */
};

/* Smaller heads than WIDTH share a part of WIDTH features; larger ones have several parts. */
INLINE int64_t parts(struct sizes size) { return size.head_dim < WIDTH ? 1 : size.head_dim / WIDTH; }
INLINE int64_t part_of(struct sizes size, int head, int64_t part) {
    return head * size.head_dim / WIDTH * WIDTH + part * WIDTH;
}

/* Gives each head of a row parts of its own, with zeros where these are another head's. */
INLINE void spread(int heads, struct sizes size, const float *row, float *to) {
    int64_t width = parts(size) * WIDTH;
    for (int head = 0; head < heads; head++) {
        for (int64_t i = 0; i < width; i++) {
            int64_t place = part_of(size, head, 0) + i;
            to[head * width + i] = place / size.head_dim == head ? row[place] : 0.0f;
        }
    }
}

/* Multiplies a row, head by head, with the features of its sources, and another with the encodings,
   and adds the two. `to` has the heads of an edge side by side, and room for WIDTH numbers more. */
INLINE void multiply(int heads, struct sizes size, int64_t count, const int32_t *source,
                     const float *table, const float *encoding, const float *row,
                     const float *relation_row, float *to) {
    const int edges = WIDTH / heads;
    int64_t width = parts(size) * WIDTH;
    for (int64_t first = 0; first < count; first += edges) {
        const float *relation_of[WIDTH], *source_of[WIDTH];
        vec sum[WIDTH];
        UNROLL for (int e = 0; e < edges; e++) {
            /* Behind the last edge comes the last again. What it gives is not read. */
            int64_t edge = first + e < count ? first + e : count - 1;
            int64_t ahead = edge + AHEAD < count ? edge + AHEAD : count - 1;
            relation_of[e] = encoding + edge * size.hidden;
            source_of[e] = table + source[edge] * size.stride;
            for (int64_t i = 0; i < heads * size.head_dim; i += LINE)
                __builtin_prefetch(table + source[ahead] * size.stride + i);
        }
        UNROLL for (int i = 0; i < WIDTH; i++) sum[i] = (vec){0};
        for (int64_t part = 0; part < parts(size); part++) {
            UNROLL for (int h = 0; h < heads; h++) {
                vec factor = load(row + h * width + part * WIDTH);
                UNROLL for (int e = 0; e < edges; e++)
                    sum[e * heads + h] += factor * load(source_of[e] + part_of(size, h, part));
            }
        }
        for (int64_t i = 0; i < size.hidden; i += WIDTH) {
            vec relation[WIDTH];
            UNROLL for (int e = 0; e < edges; e++) {
                relation[e] = load(relation_of[e] + i);
                KEEP(relation[e]);
            }
            UNROLL for (int h = 0; h < heads; h++) {
                vec factor = load(relation_row + h * size.head_stride + i);
                if (edges > 1) KEEP(factor);
                UNROLL for (int e = 0; e < edges; e++) sum[e * heads + h] += factor * relation[e];
            }
        }
        store(to + first * heads, sums_within(sum));
    }
}

/* Sums, for each head, `columns` times WIDTH features of the encodings, times weights. */
INLINE void sum_columns(int heads, int columns, struct sizes size, int64_t count,
                        const float *encoding, const float *weight, float *to) {
    vec sum[WIDTH];
    UNROLL for (int i = 0; i < heads * columns; i++) sum[i] = (vec){0};
    for (int64_t edge = 0; edge < count; edge++) {
        UNROLL for (int h = 0; h < heads; h++) {
            vec factor = all(weight[edge * heads + h]);
            UNROLL for (int c = 0; c < columns; c++)
                sum[h * columns + c] += factor * load(encoding + edge * size.hidden + c * WIDTH);
        }
    }
    UNROLL for (int h = 0; h < heads; h++) {
        UNROLL for (int c = 0; c < columns; c++)
            store(to + h * size.head_stride + c * WIDTH, sum[h * columns + c]);
    }
}

INLINE void sum_encodings(int heads, struct sizes size, int64_t count, const float *encoding,
                          const float *weight, float *to) {
    const int columns = WIDTH / heads;
    int64_t i = 0;
    for (; i + columns * WIDTH <= size.hidden; i += columns * WIDTH)
        sum_columns(heads, columns, size, count, encoding + i, weight, to + i);
    for (; i < size.hidden; i += WIDTH)
        sum_columns(heads, 1, size, count, encoding + i, weight, to + i);
}

/* Sums, head by head, rows of a table, times weights. Without `entry`, weights are in order. */
INLINE void sum_rows(int heads, struct sizes size, int64_t count, const int32_t *row,
                     const float *table, const int32_t *entry, const float *weight, float *to) {
    int64_t width = size.head_dim < WIDTH ? size.head_dim : WIDTH;
    for (int64_t part = 0; part < parts(size); part++) {
        vec sum[WIDTH];
        UNROLL for (int h = 0; h < heads; h++) sum[h] = (vec){0};
        for (int64_t i = 0; i < count; i++) {
            const float *from = table + row[i] * size.stride;
            const float *factor = weight + (entry ? entry[i] : i) * heads;
            int64_t ahead = i + AHEAD < count ? i + AHEAD : count - 1;
            for (int64_t j = 0; j < heads * size.head_dim; j += LINE)
                __builtin_prefetch(table + row[ahead] * size.stride + j);
            UNROLL for (int h = 0; h < heads; h++)
                sum[h] += factor[h] * load(from + part_of(size, h, part));
        }
        for (int h = 0; h < heads; h++) {
            int64_t place = h * size.head_dim + part * WIDTH;
            for (int64_t i = 0; i < width; i++) to[place + i] = sum[h][(place + i) % WIDTH];
        }
    }
}

/* e to the power of numbers that are not positive, to 2 units in the last place; NaN stays NaN. */
INLINE vec exponential(vec x) {
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to a whole number. */
    x = choose(x < -87.0f, all(-87.0f), x);
    vec shifted = x * 1.44269504f + magic;
    vec whole = shifted - magic;
    x = x - whole * 0.693359375f;
    x = x - whole * -2.12194440e-4f;
    vec power = all(1.9875691500e-4f); /* The coefficients of Cephes' expf. */
    power = power * x + 1.3981999507e-3f;
    power = power * x + 8.3334519073e-3f;
    power = power * x + 4.1665795894e-2f;
    power = power * x + 1.6666665459e-1f;
    power = power * x + 5.0000001201e-1f;
    power = power * x * x + x + 1.0f;
    return (vec)((ivec)power + ((ivec)shifted << 23));
}

/* Turns the scores of a row's edges into weights, head by head. Head h has every number whose
   place leaves h when divided by the number of heads, in memory as in vectors. */
INLINE void softmax(int heads, int64_t count, float *score) {
    int64_t numbers = count * heads;
    vec largest = all(-INFINITY), total = (vec){0};
    store(score + numbers, largest);
    for (int64_t i = 0; i < numbers; i += WIDTH) {
        vec some = load(score + i);
        largest = choose(some > largest, some, largest);
    }
    for (int i = heads; i < WIDTH; i++)
        largest[i % heads] = largest[i] > largest[i % heads] ? largest[i] : largest[i % heads];
    for (int i = heads; i < WIDTH; i++) largest[i] = largest[i % heads];
    for (int64_t i = 0; i < numbers; i += WIDTH) {
        vec weight = exponential(load(score + i) - largest);
        total += weight;
        store(score + i, weight);
    }
    for (int i = heads; i < WIDTH; i++) total[i % heads] += total[i];
    for (int i = heads; i < WIDTH; i++) total[i] = total[i % heads];
    total = 1.0f / total;
    for (int64_t i = 0; i < numbers; i += WIDTH) store(score + i, load(score + i) * total);
}

/* Which weights are dropped: a number for each, drawn by its place, so that the gradient can draw
   it again. The mixing is Wellons' lowbias32, once for each half of the seed. */
struct dropout {
    uint32_t seed, other_seed;
    uint32_t limit; /* Smaller numbers are dropped. */
    float growth;   /* What the others are multiplied by. */
};

INLINE uvec mix(uvec x) {
    x = (x ^ (x >> 16)) * 0x7feb352du;
    x = (x ^ (x >> 15)) * 0x846ca68bu;
    return x ^ (x >> 16);
}

INLINE vec keep(struct dropout drop, int64_t place) {
    uvec x = mix(((uvec){LANES} + (uint32_t)place) ^ drop.seed);
    x = mix(x + drop.other_seed + (uint32_t)(place >> 32));
    return choose((ivec)(x < drop.limit), (vec){0}, all(drop.growth));
}

/* One layer's attention. Python fills it in; see `attention.py`. */
struct attention {
    int64_t heads;
    struct sizes size;
    struct dropout drop;
    const int64_t *starts;            /* The first edge of each row, and where the last row ends. */
    const int32_t *source;            /* Of each edge. */
    const float *const *encoding;     /* Of the first edge of each row. */
    const float *keys, *values;       /* Of source 0. */
    const float *query;
    int64_t query_stride;             /* From row to row. */
    const float *relation_query;
    int64_t relation_stride;          /* From row to row. */
    /* `gather` only. */
    const int64_t *destination;       /* Of each row: which query is its, and where its sum goes. */
    const float *relation_key, *relation_value; /* Of each head: `head_dim` rows of `hidden`. */
    const float *relation_bias;
    const float *const *scale;        /* What of the first edge of each row, or null, */
    const float *key_bias, *value_bias; /* these are multiplied by. */
    float *gathered;
    /* `attend` and its gradient. */
    float *weights;                   /* Of each edge and head, before dropout. */
    float *value_sum, *relation_sum;
    float *total;                     /* Sums of weights after dropout, if there is any. */
    /* What follows is for the gradient only. */
    const float *by_value_sum;
    const float *by_relation_sum;
    const float *by_total;
    float *by_score;                  /* Of each edge and head. */
    float *dropped;                   /* Weights after dropout; the weights if there is none. */
    float *by_query, *by_relation_query;
    float *const *by_encoding;        /* Of the first edge of each row, or null. */
    const int64_t *source_starts;     /* The first edge of each source, and where the last ends. */
    const int32_t *source_edge;       /* The edges of each source, */
    const int32_t *source_row;        /* and their rows. */
    float *by_keys_values;
};

/* Where a thread works on a row. */
struct room {
    float *spread; /* A row with parts of its own for each head. */
    float *number; /* A number for each edge and head of the longest row, and WIDTH more. */
    float *kept;   /* Another. */
};

/* Makes room for some rows. `spread` is null if there is none; it is what is to be freed. */
INLINE struct room make_room(struct attention a, int64_t begin, int64_t end) {
    int64_t longest = 0, spread_size = a.heads * parts(a.size) * WIDTH;
    for (int64_t row = begin; row < end; row++) {
        int64_t count = a.starts[row + 1] - a.starts[row];
        if (count > longest) longest = count;
    }
    int64_t numbers = longest * a.heads + WIDTH;
    float *all = malloc(sizeof(float) * (spread_size + 2 * numbers));
    return (struct room){all, all + spread_size, all + spread_size + numbers};
}

INLINE void keep_some(int heads, struct dropout drop, int64_t first, int64_t count, float *kept) {
    for (int64_t i = 0; i < count * heads; i += WIDTH) store(kept + i, keep(drop, first * heads + i));
}

INLINE int attend_heads(int heads, struct attention a, int64_t begin, int64_t end) {
    int64_t features = heads * a.size.head_dim;
    struct room room = make_room(a, begin, end);
    if (!room.spread) return 1;
    float *query = room.spread, *weight = room.number;
    for (int64_t row = begin; row < end; row++) {
        int64_t first = a.starts[row], count = a.starts[row + 1] - first;
        const int32_t *source = a.source + first;
        spread(heads, a.size, a.query + row * a.query_stride, query);
        multiply(heads, a.size, count, source, a.keys, a.encoding[row], query,
                 a.relation_query + row * a.relation_stride, weight);
        softmax(heads, count, weight);
        if (a.weights) memcpy(a.weights + first * heads, weight, sizeof(float) * count * heads);
        if (a.total) {
            keep_some(heads, a.drop, first, count, room.kept);
            float *total = a.total + row * heads;
            for (int h = 0; h < heads; h++) total[h] = 0;
            for (int64_t i = 0; i < count * heads; i++)
                total[i % heads] += weight[i] *= room.kept[i];
        }
        sum_encodings(heads, a.size, count, a.encoding[row], weight,
                      a.relation_sum + row * a.relation_stride);
        sum_rows(heads, a.size, count, source, a.values, NULL, weight, a.value_sum + row * features);
    }
    free(room.spread);
    return 0;
}

/* Multiplies each head of a query with its matrix. */
INLINE void project(int heads, struct sizes size, const float *query, const float *matrix,
                    float *to) {
    for (int h = 0; h < heads; h++) {
        const float *row = query + h * size.head_dim;
        const float *of_head = matrix + h * size.head_dim * size.hidden;
        for (int64_t i = 0; i < size.hidden; i += WIDTH) {
            vec sum = {0};
            for (int64_t j = 0; j < size.head_dim; j++)
                sum += row[j] * load(of_head + j * size.hidden + i);
            store(to + h * size.hidden + i, sum);
        }
    }
}

/* Adds each head of some relations, multiplied with the transpose of its matrix. */
INLINE void add_projected(int heads, struct sizes size, const float *relation, const float *matrix,
                          float *to) {
    for (int64_t first = 0; first < heads * size.head_dim; first += WIDTH) {
        vec sum[WIDTH];
        UNROLL for (int j = 0; j < WIDTH; j++) sum[j] = (vec){0};
        for (int64_t i = 0; i < size.hidden; i += WIDTH) {
            UNROLL for (int j = 0; j < WIDTH; j++)
                sum[j] += load(relation + (first + j) / size.head_dim * size.hidden + i) *
                          load(matrix + (first + j) * size.hidden + i);
        }
        store(to + first, load(to + first) + sums_within(sum));
    }
}

/* What a constant in the encodings, times a scale for each edge, adds to the scores. */
INLINE void add_bias(int heads, struct sizes size, int64_t count, const float *scale,
                     const float *query, const float *bias, float *score) {
    float product[WIDTH] = {0};
    for (int64_t i = 0; i < heads * size.head_dim; i++)
        product[i / size.head_dim] += query[i] * bias[i];
    for (int64_t edge = 0; edge < count; edge++)
        for (int h = 0; h < heads; h++) score[edge * heads + h] += scale[edge] * product[h];
}

/* What it adds to the sums. */
INLINE void sum_bias(int heads, struct sizes size, int64_t count, const float *scale,
                     const float *weight, const float *bias, float *to) {
    float sum[WIDTH] = {0};
    for (int64_t edge = 0; edge < count; edge++)
        for (int h = 0; h < heads; h++) sum[h] += scale[edge] * weight[edge * heads + h];
    for (int64_t i = 0; i < heads * size.head_dim; i++) to[i] += sum[i / size.head_dim] * bias[i];
}

/* Attends without a gradient: from queries to sums, with what is between in the cache. */
INLINE int gather_heads(int heads, struct attention a, int64_t begin, int64_t end) {
    int64_t features = heads * a.size.head_dim, hidden = heads * a.size.hidden;
    struct room room = make_room(a, begin, end);
    float *relation_query = malloc(sizeof(float) * 2 * hidden);
    if (!room.spread || !relation_query) {
        free(room.spread);
        free(relation_query);
        return 1;
    }
    float *query = room.spread, *weight = room.number, *relation_sum = relation_query + hidden;
    a.size.head_stride = a.size.hidden;
    for (int64_t row = begin; row < end; row++) {
        int64_t first = a.starts[row], count = a.starts[row + 1] - first;
        const int32_t *source = a.source + first;
        const float *from = a.query + a.destination[row] * a.query_stride;
        float *to = a.gathered + a.destination[row] * features;
        spread(heads, a.size, from, query);
        project(heads, a.size, from, a.relation_key, relation_query);
        multiply(heads, a.size, count, source, a.keys, a.encoding[row], query, relation_query,
                 weight);
        if (a.scale) add_bias(heads, a.size, count, a.scale[row], from, a.key_bias, weight);
        softmax(heads, count, weight);
        sum_encodings(heads, a.size, count, a.encoding[row], weight, relation_sum);
        sum_rows(heads, a.size, count, source, a.values, NULL, weight, to);
        add_projected(heads, a.size, relation_sum, a.relation_value, to);
        for (int64_t i = 0; i < features; i++) to[i] += a.relation_bias[i];
        if (a.scale) sum_bias(heads, a.size, count, a.scale[row], weight, a.value_bias, to);
    }
    free(room.spread);
    free(relation_query);
    return 0;
}

/* The derivative of softmax: from that by its results to that by what they are made of. */
INLINE void softmax_back(int heads, int64_t count, const float *weight, float *by) {
    float total[WIDTH] = {0};
    for (int64_t i = 0; i < count * heads; i++) total[i % heads] += by[i] *= weight[i];
    for (int64_t i = 0; i < count * heads; i++) by[i] -= weight[i] * total[i % heads];
}

/* The derivative by each encoding of a row. */
INLINE void encodings_back(int heads, struct attention a, int64_t row, int64_t count) {
    const float *by_score = a.by_score + a.starts[row] * heads;
    const float *weight = a.dropped + a.starts[row] * heads;
    const float *query = a.relation_query + row * a.relation_stride;
    const float *by_sum = a.by_relation_sum + row * a.relation_stride;
    for (int64_t edge = 0; edge < count; edge++) {
        for (int64_t i = 0; i < a.size.hidden; i += WIDTH) {
            vec sum = {0};
            UNROLL for (int h = 0; h < heads; h++) {
                sum += by_score[edge * heads + h] * load(query + h * a.size.head_stride + i);
                sum += weight[edge * heads + h] * load(by_sum + h * a.size.head_stride + i);
            }
            store(a.by_encoding[row] + edge * a.size.hidden + i, sum);
        }
    }
}

INLINE int attend_back_heads(int heads, struct attention a, int64_t begin, int64_t end) {
    int64_t features = heads * a.size.head_dim;
    struct room room = make_room(a, begin, end);
    if (!room.spread) return 1;
    float *by_sum = room.spread, *by = room.number, *kept = room.kept;
    for (int64_t row = begin; row < end; row++) {
        int64_t first = a.starts[row], count = a.starts[row + 1] - first;
        const int32_t *source = a.source + first;
        const float *weight = a.weights + first * heads;
        spread(heads, a.size, a.by_value_sum + row * features, by_sum);
        multiply(heads, a.size, count, source, a.values, a.encoding[row], by_sum,
                 a.by_relation_sum + row * a.relation_stride, by);
        if (a.by_total) {
            keep_some(heads, a.drop, first, count, kept);
            for (int64_t i = 0; i < count * heads; i++) {
                by[i] = (by[i] + a.by_total[row * heads + i % heads]) * kept[i];
                a.dropped[first * heads + i] = weight[i] * kept[i];
            }
        }
        softmax_back(heads, count, weight, by);
        memcpy(a.by_score + first * heads, by, sizeof(float) * count * heads);
        sum_encodings(heads, a.size, count, a.encoding[row], by,
                      a.by_relation_query + row * a.relation_stride);
        sum_rows(heads, a.size, count, source, a.keys, NULL, by, a.by_query + row * features);
        if (a.by_encoding) encodings_back(heads, a, row, count);
    }
    free(room.spread);
    return 0;
}

/* Each source sums over its edges, so that no two threads write to the same place. */
INLINE int attend_back_to_sources_heads(int heads, struct attention a, int64_t begin, int64_t end) {
    int64_t features = heads * a.size.head_dim;
    struct sizes by_query = a.size, by_value = a.size;
    by_query.stride = a.query_stride;
    by_value.stride = features;
    for (int64_t source = begin; source < end; source++) {
        int64_t first = a.source_starts[source], count = a.source_starts[source + 1] - first;
        const int32_t *row = a.source_row + first, *edge = a.source_edge + first;
        float *to = a.by_keys_values + source * 2 * features;
        sum_rows(heads, by_query, count, row, a.query, edge, a.by_score, to);
        sum_rows(heads, by_value, count, row, a.by_value_sum, edge, a.dropped, to + features);
    }
    return 0;
}

/* Each of these works on rows, or sources, from `begin` to `end`. Returns 1 if memory lacks. */
#define FOR_SOME_HEADS(name)                                                                       \
    int name(const struct attention *a, int64_t begin, int64_t end) {                              \
        return a->heads == 8 ? name##_heads(8, *a, begin, end) : name##_heads(4, *a, begin, end);  \
    }
FOR_SOME_HEADS(gather)
FOR_SOME_HEADS(attend)
FOR_SOME_HEADS(attend_back)
FOR_SOME_HEADS(attend_back_to_sources)

/* What `hidden`, the features of all heads, and either a head's or its inverse are multiples of. */
int64_t vector_width(void) { return WIDTH; }
