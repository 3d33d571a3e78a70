/* The exported network on a CPU: spikes as bits, ternary weights as two bit planes. engine.py builds and calls this.

   A word holds 32 input channels of one group at one position. A vector of LANES words holds the weights of as many
   filters for it: AND, population count and addition treat LANES * 32 synapses at once. A map of spikes is
   [image][row][column][group of the next stage][word], with that stage's zero padding around it. */
#include <omp.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

enum { LANES = 16, POSITIONS = 8 };
typedef uint32_t words __attribute__((vector_size(4 * LANES)));
typedef float floats __attribute__((vector_size(4 * LANES)));

/* A stage. Sizes are heights, which are widths too. */
typedef struct {
    int32_t groups, filters, kernel, stride; /* filters of one group */
    int32_t size, padded;                    /* output; input with its padding */
    int32_t channels;                        /* words of one group, or floats, at an input position */
    int32_t next_padded, next_margin;        /* the output's padding, which is the next stage's */
    int32_t position_bytes;                  /* of an output position */
    const void *input;                       /* spikes: uint32; float stages: float */
    uint8_t *output;
    const uint32_t *plus, *minus;            /* [group][tap][word][filter]; no minus where no weight is 0 */
    const int32_t *thresholds;               /* [group][filter] */
    const int32_t *bytes;                    /* [group][filter / 8]: where in an output position their spikes go */
    const float *weights, *scale, *offset;   /* float stages: [tap][channel][filter]; [filter] */
    double seconds;                          /* spent here so far */
} Stage;

static inline words popcount(words x) {
#ifdef __AVX512VPOPCNTDQ__
    return (words)_mm512_popcnt_epi32((__m512i)x);
#else
    x -= x >> 1 & 0x55555555u;
    x = (x & 0x33333333u) + (x >> 2 & 0x33333333u);
    x = (x + (x >> 4)) & 0x0f0f0f0fu;
    return (x * 0x01010101u) >> 24;
#endif
}

/* Lane i >= threshold i, as bit i. */
static inline uint16_t at_least(words sums, const int32_t *thresholds) {
#ifdef __AVX512F__
    return _mm512_cmpge_epi32_mask((__m512i)sums, _mm512_loadu_si512(thresholds));
#else
    uint16_t bits = 0;
    for (int i = 0; i < LANES; i++)
        bits |= (uint16_t)((int32_t)sums[i] >= thresholds[i]) << i;
    return bits;
#endif
}

static inline uint16_t not_negative(floats x) {
#ifdef __AVX512F__
    return _mm512_cmp_ps_mask((__m512)x, _mm512_setzero_ps(), _CMP_GE_OQ);
#else
    uint16_t bits = 0;
    for (int i = 0; i < LANES; i++)
        bits |= (uint16_t)(x[i] >= 0) << i;
    return bits;
#endif
}

static inline words load(const void *from) {
    words x;
    memcpy(&x, from, sizeof x);
    return x;
}

static inline floats load_floats(const float *from) {
    floats x;
    memcpy(&x, from, sizeof x);
    return x;
}

static inline ptrdiff_t input_index(const Stage *s, int position) {
    int column = position % s->size, row = position / s->size % s->size, image = position / (s->size * s->size);
    return ((ptrdiff_t)(image * s->padded + row * s->stride) * s->padded + column * s->stride) * s->groups * s->channels;
}

static inline ptrdiff_t output_index(const Stage *s, int position) {
    int column = position % s->size, row = position / s->size % s->size, image = position / (s->size * s->size);
    return (ptrdiff_t)(image * s->next_padded + row + s->next_margin) * s->next_padded + column + s->next_margin;
}

/* Sums of `across` positions x 2 LANES filters; without ternary, of the weights that are 1 alone. */
static inline __attribute__((always_inline)) void integrate(const Stage *s, const uint32_t *const *x, int across,
                                                            int group, int filter, int ternary, words (*sums)[2]) {
    ptrdiff_t weight = (ptrdiff_t)group * s->kernel * s->kernel * s->channels * s->filters + filter;
    for (int i = 0; i < across; i++)
        sums[i][0] = sums[i][1] = (words){0};
    for (int row = 0; row < s->kernel; row++)
        for (int column = 0; column < s->kernel; column++) {
            ptrdiff_t from = ((ptrdiff_t)(row * s->padded + column) * s->groups + group) * s->channels;
            for (int word = 0; word < s->channels; word++, from++, weight += s->filters) {
                words plus[2] = {load(s->plus + weight), load(s->plus + weight + LANES)}, minus[2];
                if (ternary) {
                    minus[0] = load(s->minus + weight);
                    minus[1] = load(s->minus + weight + LANES);
                }
#pragma GCC unroll 8
                for (int i = 0; i < across; i++) {
                    words spikes = x[i][from] - (words){0};
                    for (int j = 0; j < 2; j++) {
                        sums[i][j] += popcount(spikes & plus[j]);
                        if (ternary)
                            sums[i][j] -= popcount(spikes & minus[j]);
                    }
                }
            }
        }
}

/* All spikes that a group's neurons at this position see. */
static inline uint32_t seen(const Stage *s, const uint32_t *x, int group) {
    uint32_t all = 0;
    for (int row = 0; row < s->kernel; row++)
        for (int column = 0; column < s->kernel; column++) {
            const uint32_t *at = x + ((ptrdiff_t)(row * s->padded + column) * s->groups + group) * s->channels;
            for (int word = 0; word < s->channels; word++)
                all += __builtin_popcount(at[word]);
        }
    return all;
}

static inline __attribute__((always_inline)) void fire_block(const Stage *s, int first, int across, int ternary) {
    const uint32_t *x[POSITIONS];
    uint8_t *y[POSITIONS];
    for (int i = 0; i < across; i++) {
        x[i] = (const uint32_t *)s->input + input_index(s, first + i);
        y[i] = s->output + output_index(s, first + i) * s->position_bytes;
    }
    for (int group = 0; group < s->groups; group++) {
        uint32_t all[POSITIONS];
        if (!ternary)
            for (int i = 0; i < across; i++)
                all[i] = seen(s, x[i], group);
        for (int filter = 0; filter < s->filters; filter += 2 * LANES) {
            words sums[POSITIONS][2];
            integrate(s, x, across, group, filter, ternary, sums);
            int at = group * s->filters + filter;
            const int32_t *bytes = s->bytes + at / 8;
            for (int i = 0; i < across; i++)
                for (int j = 0; j < 2; j++) {
                    /* with weights of 1 and -1 a sum is twice the spikes that 1 sees, less all spikes */
                    words sum = ternary ? sums[i][j] : 2 * sums[i][j] - all[i];
                    uint16_t bits = at_least(sum, s->thresholds + at + j * LANES);
                    y[i][bytes[2 * j]] = bits & 255;
                    y[i][bytes[2 * j + 1]] = bits >> 8;
                }
        }
    }
}

/* A hidden stage: blocks of POSITIONS, then what is left one by one. */
static inline __attribute__((always_inline)) void hidden(const Stage *s, int images, int ternary) {
    int positions = images * s->size * s->size, blocks = positions / POSITIONS;
    int tasks = blocks + positions % POSITIONS;
#pragma omp parallel for schedule(static)
    for (int task = 0; task < tasks; task++)
        if (task < blocks)
            fire_block(s, task * POSITIONS, POSITIONS, ternary);
        else
            fire_block(s, blocks * POSITIONS + task - blocks, 1, ternary);
}

/* A float convolution: `across` positions of a row x `vectors` LANES filters. Then relu into floats, or spikes. */
static inline __attribute__((always_inline)) void float_block(const Stage *s, int first, int across, int vectors,
                                                              int spikes) {
    floats sums[across][vectors];
    const float *x = (const float *)s->input + input_index(s, first);
    for (int i = 0; i < across; i++)
        for (int j = 0; j < vectors; j++)
            sums[i][j] = (floats){0};
    const float *weights = s->weights;
    for (int row = 0; row < s->kernel; row++)
        for (int k = 0; k < s->kernel * s->channels; k++, weights += vectors * LANES) {
            const float *at = x + (ptrdiff_t)row * s->padded * s->channels + k;
#pragma GCC unroll 12
            for (int i = 0; i < across; i++)
#pragma GCC unroll 4
                for (int j = 0; j < vectors; j++)
                    sums[i][j] += at[i * s->channels] * load_floats(weights + j * LANES);
        }
    uint8_t *y = s->output + output_index(s, first) * s->position_bytes;
    for (int i = 0; i < across; i++, y += s->position_bytes)
        for (int j = 0; j < vectors; j++) {
            floats value = sums[i][j] * load_floats(s->scale + j * LANES) + load_floats(s->offset + j * LANES);
            if (spikes) {
                uint16_t bits = not_negative(value);
                memcpy(y + 2 * j, &bits, sizeof bits);
            } else {
                value = (floats)((words)value & (words)(value > 0));
                memcpy(y + j * sizeof value, &value, sizeof value);
            }
        }
}

static void float_stage(const Stage *s, int images, int spikes) {
    int positions = images * s->size * s->size;
    if (spikes) {
#pragma omp parallel for schedule(static)
        for (int first = 0; first < positions; first += 6)
            float_block(s, first, 6, 4, 1);
    } else {
#pragma omp parallel for schedule(static)
        for (int first = 0; first < positions; first += 12)
            float_block(s, first, 12, 2, 0);
    }
}

/* Stages first ... last - 1 on the images in the first one's input: two float stages, then the hidden ones. */
void run(Stage *stages, int first, int last, int images) {
    for (int i = first; i < last; i++) {
        double started = omp_get_wtime();
        if (i < 2)
            float_stage(stages + i, images, i == 1);
        else if (stages[i].minus)
            hidden(stages + i, images, 1);
        else
            hidden(stages + i, images, 0);
        stages[i].seconds += omp_get_wtime() - started;
    }
}

/* Spikes of each image in each of `maps` maps; bytes: of an image in a map, multiples of 8. spikes: [image][map]. */
void count(const uint8_t *const *inputs, const int32_t *bytes, int maps, int images, double *spikes) {
    for (int image = 0; image < images; image++)
        for (int map = 0; map < maps; map++) {
            int64_t sum = 0;
            for (int i = 0; i < bytes[map]; i += 8) {
                uint64_t eight;
                memcpy(&eight, inputs[map] + (ptrdiff_t)image * bytes[map] + i, 8);
                sum += __builtin_popcountll(eight);
            }
            spikes[image * maps + map] = sum;
        }
}

void set_threads(int threads) { omp_set_num_threads(threads); }
int get_threads(void) { return omp_get_max_threads(); }
