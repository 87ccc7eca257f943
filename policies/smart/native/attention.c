/* Attention over lists of neighbours: what `attention.py` describes, for float32 on a processor.

   A row is a destination with neighbours of its own number, whose encodings lie one behind the
   other. For each neighbour and head there are two long products with the encoding, one for the
   score and one for the weighted sum. Both are done where the encodings are, in tiles that stay in
   registers; between them the scores of a row stay in the first-level cache. Nothing is gathered,
   copied or padded.

   No sum depends on how rows are divided among threads. */

#include "attention.h"

/* Neighbours ahead of the one that is worked on, whose features are fetched from memory. */
#define AHEAD 8
/* Edges ahead, whose encodings are fetched: these are read one after the other. */
#define FAR 16

/* Smaller heads than WIDTH share a part of WIDTH features; larger ones have several parts. */
INLINE int64_t parts(struct sizes size) { return size.head_dim < WIDTH ? 1 : size.head_dim / WIDTH; }
INLINE int64_t part_of(struct sizes size, int head, int64_t part) {
    return head * size.head_dim / WIDTH * WIDTH + part * WIDTH;
}

/* Gives each head of a row parts of its own, with zeros where these are another head's. */
INLINE void spread(int heads, struct sizes size, const float *row, float *to) {
    int64_t width = parts(size) * WIDTH;
    memset(to, 0, sizeof(float) * heads * width);
    for (int head = 0; head < heads; head++) {
        int64_t place = head * size.head_dim;
        for (int64_t i = 0; i < size.head_dim; i++)
            to[head * width + place - part_of(size, head, 0) + i] = row[place + i];
    }
}

/* The scales of as many edges as fit, once for each head; 0 behind the last edge. */
INLINE vec scales_from(int heads, const float *scale, int64_t first, int64_t count) {
    vec scales = all(scale[first]);
    UNROLL for (int e = 1; e < WIDTH / heads; e++) {
        float next = first + e < count ? scale[first + e] : 0;
        scales = choose((ivec){LANES} / heads == e, all(next), scales);
    }
    return scales;
}

/* A number of each head, as often as it fits. */
INLINE vec repeat(int heads, const float *number) {
    float numbers[WIDTH];
    UNROLL for (int i = 0; i < WIDTH; i++) numbers[i] = number[i % heads];
    return load(numbers);
}

/* Multiplies a row, head by head, with the features of its sources, and another with the encodings,
   and adds the two, and `bias` times the scale of each edge if there are scales. `to` has the heads
   of an edge side by side, and room for WIDTH numbers more. */
INLINE void multiply(int heads, struct sizes size, int64_t count, const int32_t *source,
                     const float *table, const float *encoding, const float *row,
                     const float *relation_row, const float *scale, vec bias, float *to) {
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
            for (int64_t i = 0; i < size.hidden; i += LINE)
                __builtin_prefetch(relation_of[e] + FAR * size.hidden + i);
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
        vec total = sums_within(sum);
        if (scale) total += scales_from(heads, scale, first, count) * bias;
        store(to + first * heads, total);
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
            if (entry) __builtin_prefetch(weight + entry[ahead] * heads);
            for (int64_t j = 0; j < heads * size.head_dim; j += LINE)
                __builtin_prefetch(table + row[ahead] * size.stride + j);
            UNROLL for (int h = 0; h < heads; h++)
                sum[h] += factor[h] * load(from + part_of(size, h, part));
        }
        UNROLL for (int h = 0; h < heads; h++) {
            float numbers[WIDTH];
            store(numbers, sum[h]);
            int64_t place = h * size.head_dim + part * WIDTH;
            for (int64_t i = 0; i < width; i++) to[place + i] = numbers[(place + i) % WIDTH];
        }
    }
}

/* Sums the numbers of each head, for all places of the head. */
INLINE vec sum_heads(int heads, vec value) {
    for (int shift = WIDTH / 2; shift >= heads; shift /= 2) value += rotate(value, shift);
    return value;
}

/* Sums, for each head, scales times numbers of the edges. The numbers end as `multiply` ends. */
INLINE void sum_scales(int heads, int64_t count, const float *scale, const float *number,
                       float *to) {
    vec sum = {0};
    for (int64_t edge = 0; edge < count; edge += WIDTH / heads)
        sum += scales_from(heads, scale, edge, count) * load(number + edge * heads);
    float sums[WIDTH];
    store(sums, sum_heads(heads, sum));
    memcpy(to, sums, sizeof(float) * heads);
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
    for (int shift = WIDTH / 2; shift >= heads; shift /= 2) {
        vec other = rotate(largest, shift);
        largest = choose(other > largest, other, largest);
    }
    for (int64_t i = 0; i < numbers; i += WIDTH) {
        vec weight = exponential(load(score + i) - largest);
        total += weight;
        store(score + i, weight);
    }
    total = 1.0f / sum_heads(heads, total);
    for (int64_t i = 0; i < numbers; i += WIDTH) store(score + i, load(score + i) * total);
}

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
        const float *scale = a.bias ? a.scale[row] : NULL;
        spread(heads, a.size, a.query + row * a.query_stride, query);
        multiply(heads, a.size, count, source, a.keys, a.encoding[row], query,
                 a.relation_query + row * a.relation_stride, scale,
                 scale ? repeat(heads, a.bias + row * heads) : all(0), weight);
        softmax(heads, count, weight);
        if (a.weights) memcpy(a.weights + first * heads, weight, sizeof(float) * count * heads);
        if (a.total) {
            keep_some(heads, a.drop, first, count, room.kept);
            float *total = a.total + row * heads;
            for (int h = 0; h < heads; h++) total[h] = 0;
            for (int64_t i = 0; i < count * heads; i++)
                total[i % heads] += weight[i] *= room.kept[i];
        }
        if (scale) sum_scales(heads, count, scale, weight, a.scale_sum + row * heads);
        sum_encodings(heads, a.size, count, a.encoding[row], weight,
                      a.relation_sum + row * a.relation_stride);
        sum_rows(heads, a.size, count, source, a.values, NULL, weight, a.value_sum + row * features);
    }
    free(room.spread);
    return 0;
}

/* Rows that are multiplied with a matrix together, so that it is seldom read. */
#define BLOCK 4

/* Multiplies each head of some queries with `columns` times WIDTH columns of its matrix. */
INLINE void project_columns(int heads, int columns, struct sizes size, const float *const *query,
                            const float *matrix, float *to) {
    for (int h = 0; h < heads; h++) {
        vec sum[BLOCK * WIDTH];
        UNROLL for (int i = 0; i < BLOCK * columns; i++) sum[i] = (vec){0};
        for (int64_t j = h * size.head_dim; j < (h + 1) * size.head_dim; j++) {
            UNROLL for (int c = 0; c < columns; c++) {
                vec column = load(matrix + j * size.hidden + c * WIDTH);
                UNROLL for (int r = 0; r < BLOCK; r++)
                    sum[r * columns + c] += query[r][j] * column;
            }
        }
        UNROLL for (int i = 0; i < BLOCK * columns; i++)
            store(to + (i / columns * heads + h) * size.hidden + i % columns * WIDTH, sum[i]);
    }
}

INLINE void project(int heads, struct sizes size, const float *const *query, const float *matrix,
                    float *to) {
    const int columns = WIDTH / BLOCK;
    int64_t i = 0;
    for (; i + columns * WIDTH <= size.hidden; i += columns * WIDTH)
        project_columns(heads, columns, size, query, matrix + i, to + i);
    for (; i < size.hidden; i += WIDTH)
        project_columns(heads, 1, size, query, matrix + i, to + i);
}

/* Adds each head of some relations, multiplied with the transpose of its matrix, to some rows. */
INLINE void add_projected(int heads, struct sizes size, int64_t rows, const float *relation,
                          const float *matrix, float *const *to) {
    const int features = WIDTH / BLOCK;
    int64_t of_row = heads * size.hidden;
    for (int64_t first = 0; first < heads * size.head_dim; first += features) {
        const float *of_head[WIDTH];
        vec sum[WIDTH];
        UNROLL for (int j = 0; j < features; j++)
            of_head[j] = relation + (first + j) / size.head_dim * size.hidden;
        UNROLL for (int i = 0; i < WIDTH; i++) sum[i] = (vec){0};
        for (int64_t i = 0; i < size.hidden; i += WIDTH) {
            UNROLL for (int j = 0; j < features; j++) {
                vec column = load(matrix + (first + j) * size.hidden + i);
                UNROLL for (int r = 0; r < BLOCK; r++)
                    sum[r * features + j] += column * load(of_head[j] + r * of_row + i);
            }
        }
        float numbers[WIDTH];
        store(numbers, sums_within(sum));
        for (int64_t r = 0; r < rows; r++) {
            UNROLL for (int j = 0; j < features; j++)
                to[r][first + j] += numbers[r * features + j];
        }
    }
}

/* Multiplies each head of a row, which is spread, with that of another. */
INLINE vec multiply_heads(int heads, struct sizes size, const float *row, const float *other) {
    int64_t width = parts(size) * WIDTH;
    vec sum[WIDTH];
    UNROLL for (int h = 0; h < heads; h++) {
        sum[h] = (vec){0};
        for (int64_t part = 0; part < parts(size); part++)
            sum[h] += load(row + h * width + part * WIDTH) * load(other + part_of(size, h, part));
    }
    UNROLL for (int i = heads; i < WIDTH; i++) sum[i] = sum[i - heads];
    return sums_within(sum);
}

/* Adds to a row what is the same for all, and what is the same but for each edge's scale. */
INLINE void add_biases(int heads, struct attention a, int64_t count, const float *scale,
                       const float *weight, float *to) {
    float scaled[WIDTH] = {0};
    if (scale) sum_scales(heads, count, scale, weight, scaled);
    for (int h = 0; h < heads; h++) {
        for (int64_t i = h * a.size.head_dim; i < (h + 1) * a.size.head_dim; i++) {
            to[i] += a.relation_bias[i];
            if (scale) to[i] += scaled[h] * a.value_bias[i];
        }
    }
}

/* Attends to the edges of a row. `relation` is what encodings are multiplied with, for each head;
   there their sums go. */
INLINE void gather_row(int heads, struct attention a, int64_t row, struct room room,
                       const float *query, float *relation, float *to) {
    int64_t first = a.starts[row], count = a.starts[row + 1] - first;
    const int32_t *source = a.source + first;
    const float *scale = a.scale ? a.scale[row] : NULL;
    float *weight = room.number;
    spread(heads, a.size, query, room.spread);
    vec bias = scale ? multiply_heads(heads, a.size, room.spread, a.key_bias) : all(0);
    multiply(heads, a.size, count, source, a.keys, a.encoding[row], room.spread, relation, scale,
             bias, weight);
    softmax(heads, count, weight);
    sum_encodings(heads, a.size, count, a.encoding[row], weight, relation);
    sum_rows(heads, a.size, count, source, a.values, NULL, weight, to);
    add_biases(heads, a, count, scale, weight, to);
}

/* Attends without a gradient: from queries to sums, with what is between in the cache. */
INLINE int gather_heads(int heads, struct attention a, int64_t begin, int64_t end) {
    int64_t features = heads * a.size.head_dim, hidden = heads * a.size.hidden;
    struct room room = make_room(a, begin, end);
    float *relation = malloc(sizeof(float) * BLOCK * hidden);
    if (!room.spread || !relation) {
        free(room.spread);
        free(relation);
        return 1;
    }
    a.size.head_stride = a.size.hidden;
    for (int64_t first = begin; first < end; first += BLOCK) {
        int64_t rows = end - first < BLOCK ? end - first : BLOCK;
        const float *query[BLOCK];
        float *to[BLOCK];
        for (int64_t r = 0; r < BLOCK; r++) {
            /* Behind the last row comes the last again. */
            int64_t destination = a.destination[first + (r < rows ? r : rows - 1)];
            query[r] = a.query + destination * a.query_stride;
            to[r] = a.gathered + destination * features;
        }
        project(heads, a.size, query, a.relation_key, relation);
        for (int64_t r = 0; r < rows; r++)
            gather_row(heads, a, first + r, room, query[r], relation + r * hidden, to[r]);
        add_projected(heads, a.size, rows, relation, a.relation_value, to);
    }
    free(room.spread);
    free(relation);
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
        const float *scale = a.bias ? a.scale[row] : NULL;
        spread(heads, a.size, a.by_value_sum + row * features, by_sum);
        multiply(heads, a.size, count, source, a.values, a.encoding[row], by_sum,
                 a.by_relation_sum + row * a.relation_stride, scale,
                 scale ? repeat(heads, a.by_scale_sum + row * heads) : all(0), by);
        if (a.by_total) {
            keep_some(heads, a.drop, first, count, kept);
            for (int64_t i = 0; i < count * heads; i++) {
                by[i] = (by[i] + a.by_total[row * heads + i % heads]) * kept[i];
                a.dropped[first * heads + i] = weight[i] * kept[i];
            }
        }
        softmax_back(heads, count, weight, by);
        if (scale) sum_scales(heads, count, scale, by, a.by_bias + row * heads);
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
