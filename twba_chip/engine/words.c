/* A map is [image][row][column][group of its reader][word]: the channels that a group reads are adjacent. Neurons are computed
   32 filters (a block) at a time, in two vectors of 16, and a few positions at a time. There are two ways to a neuron's sum:
   - With AVX-512's population count. A vector holds a word of 16 filters' weights, as one plane of bits for the weights
     of 1 and one for those of -1. If an input spikes, the first plane's bit counts, else the second's. The count is the sum
     plus the number of weights of -1, which the thresholds include. So one choice, one population count and one addition
     serve 512 synapses at once.
   - Without. A byte of spikes is two sets of four. For each of the 16 sets of four weights a table has the number of weights that
     the spikes meet. A vector holds the sets' numbers for 16 filters. One look-up (a byte shuffle, AVX2) and one addition serve
     128 synapses at once. */
#include "words.h"

#include "vectors.h"

enum { BLOCK = 32, POSITIONS = LOOKS_UP ? 3 : 8 }; /* filters; positions whose sums fit into registers */
enum { TASK_POSITIONS = 72 };                      /* positions for which a block's weights stay in the cache */

#if !LOOKS_UP

/* Sums of a block's neurons at `across` positions, each plus the number of its weights of -1. x: [position], the patch's first
   word. */
static inline __attribute__((always_inline)) void integrate(const Stage *s, const uint32_t *const *x, int across, int block,
                                                            int ternary, sums_of_16 (*sums)[2]) {
    (void)ternary; /* the two planes of weights tell */
    const Geometry *g = &s->geometry;
    const uint32_t *plus = (const uint32_t *)s->words.plus + (ptrdiff_t)block * g->fan_in * BLOCK;
    const uint32_t *minus = (const uint32_t *)s->words.minus + (ptrdiff_t)block * g->fan_in * BLOCK;
    for (int i = 0; i < across; i++)
        sums[i][0] = sums[i][1] = (sums_of_16){0};
    for (int word = 0; word < g->fan_in; word++) {
        sums_of_16 ones[2] = {load_words(plus + word * BLOCK), load_words(plus + word * BLOCK + 16)};
        sums_of_16 others[2] = {load_words(minus + word * BLOCK), load_words(minus + word * BLOCK + 16)};
#pragma GCC unroll 8
        for (int i = 0; i < across; i++) {
            sums_of_16 spikes = x[i][g->offsets[word]] - (sums_of_16){0};
            for (int j = 0; j < 2; j++)
                sums[i][j] += popcount(choose(spikes, ones[j], others[j]));
        }
    }
}

#else

enum { WORDS = 7 }; /* whose sums fit into int8: 28 bytes, at most 4 from each half */

/* [byte of spikes][half of the byte, set of four weights]: the sum of these weights at spikes. In `ones` a weight is 1 or 0, in
   `signs` it is 1 or -1. */
static int8_t ones[256][32], signs[256][32];

static __attribute__((constructor)) void fill_tables(void) {
    for (int spikes = 0; spikes < 256; spikes++)
        for (int i = 0; i < 32; i++) {
            int four = spikes >> (i < 16 ? 0 : 4) & 15;
            ones[spikes][i] = __builtin_popcount(four & i);
            signs[spikes][i] = 2 * ones[spikes][i] - __builtin_popcount(four);
        }
}

/* Sums of a block's neurons at `across` positions. x: [position], the patch's first word. */
static inline __attribute__((always_inline)) void integrate(const Stage *s, const uint32_t *const *x, int across, int block,
                                                            int ternary, sums_of_16 (*sums)[2]) {
    const Geometry *g = &s->geometry;
    const int8_t(*table)[32] = ternary ? ones : signs;
    const bytes_of_32 *plus = (const bytes_of_32 *)s->words.plus + (ptrdiff_t)block * g->fan_in * 8;
    const bytes_of_32 *minus = (const bytes_of_32 *)s->words.minus + (ptrdiff_t)block * g->fan_in * 8;
    for (int i = 0; i < across; i++)
        sums[i][0] = sums[i][1] = (sums_of_16){0};
    for (int first = 0; first < g->fan_in; first += WORDS) {
        int last = first + WORDS < g->fan_in ? first + WORDS : g->fan_in;
        bytes_of_32 partial[POSITIONS][2] = {0};
        for (int word = first; word < last; word++)
            for (int byte = 0; byte < 4; byte++) {
                int at = (4 * word + byte) * 2;
                bytes_of_32 pluses[2] = {load_bytes(plus + at), load_bytes(plus + at + 1)}, minuses[2];
                if (ternary) {
                    minuses[0] = load_bytes(minus + at);
                    minuses[1] = load_bytes(minus + at + 1);
                }
#pragma GCC unroll 3
                for (int i = 0; i < across; i++) {
                    bytes_of_32 row = load_bytes(table[((const uint8_t *)(x[i] + g->offsets[word]))[byte]]);
                    for (int j = 0; j < 2; j++) {
                        partial[i][j] += look_up(row, pluses[j]);
                        if (ternary)
                            partial[i][j] -= look_up(row, minuses[j]);
                    }
                }
            }
        for (int i = 0; i < across; i++)
            for (int j = 0; j < 2; j++)
                sums[i][j] += add_halves(partial[i][j]);
    }
}

#endif

const char *check_words(const Stage *s) {
    const Geometry *g = &s->geometry;
    if (g->filters < 1 || g->filters % BLOCK)
        return "a hidden stage has no filters, or their number is not a multiple of words.c's 32";
    return NULL;
}

int looks_up(void) { return LOOKS_UP; }

/* Writes which of a block's neurons fire at `across` positions from `first` on. */
static inline __attribute__((always_inline)) void fire_block(const Stage *s, int block, int first, int across,
                                                             int ternary) {
    const Geometry *g = &s->geometry;
    int group = block * BLOCK / g->filters;
    const uint32_t *x[POSITIONS];
    for (int i = 0; i < across; i++)
        x[i] = (const uint32_t *)s->input + g->input_starts[first + i] + group * g->channels;
    sums_of_16 sums[POSITIONS][2];
    integrate(s, x, across, block, ternary, sums);
    const int32_t *bytes = s->words.bytes + block * (BLOCK / 8);
    for (int i = 0; i < across; i++) {
        uint8_t *y = s->output + g->output_starts[first + i];
        for (int j = 0; j < 2; j++) {
            uint16_t bits = at_least(sums[i][j], s->words.thresholds + block * BLOCK + 16 * j);
            y[bytes[2 * j]] = bits & 255;
            y[bytes[2 * j + 1]] = bits >> 8;
        }
    }
}

/* A hidden stage at positions [begin, end). A task is a block at TASK_POSITIONS of them: POSITIONS at a time, then the rest one
   by one. */
static inline __attribute__((always_inline)) void fire_blocks(const Stage *s, int begin, int end, int ternary) {
    int blocks = s->geometry.groups * s->geometry.filters / BLOCK;
    int parts = (end - begin + TASK_POSITIONS - 1) / TASK_POSITIONS;
#pragma omp parallel for schedule(static)
    for (int task = 0; task < blocks * parts; task++) {
        int block = task / parts, first = begin + task % parts * TASK_POSITIONS;
        int last = first + TASK_POSITIONS < end ? first + TASK_POSITIONS : end;
        for (; first + POSITIONS <= last; first += POSITIONS)
            fire_block(s, block, first, POSITIONS, ternary);
        for (; first < last; first++)
            fire_block(s, block, first, 1, ternary);
    }
}

void hidden_by_words(const Stage *s, int first, int last) {
    int begin = first * s->geometry.positions, end = last * s->geometry.positions;
    if (s->ternary)
        fire_blocks(s, begin, end, 1);
    else
        fire_blocks(s, begin, end, 0);
}

int count_by_words(const uint8_t *map, int bytes) {
    int spikes = 0;
    for (int i = 0; i < bytes; i += 8) {
        uint64_t eight;
        memcpy(&eight, map + i, sizeof eight);
        spikes += __builtin_popcountll(eight);
    }
    return spikes;
}
