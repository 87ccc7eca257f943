/* What attention is told. */

#ifndef ATTENTION_H
#define ATTENTION_H

#include "vectors.h"

/* Sizes of a layer, the same for all rows. */
struct sizes {
    int64_t hidden;   /* Features of an encoding: a multiple of WIDTH. */
    int64_t head_dim; /* Features of a head: a multiple or a divisor of WIDTH. */
    int64_t stride;   /* From the features of a source to those of the next. */
    int64_t head_stride; /* From what relates to a head to what relates to the next. */
};

/* One layer's attention. Python fills it in; see `attention.py`. */
struct attention {
    int64_t heads;
    struct sizes size;
    struct dropout drop;
    const int64_t *starts;            /* The first edge of each row, and where the last row ends. */
    const int32_t *source;            /* Of each edge. */
    const float *const *encoding;     /* Of the first edge of each row. */
    const float *const *scale;        /* The same, or null; see `gather` and `attend`. */
    const float *keys, *values;       /* Of source 0. */
    const float *query;
    int64_t query_stride;             /* From row to row. */
    const float *relation_query;
    int64_t relation_stride;          /* From row to row. */
    /* `gather` only. */
    const int64_t *destination;       /* Of each row: which query is its, and where its sum goes. */
    const float *relation_key, *relation_value; /* Of each head: `head_dim` rows of `hidden`. */
    const float *relation_bias;
    const float *key_bias, *value_bias; /* What is multiplied by the scale of an edge. */
    float *gathered;
    /* `attend` and its gradient. */
    const float *bias;                /* Of each row and head: what scales are multiplied by. */
    float *scale_sum;                 /* Sums of scales, times weights after dropout. */
    float *weights;                   /* Of each edge and head, before dropout. */
    float *value_sum, *relation_sum;
    float *total;                     /* Sums of weights after dropout, if there is any. */
    /* What follows is for the gradient only. */
    const float *by_value_sum;
    const float *by_relation_sum;
    const float *by_total;
    const float *by_scale_sum;
    float *by_bias;
    float *by_score;                  /* Of each edge and head. */
    float *dropped;                   /* Weights after dropout; the weights if there is none. */
    float *by_query, *by_relation_query;
    float *const *by_encoding;        /* Of the first edge of each row, or null. */
    const int64_t *source_starts;     /* The first edge of each source, and where the last ends. */
    const int32_t *source_edge;       /* The edges of each source, */
    const int32_t *source_row;        /* and their rows. */
    float *by_keys_values;
};

/* Who attends to whom, and the encodings of that: the same for several layers. */
struct gathering {
    int64_t rows; /* Destinations with edges. See above for the rest. */
    const int64_t *starts;
    const int32_t *source;
    const float *const *encoding, *const *scale;
    const int64_t *destination;
};

/* Attends without a gradient: from queries to sums, with what is between in the cache. */
int gather(const struct attention *attention, int64_t begin, int64_t end);

#endif
