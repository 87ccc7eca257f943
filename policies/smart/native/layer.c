/* A layer of attention before and after it attends: what `layer.py` describes. */

#include "attention.h"
#include "linear.h"

/* Rows that go through all of it before the next do, so that they stay in the cache. */
#define ROWS 64
/* The same for the gradient, which has more to keep there. */
#define ROWS_BACK 32

/* A layer; see `layer.py`. */
struct layer {
    int64_t hidden, width; /* Features of a row, and of the queries of all heads. */
    struct norm before;
    struct linear project; /* To queries, skips, gates, and perhaps keys and values. */
    struct linear gate, out;
    struct norm behind_out, before_first;
    struct linear first, second;
    struct norm behind_second;
    struct dropout drop; /* Of what is between `first` and `second`. */
};

/* Where gradients by weights are added, and the weights transposed. */
struct linear_back {
    struct linear transposed;
    float *by_weight, *by_bias;
};

struct norm_back {
    float *by_gain, *by_shift;
};

/* A layer's gradient. Rows are cut into parts, each of which adds to gradients of its own. */
struct layer_back {
    int64_t rows, parts;
    int64_t part_stride; /* From the gradients of a part to those of the next. */
    struct norm_back before;
    struct linear_back project, gate, out;
    struct norm_back behind_out, before_first;
    struct linear_back first, second;
    struct norm_back behind_second;
};

INLINE vec sigmoid(vec x) {
    vec power = exponential(choose(x < 0.0f, x, -x));
    return choose(x < 0.0f, power, all(1.0f)) / (1.0f + power);
}

/* What rows become on their way through a layer, once they have attended. */
struct stages {
    float *all;     /* What is to be freed; null if there is no memory. */
    float *gate;    /* Between 0 and 1: how much of `skip` passes, */
    float *passed;  /* and what passes. */
    float *out;     /* What `out` makes of it. */
    float *added;   /* The row and that, normalised. */
    float *before;  /* That sum, normalised. */
    float *between; /* What `first` makes of it, clamped and some of it dropped. */
    float *second;  /* What `second` makes of it. */
};

INLINE struct stages make_stages(const struct layer *layer, int64_t rows) {
    int64_t of_width = rows * layer->width, of_hidden = rows * layer->hidden;
    int64_t size = 2 * of_width + 4 * of_hidden + rows * layer->first.out;
    float *all = malloc(sizeof(float) * size), *hidden = all + 2 * of_width;
    return (struct stages){
        .all = all,
        .gate = all,
        .passed = all + of_width,
        .out = hidden,
        .added = hidden + of_hidden,
        .before = hidden + 2 * of_hidden,
        .second = hidden + 3 * of_hidden,
        .between = hidden + 4 * of_hidden,
    };
}

/* Lets some of what `count` rows attended to pass, and adds it to them; feeds them forward, up to
   the last normalisation. `place` is the first row's among all. */
static void pass_and_feed(const struct layer *layer, int64_t place, int64_t count,
                          const float *from, const float *skip, const float *gathered,
                          struct stages to) {
    int64_t hidden = layer->hidden, width = layer->width, wide = layer->first.out;
    multiply(layer->gate, count, gathered, to.gate);
    for (int64_t i = 0; i < count; i++) {
        const float *skipped = skip + i * layer->project.out;
        for (int64_t j = 0; j < width; j += WIDTH) {
            vec gate = sigmoid(load(skipped + width + j) + load(to.gate + i * width + j));
            vec value = load(gathered + i * width + j);
            store(to.gate + i * width + j, gate);
            store(to.passed + i * width + j, value + gate * (load(skipped + j) - value));
        }
    }
    multiply(layer->out, count, to.passed, to.out);
    for (int64_t i = 0; i < count * hidden; i += hidden) {
        normalise(layer->behind_out, hidden, to.out + i, from + i, to.added + i);
        normalise(layer->before_first, hidden, to.added + i, NULL, to.before + i);
    }
    multiply(layer->first, count, to.before, to.between);
    for (int64_t i = 0; i < count * wide; i += WIDTH) {
        vec value = clamp(load(to.between + i));
        if (layer->drop.limit) value *= keep(layer->drop, place * wide + i);
        store(to.between + i, value);
    }
    multiply(layer->second, count, to.between, to.second);
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

/* Lets some of what rows attended to pass, and adds it to them; feeds them forward. Skips and gates
   are as far apart as what is projected. Results may replace the rows. */
int leave_layer(const struct layer *layer, const float *from, const float *skip,
                const float *gathered, float *to, int64_t begin, int64_t end) {
    int64_t hidden = layer->hidden;
    struct stages stages = make_stages(layer, ROWS);
    if (!stages.all) return 1;
    for (int64_t first = begin; first < end; first += ROWS) {
        int64_t count = end - first < ROWS ? end - first : ROWS;
        pass_and_feed(layer, first, count, from + first * hidden, skip + first * layer->project.out,
                      gathered + first * layer->width, stages);
        for (int64_t i = 0; i < count * hidden; i += hidden)
            normalise(layer->behind_second, hidden, stages.second + i, stages.added + i,
                      to + first * hidden + i);
    }
    free(stages.all);
    return 0;
}

/* A layer whose turn it is to update rows. */
struct turn {
    const struct layer *layer;
    const struct attention *attention; /* Its weights. */
    const struct gathering *gathering;
    const float *keys_values;          /* Of source 0; null if the rows are the sources. */
    int64_t stride;                    /* From source to source. */
    float *own;                        /* Where the rows' own keys and values go, or null; */
    int64_t own_stride;                /* how far apart. */
};

/* Attends, where there are edges. Sums go to `gathered`, zeros where there is no edge. */
static int gather_for(const struct turn *turn, int64_t rows, const float *projected,
                      float *gathered) {
    const struct gathering *gathering = turn->gathering;
    int64_t width = turn->layer->width, out = turn->layer->project.out;
    struct attention attention = *turn->attention;
    attention.starts = gathering->starts;
    attention.source = gathering->source;
    attention.encoding = gathering->encoding;
    attention.scale = gathering->scale;
    attention.destination = gathering->destination;
    attention.query = projected;
    attention.query_stride = out;
    attention.keys = turn->keys_values ? turn->keys_values : projected + 3 * width;
    attention.values = attention.keys + width;
    attention.size.stride = turn->keys_values ? turn->stride : out;
    attention.gathered = gathered;
    memset(gathered, 0, sizeof(float) * rows * width);
    return gather(&attention, 0, gathering->rows);
}

/* All of some layers, one after the other, without a gradient. */
int update_layers(const struct turn *turns, int64_t rows, const float *from, float *to,
                  int64_t begin, int64_t end) {
    int64_t most = 0;
    for (int64_t i = begin; i < end; i++) {
        int64_t numbers = turns[i].layer->project.out + turns[i].layer->width;
        if (numbers > most) most = numbers;
    }
    float *projected = malloc(sizeof(float) * (rows * most + 1));
    if (!projected) return 1;
    int failed = 0;
    for (const struct turn *turn = turns + begin; turn < turns + end && !failed; turn++) {
        int64_t width = turn->layer->width, out = turn->layer->project.out;
        float *gathered = projected + rows * out;
        failed = enter_layer(turn->layer, from, projected, 0, rows) ||
                 gather_for(turn, rows, projected, gathered) ||
                 leave_layer(turn->layer, from, projected + width, gathered, to, 0, rows);
        for (int64_t i = 0; turn->own && i < rows; i++)
            memcpy(turn->own + i * turn->own_stride, projected + i * out + 3 * width,
                   sizeof(float) * 2 * width);
        from = to;
    }
    free(projected);
    return failed;
}

/* The derivative of `normalise` by a row, which is added to another if there is one. */
INLINE void normalise_back(struct norm norm, struct norm_back back, int64_t hidden,
                           const float *from, const float *by, const float *plus, float *to) {
    vec sum = {0}, squares = {0}, scaled_sum = {0}, products = {0};
    for (int64_t i = 0; i < hidden; i += WIDTH) sum += load(from + i);
    float mean = sum_within(sum) / hidden;
    for (int64_t i = 0; i < hidden; i += WIDTH) {
        vec centred = load(from + i) - mean, scaled = load(by + i) * load(norm.gain + i);
        squares += centred * centred;
        scaled_sum += scaled;
        products += scaled * centred;
    }
    float factor = 1.0f / sqrtf(sum_within(squares) / hidden + 1e-5f);
    float mean_by = sum_within(scaled_sum) / hidden;
    float slope = sum_within(products) * factor * factor / hidden;
    for (int64_t i = 0; i < hidden; i += WIDTH) {
        vec centred = load(from + i) - mean, by_value = load(by + i);
        store(back.by_gain + i, load(back.by_gain + i) + by_value * centred * factor);
        store(back.by_shift + i, load(back.by_shift + i) + by_value);
        vec value = (by_value * load(norm.gain + i) - mean_by - centred * slope) * factor;
        store(to + i, plus ? load(plus + i) + value : value);
    }
}

/* Adds the products of outputs and inputs, over some rows, to the gradient of TILE outputs. */
INLINE void add_products(struct linear layer, int64_t output, int64_t count, const float *by,
                         const float *from, float *to) {
    for (int64_t j = 0; j < layer.in; j += 2 * WIDTH) {
        vec one[TILE], other[TILE];
        UNROLL for (int i = 0; i < TILE; i++) {
            one[i] = load(to + (output + i) * layer.in + j);
            other[i] = load(to + (output + i) * layer.in + j + WIDTH);
        }
        for (int64_t row = 0; row < count; row++) {
            vec left = load(from + row * layer.in + j);
            vec right = load(from + row * layer.in + j + WIDTH);
            KEEP(left);
            KEEP(right);
            UNROLL for (int i = 0; i < TILE; i++) {
                vec factor = all(by[row * layer.out + output + i]);
                one[i] += factor * left;
                other[i] += factor * right;
            }
        }
        UNROLL for (int i = 0; i < TILE; i++) {
            store(to + (output + i) * layer.in + j, one[i]);
            store(to + (output + i) * layer.in + j + WIDTH, other[i]);
        }
    }
}

/* The derivative of `multiply` by some rows. Adds to the gradients by the weights. */
static void multiply_back(struct linear layer, struct linear_back back, int64_t count,
                          const float *by, const float *from, float *to) {
    for (int64_t output = 0; output < layer.out; output += TILE)
        add_products(layer, output, count, by, from, back.by_weight);
    for (int64_t j = 0; j < layer.out; j += WIDTH) {
        vec sum = load(back.by_bias + j);
        for (int64_t row = 0; row < count; row++) sum += load(by + row * layer.out + j);
        store(back.by_bias + j, sum);
    }
    multiply(back.transposed, count, by, to);
}

static void move_linear(struct linear_back *back, int64_t places) {
    back->by_weight += places;
    back->by_bias += places;
}

static void move_norm(struct norm_back *back, int64_t places) {
    back->by_gain += places;
    back->by_shift += places;
}

/* The gradients that a part adds to. */
static struct layer_back of_part(struct layer_back back, int64_t part) {
    int64_t places = part * back.part_stride;
    move_norm(&back.before, places);
    move_linear(&back.project, places);
    move_linear(&back.gate, places);
    move_linear(&back.out, places);
    move_norm(&back.behind_out, places);
    move_norm(&back.before_first, places);
    move_linear(&back.first, places);
    move_linear(&back.second, places);
    move_norm(&back.behind_second, places);
    return back;
}

/* The derivative of `enter_layer` by rows, for some parts. */
int enter_layer_back(const struct layer *layer, const struct layer_back *whole, const float *from,
                     const float *by_projected, float *by_from, int64_t begin, int64_t end) {
    int64_t hidden = layer->hidden;
    float *room = malloc(sizeof(float) * 2 * ROWS_BACK * hidden), *by = room + ROWS_BACK * hidden;
    if (!room) return 1;
    for (int64_t part = begin; part < end; part++) {
        struct layer_back back = of_part(*whole, part);
        int64_t last = back.rows * (part + 1) / back.parts;
        for (int64_t first = back.rows * part / back.parts; first < last; first += ROWS_BACK) {
            int64_t count = last - first < ROWS_BACK ? last - first : ROWS_BACK;
            const float *row = from + first * hidden;
            for (int64_t i = 0; i < count * hidden; i += hidden)
                normalise(layer->before, hidden, row + i, NULL, room + i);
            multiply_back(layer->project, back.project, count,
                          by_projected + first * layer->project.out, room, by);
            for (int64_t i = 0; i < count * hidden; i += hidden)
                normalise_back(layer->before, back.before, hidden, row + i, by + i, NULL,
                               by_from + first * hidden + i);
        }
    }
    free(room);
    return 0;
}

/* The derivative of `leave_layer` by some rows, by their skips and gates, which lie side by side,
   and by what they attended to. `by` is that by the results; `stages` are those of the rows. */
static void leave_rows_back(const struct layer *layer, struct layer_back back, int64_t count,
                            const float *skip, const float *gathered, struct stages stages,
                            struct stages by, const float *by_to, float *by_from, float *by_skip,
                            float *by_gathered) {
    int64_t hidden = layer->hidden, width = layer->width;
    for (int64_t i = 0; i < count * hidden; i += hidden)
        normalise_back(layer->behind_second, back.behind_second, hidden, stages.second + i,
                       by_to + i, NULL, by.second + i);
    multiply_back(layer->second, back.second, count, by.second, stages.between, by.between);
    for (int64_t i = 0; i < count * layer->first.out; i += WIDTH) {
        /* What is zero was clamped or dropped. */
        vec value = load(by.between + i) * layer->drop.growth;
        store(by.between + i, choose(load(stages.between + i) > 0.0f, value, all(0.0f)));
    }
    multiply_back(layer->first, back.first, count, by.between, stages.before, by.before);
    for (int64_t i = 0; i < count * hidden; i += hidden) {
        normalise_back(layer->before_first, back.before_first, hidden, stages.added + i,
                       by.before + i, by_to + i, by_from + i);
        normalise_back(layer->behind_out, back.behind_out, hidden, stages.out + i, by_from + i,
                       NULL, by.out + i);
    }
    multiply_back(layer->out, back.out, count, by.out, stages.passed, by.passed);
    for (int64_t i = 0; i < count; i++) {
        const float *skipped = skip + i * layer->project.out;
        for (int64_t j = 0; j < width; j += WIDTH) {
            int64_t place = i * width + j;
            vec gate = load(stages.gate + place), by_passed = load(by.passed + place);
            vec by_gate = by_passed * (load(skipped + j) - load(gathered + place));
            by_gate = by_gate * gate * (1.0f - gate);
            store(by_skip + 2 * i * width + j, by_passed * gate);
            store(by_skip + (2 * i + 1) * width + j, by_gate);
            store(by.gate + place, by_gate);
            store(by.passed + place, by_passed * (1.0f - gate));
        }
    }
    multiply_back(layer->gate, back.gate, count, by.gate, gathered, by_gathered);
    for (int64_t i = 0; i < count * width; i += WIDTH)
        store(by_gathered + i, load(by_gathered + i) + load(by.passed + i));
}

/* The derivative of `leave_layer`, for some parts. What is between is worked out again. */
int leave_layer_back(const struct layer *layer, const struct layer_back *whole, const float *from,
                     const float *skip, const float *gathered, const float *by_to, float *by_from,
                     float *by_skip, float *by_gathered, int64_t begin, int64_t end) {
    int64_t hidden = layer->hidden, width = layer->width;
    struct stages stages = make_stages(layer, ROWS_BACK), by = make_stages(layer, ROWS_BACK);
    for (int64_t part = begin; part < end && stages.all && by.all; part++) {
        struct layer_back back = of_part(*whole, part);
        int64_t last = back.rows * (part + 1) / back.parts;
        for (int64_t first = back.rows * part / back.parts; first < last; first += ROWS_BACK) {
            int64_t count = last - first < ROWS_BACK ? last - first : ROWS_BACK;
            const float *skipped = skip + first * layer->project.out;
            const float *attended = gathered + first * width;
            pass_and_feed(layer, first, count, from + first * hidden, skipped, attended, stages);
            leave_rows_back(layer, back, count, skipped, attended, stages, by,
                            by_to + first * hidden, by_from + first * hidden,
                            by_skip + 2 * first * width, by_gathered + first * width);
        }
    }
    int failed = !stages.all || !by.all;
    free(stages.all);
    free(by.all);
    return failed;
}
