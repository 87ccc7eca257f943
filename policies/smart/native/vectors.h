/* Vectors of floats, by the extensions that GCC and Clang share. */

#ifndef VECTORS_H
#define VECTORS_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Floats that are worked on at a time. As many accumulators of as many floats fit in registers. */
#if defined(__AVX512F__)
#define WIDTH 16
#else
#define WIDTH 8
#endif

typedef float vec __attribute__((vector_size(4 * WIDTH)));
typedef int32_t ivec __attribute__((vector_size(4 * WIDTH)));
typedef uint32_t uvec __attribute__((vector_size(4 * WIDTH)));
/* As it lies in memory, aligned as a float is. */
typedef float loose __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));

/* Floats that are fetched from memory together. */
#define LINE 16

#define INLINE static inline __attribute__((always_inline))
/* Arrays of accumulators become registers only where loops over them are unrolled. */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
/* Keeps a number in a register that GCC would rather load again for each use. */
#if defined(__AVX512F__)
#define KEEP(value) __asm__("" : "+v"(value))
#else
#define KEEP(value) (void)(value)
#endif

#if WIDTH == 16
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define ODD 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#define LANES 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
#else
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14
#define ODD 1, 3, 5, 7, 9, 11, 13, 15
#define LANES 0, 1, 2, 3, 4, 5, 6, 7
#endif
#if defined(__clang__)
#define SHUFFLE(one, other, ...) __builtin_shufflevector(one, other, __VA_ARGS__)
#else
#define SHUFFLE(one, other, ...) __builtin_shuffle(one, other, (ivec){__VA_ARGS__})
#endif

INLINE vec load(const float *from) { return *(const loose *)from; }
INLINE void store(float *to, vec value) { *(loose *)to = value; }
INLINE vec all(float value) { return value - (vec){0}; }
INLINE vec choose(ivec condition, vec one, vec other) {
    return (vec)((condition & (ivec)one) | (~condition & (ivec)other));
}

/* Sets what is negative to zero; NaN stays NaN. */
INLINE vec clamp(vec value) { return choose(value < 0.0f, all(0.0f), value); }

/* Moves numbers some places forward, and the first behind the last: by 4, or by 8 of 16. */
INLINE vec rotate(vec value, int places) {
#if WIDTH == 16
    vec by_8 = SHUFFLE(value, value, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
    vec by_4 = SHUFFLE(value, value, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3);
    return places == 8 ? by_8 : by_4;
#else
    (void)places;
    return SHUFFLE(value, value, 4, 5, 6, 7, 0, 1, 2, 3);
#endif
}

#define HALVE(count)                                                                               \
    UNROLL for (int i = 0; i < count; i++) {                                                       \
        vec one = part[2 * i], other = part[2 * i + 1];                                            \
        part[i] = SHUFFLE(one, other, EVEN) + SHUFFLE(one, other, ODD);                            \
    }

/* Sums within each of WIDTH vectors: number i of the result is the sum of vector i. */
INLINE vec sums_within(vec *part) {
#if WIDTH == 16
    HALVE(8)
#endif
    HALVE(4)
    HALVE(2)
    HALVE(1)
    return part[0];
}

INLINE float sum_within(vec value) {
    for (int shift = WIDTH / 2; shift >= 4; shift /= 2) value += rotate(value, shift);
    return (value[0] + value[1]) + (value[2] + value[3]);
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

/* The sine of 2 pi times numbers from -1/4 to 1/4, to 2e-7. */
INLINE vec sine_of_quarter(vec x) {
    vec square = x * x, value = all(-14.394135f); /* Fitted at Chebyshev's points. */
    value = value * square + 42.009808f;
    value = value * square + -76.704285f;
    value = value * square + 81.605225f;
    value = value * square + -41.341702f;
    value = value * square + 6.2831855f;
    return value * x;
}

/* The cosine and the sine of 2 pi times numbers. Only what is behind their points counts. */
INLINE void turn(vec x, vec *cosine, vec *sine) {
    const float magic = 12582912.0f; /* As above. Numbers from a third of it on are whole turns. */
    vec size = choose(x < 0.0f, -x, x);
    x = choose(size > magic / 3, x - x, x - ((x + magic) - magic));
    size = choose(x < 0.0f, -x, x);
    vec folded = choose(x < 0.0f, -0.5f - x, 0.5f - x);
    *cosine = sine_of_quarter(0.25f - size);
    *sine = sine_of_quarter(choose(size > 0.25f, folded, x));
}

/* What is dropped of some numbers: one is drawn for each, by its place, so that the gradient can
   draw it again. The mixing is Wellons' lowbias32, once for each half of the seed. */
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

#endif
