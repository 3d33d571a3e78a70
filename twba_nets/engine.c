/* The exported network on a CPU. engine.py builds and calls this.

   A map of spikes is [image][row][column][group of the next stage][word] with that stage's zero padding around it; a word
   holds 32 input channels as bits. Hidden neurons are taken 32 filters (a block) at a time, in two vectors of 16, and a
   few positions at a time. A neuron's sum is computed
   - with AVX-512's population count: a vector holds a word of 16 filters' weights, as one plane of bits for the weights
     of 1 and one for those of -1; AND, population count and addition treat 512 synapses at once;
   - without: a byte of spikes is two sets of four. For each of the 16 sets of four weights a table has how many of them
     the spikes meet. A vector holds these weights' numbers for 16 filters, and one look-up (a byte shuffle, AVX2) and
     one addition treat 128 synapses at once. */
#include <math.h>
#include <omp.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

#ifdef __AVX512F__
enum { LANES = 16, ACROSS = 12 }; /* floats in a vector; positions whose sums registers hold, two vectors each */
#else
enum { LANES = 8, ACROSS = 6 };
#endif
enum { TILES = 12, INPUTS = 32, OUTPUTS = 64 }; /* of the second float stage: tiles of a row, channels, filters */
enum { IMAGE = 32, CROP = 24, CHANNELS = 3, FEATURES = 512, CLASSES = 10, PADDED_CLASSES = 16, STAGES = 10, MAPS = 8 };
enum { BLOCK = 32, CHUNK = 72 };                        /* filters; positions that a block's weights are kept for */

typedef float floats __attribute__((vector_size(4 * LANES)));
typedef int32_t masks __attribute__((vector_size(4 * LANES)));

/* A stage. Positions are the output's; offsets are in words or floats in the input, in bytes in the output. */
typedef struct {
    int32_t groups, filters, kernel;       /* filters of one group */
    int32_t positions;                     /* of one image */
    int32_t channels;                      /* words of one group, or floats, at an input position */
    int32_t words;                         /* hidden: that a neuron sees */
    int32_t input_row, output_row;         /* offset from a row to the next */
    int32_t position_bytes;                /* of an output position */
    const void *input;                     /* spikes: uint32; float stages: float */
    uint8_t *output;
    const int32_t *from, *to;              /* [position of a chunk of images]: where its input begins, and its output */
    const int32_t *offsets;                /* [word]: from there, for the first group */
    const void *plus, *minus;              /* [block][word]: their weights; no minus where no weight is 0 */
    const int16_t *thresholds;             /* [group][filter] */
    const int32_t *bytes;                  /* [group][filter / 8]: where in an output position their spikes go */
    int16_t *seen;                         /* [position][group]: room for how many spikes its neurons see */
    const float *weights, *scale, *offset; /* float stages: [tap or Winograd's point][channel][filter]; [filter] */
    double seconds;                        /* spent here so far */
} Stage;

typedef struct {
    Stage stages[STAGES];                  /* two float stages, then the hidden ones */
    const uint8_t *maps[MAPS];             /* those whose spikes are counted */
    int32_t bytes[MAPS];                   /* of an image in them */
    const float *classes, *scale, *offset; /* [feature][padded class]; [class] */
} Network;

static inline floats load_floats(const float *from) {
    floats x;
    memcpy(&x, from, sizeof x);
    return x;
}

/* Lane i >= 0, as bit i. */
static inline uint16_t not_negative(floats x) {
#if defined __AVX512F__
    return _mm512_cmp_ps_mask((__m512)x, _mm512_setzero_ps(), _CMP_GE_OQ);
#elif defined __AVX2__
    return _mm256_movemask_ps(_mm256_cmp_ps((__m256)x, _mm256_setzero_ps(), _CMP_GE_OQ));
#else
    uint16_t bits = 0;
    for (int i = 0; i < LANES; i++)
        bits |= (uint16_t)(x[i] >= 0) << i;
    return bits;
#endif
}

#ifdef __AVX512VPOPCNTDQ__

enum { POSITIONS = 8, LOOKS_UP = 0 };
typedef uint32_t sums_of_16 __attribute__((vector_size(64)));

static inline sums_of_16 load_words(const uint32_t *from) {
    sums_of_16 x;
    memcpy(&x, from, sizeof x);
    return x;
}

static inline sums_of_16 popcount(sums_of_16 x) { return (sums_of_16)_mm512_popcnt_epi32((__m512i)x); }

static inline uint16_t at_least(sums_of_16 sums, const int16_t *thresholds) {
    return _mm512_cmpge_epi32_mask((__m512i)sums, _mm512_cvtepi16_epi32(_mm256_loadu_si256((const void *)thresholds)));
}

/* Sums of a block's neurons at `across` positions. */
static inline __attribute__((always_inline)) void integrate(const Stage *s, const uint32_t *const *x, int across,
                                                            const int16_t *seen, int block, int ternary,
                                                            sums_of_16 (*sums)[2]) {
    const uint32_t *plus = (const uint32_t *)s->plus + (ptrdiff_t)block * s->words * BLOCK;
    const uint32_t *minus = (const uint32_t *)s->minus + (ptrdiff_t)block * s->words * BLOCK;
    for (int i = 0; i < across; i++)
        sums[i][0] = sums[i][1] = (sums_of_16){0};
    for (int word = 0; word < s->words; word++) {
        sums_of_16 ones[2] = {load_words(plus + word * BLOCK), load_words(plus + word * BLOCK + 16)}, others[2];
        if (ternary) {
            others[0] = load_words(minus + word * BLOCK);
            others[1] = load_words(minus + word * BLOCK + 16);
        }
#pragma GCC unroll 8
        for (int i = 0; i < across; i++) {
            sums_of_16 spikes = x[i][s->offsets[word]] - (sums_of_16){0};
            for (int j = 0; j < 2; j++) {
                sums[i][j] += popcount(spikes & ones[j]);
                if (ternary)
                    sums[i][j] -= popcount(spikes & others[j]);
            }
        }
    }
    if (!ternary)
        for (int i = 0; i < across; i++)
            for (int j = 0; j < 2; j++)
                sums[i][j] = 2 * sums[i][j] - seen[i * s->groups];
}

#else

enum { POSITIONS = 3, LOOKS_UP = 1, WORDS = 7 }; /* int8 holds the sums of 7 words: 28 bytes, 4 at most from each half */
typedef int8_t bytes_of_32 __attribute__((vector_size(32)));
typedef int16_t sums_of_16 __attribute__((vector_size(32)));

/* [byte of spikes][half of the byte, set of four weights]: the sum of these weights where there are spikes. In `ones`
   a weight is 1 or 0, in `signs` it is 1 or -1. */
static int8_t ones[256][32], signs[256][32];

static __attribute__((constructor)) void fill_tables(void) {
    for (int spikes = 0; spikes < 256; spikes++)
        for (int i = 0; i < 32; i++) {
            int four = spikes >> (i < 16 ? 0 : 4) & 15;
            ones[spikes][i] = __builtin_popcount(four & i);
            signs[spikes][i] = 2 * ones[spikes][i] - __builtin_popcount(four);
        }
}

static inline bytes_of_32 load_bytes(const void *from) {
    bytes_of_32 x;
    memcpy(&x, from, sizeof x);
    return x;
}

static inline bytes_of_32 look_up(bytes_of_32 table, bytes_of_32 index) {
#ifdef __AVX2__
    return (bytes_of_32)_mm256_shuffle_epi8((__m256i)table, (__m256i)index);
#else
    bytes_of_32 found;
    for (int i = 0; i < 32; i++)
        found[i] = table[(i & 16) | index[i]];
    return found;
#endif
}

/* The two halves of 16 added up. */
static inline sums_of_16 add_halves(bytes_of_32 x) {
#ifdef __AVX2__
    __m128i low = _mm256_castsi256_si128((__m256i)x), high = _mm256_extracti128_si256((__m256i)x, 1);
    return (sums_of_16)_mm256_cvtepi8_epi16(low) + (sums_of_16)_mm256_cvtepi8_epi16(high);
#else
    sums_of_16 sums;
    for (int i = 0; i < 16; i++)
        sums[i] = x[i] + x[i + 16];
    return sums;
#endif
}

static inline uint16_t at_least(sums_of_16 sums, const int16_t *thresholds) {
    sums_of_16 least;
    memcpy(&least, thresholds, sizeof least);
#ifdef __AVX2__
    __m256i fires = (__m256i)(sums >= least);
    return _mm_movemask_epi8(_mm_packs_epi16(_mm256_castsi256_si128(fires), _mm256_extracti128_si256(fires, 1)));
#else
    uint16_t bits = 0;
    for (int i = 0; i < 16; i++)
        bits |= (uint16_t)(sums[i] >= least[i]) << i;
    return bits;
#endif
}

/* Sums of a block's neurons at `across` positions. */
static inline __attribute__((always_inline)) void integrate(const Stage *s, const uint32_t *const *x, int across,
                                                            const int16_t *seen, int block, int ternary,
                                                            sums_of_16 (*sums)[2]) {
    (void)seen; /* the table of signs does without */
    const int8_t(*table)[32] = ternary ? ones : signs;
    const bytes_of_32 *plus = (const bytes_of_32 *)s->plus + (ptrdiff_t)block * s->words * 8;
    const bytes_of_32 *minus = (const bytes_of_32 *)s->minus + (ptrdiff_t)block * s->words * 8;
    for (int i = 0; i < across; i++)
        sums[i][0] = sums[i][1] = (sums_of_16){0};
    for (int first = 0; first < s->words; first += WORDS) {
        int last = first + WORDS < s->words ? first + WORDS : s->words;
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
                    bytes_of_32 row = load_bytes(table[((const uint8_t *)(x[i] + s->offsets[word]))[byte]]);
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

/* Whether weights are wanted as numbers of sets of four, in place of planes of bits. */
int looks_up(void) { return LOOKS_UP; }

static inline __attribute__((always_inline)) void fire_block(const Stage *s, int block, int first, int across,
                                                             int ternary) {
    int group = block * BLOCK / s->filters;
    const uint32_t *x[POSITIONS];
    for (int i = 0; i < across; i++)
        x[i] = (const uint32_t *)s->input + s->from[first + i] + group * s->channels;
    sums_of_16 sums[POSITIONS][2];
    integrate(s, x, across, s->seen + first * s->groups + group, block, ternary, sums);
    const int32_t *bytes = s->bytes + block * (BLOCK / 8);
    for (int i = 0; i < across; i++) {
        uint8_t *y = s->output + s->to[first + i];
        for (int j = 0; j < 2; j++) {
            uint16_t bits = at_least(sums[i][j], s->thresholds + block * BLOCK + 16 * j);
            y[bytes[2 * j]] = bits & 255;
            y[bytes[2 * j + 1]] = bits >> 8;
        }
    }
}

/* How many spikes each group's neurons see at each position: with weights of 1 and -1 a sum is twice the spikes that 1
   meets, less all of them. */
static void count_seen(const Stage *s, int positions) {
#pragma omp parallel for schedule(static)
    for (int position = 0; position < positions; position++)
        for (int group = 0; group < s->groups; group++) {
            const uint32_t *x = (const uint32_t *)s->input + s->from[position] + group * s->channels;
            int spikes = 0;
            for (int word = 0; word < s->words; word++)
                spikes += __builtin_popcount(x[s->offsets[word]]);
            s->seen[position * s->groups + group] = spikes;
        }
}

/* A hidden stage. A task is a block at CHUNK positions, POSITIONS at a time, then what is left one by one. */
static inline __attribute__((always_inline)) void hidden(const Stage *s, int images, int ternary) {
    int positions = images * s->positions, chunks = (positions + CHUNK - 1) / CHUNK;
    if (!ternary && !LOOKS_UP)
        count_seen(s, positions);
#pragma omp parallel for schedule(static)
    for (int task = 0; task < s->groups * s->filters / BLOCK * chunks; task++) {
        int block = task / chunks, first = task % chunks * CHUNK;
        int last = first + CHUNK < positions ? first + CHUNK : positions;
        for (; first + POSITIONS <= last; first += POSITIONS)
            fire_block(s, block, first, POSITIONS, ternary);
        for (; first < last; first++)
            fire_block(s, block, first, 1, ternary);
    }
}

/* The first float convolution, then relu: ACROSS positions of a row x 2 LANES filters. */
static void relu_block(const Stage *s, int first, int filter) {
    floats sums[ACROSS][2] = {0};
    const float *x = (const float *)s->input + s->from[first], *weights = s->weights + filter;
    for (int row = 0; row < s->kernel; row++)
        for (int k = 0; k < s->kernel * s->channels; k++, weights += s->filters) {
            const float *at = x + row * s->input_row + k;
            floats both[2] = {load_floats(weights), load_floats(weights + LANES)};
#pragma GCC unroll 12
            for (int i = 0; i < ACROSS; i++)
                for (int j = 0; j < 2; j++)
                    sums[i][j] += at[i * s->channels] * both[j];
        }
    for (int i = 0; i < ACROSS; i++)
        for (int j = 0; j < 2; j++) {
            int at = filter + j * LANES;
            floats value = sums[i][j] * load_floats(s->scale + at) + load_floats(s->offset + at);
            value = (floats)((masks)value & (value > 0));
            memcpy(s->output + s->to[first + i] + at * sizeof(float), &value, sizeof value);
        }
}

static void relu_stage(const Stage *s, int images) {
#pragma omp parallel for schedule(static)
    for (int first = 0; first < images * s->positions; first += ACROSS)
        for (int filter = 0; filter < s->filters; filter += 2 * LANES)
            relu_block(s, first, filter);
}

/* The second float convolution by Winograd's F(2x2, 3x3) (Lavin and Gray, 2016): a tile of 4x4 inputs gives 2x2 outputs
   by 16 products, where 36 are usual. Its constants are 1 and 1/2, so it rounds about as the usual sums do. */

static inline void transform_input(const floats *x, floats *y) {
    y[0] = x[0] - x[2];
    y[1] = x[1] + x[2];
    y[2] = x[2] - x[1];
    y[3] = x[1] - x[3];
}

static inline void transform_output(const floats *x, floats *y) {
    y[0] = x[0] + x[1] + x[2];
    y[1] = x[1] - x[2] - x[3];
}

/* A row's tiles of inputs, transformed in both directions, to be multiplied point by point. */
static void transform_inputs(const Stage *s, const float *x, float (*inputs)[TILES][INPUTS]) {
    for (int tile = 0; tile < TILES; tile++)
        for (int channel = 0; channel < INPUTS; channel += LANES) {
            floats half[4][4], whole[4];
            for (int row = 0; row < 4; row++) {
                floats across[4];
                for (int column = 0; column < 4; column++)
                    across[column] = load_floats(x + row * s->input_row + (2 * tile + column) * INPUTS + channel);
                transform_input(across, half[row]);
            }
            for (int column = 0; column < 4; column++) {
                const floats down[4] = {half[0][column], half[1][column], half[2][column], half[3][column]};
                transform_input(down, whole);
                for (int row = 0; row < 4; row++)
                    memcpy(&inputs[4 * row + column][tile][channel], whole + row, sizeof *whole);
            }
        }
}

/* One point of the tiles' 16: [tile][input] times [input][two vectors of outputs]. */
static void multiply(const float (*inputs)[INPUTS], const float *weights, floats (*sums)[2]) {
    for (int first = 0; first < TILES; first += ACROSS) {
        floats block[ACROSS][2] = {0};
        for (int k = 0; k < INPUTS; k++) {
            const float *at = weights + k * OUTPUTS;
            floats both[2] = {load_floats(at), load_floats(at + LANES)};
#pragma GCC unroll 12
            for (int i = 0; i < ACROSS; i++)
                for (int j = 0; j < 2; j++)
                    block[i][j] += inputs[first + i][k] * both[j];
        }
        memcpy(sums + first, block, sizeof block);
    }
}

/* A tile's 2x2 outputs of LANES filters, and which of them spike. */
static void fire_tile(const Stage *s, floats (*sums)[TILES][2], int tile, int j, int output, uint8_t *y) {
    floats half[4][2], whole[2], scale = load_floats(s->scale + output), offset = load_floats(s->offset + output);
    for (int row = 0; row < 4; row++) {
        floats across[4];
        for (int column = 0; column < 4; column++)
            across[column] = sums[4 * row + column][tile][j];
        transform_output(across, half[row]);
    }
    for (int column = 0; column < 2; column++) {
        const floats down[4] = {half[0][column], half[1][column], half[2][column], half[3][column]};
        transform_output(down, whole);
        for (int row = 0; row < 2; row++) {
            uint16_t bits = not_negative(whole[row] * scale + offset);
            memcpy(y + row * s->output_row + (2 * tile + column) * s->position_bytes + output / 8, &bits, LANES / 8);
        }
    }
}

/* Rows of tiles, of two rows of outputs each. */
static void spike_stage(const Stage *s, int images) {
#pragma omp parallel for schedule(static)
    for (int first = 0; first < images * s->positions; first += 4 * TILES) {
        float inputs[16][TILES][INPUTS];
        transform_inputs(s, (const float *)s->input + s->from[first], inputs);
        for (int output = 0; output < OUTPUTS; output += 2 * LANES) {
            floats sums[16][TILES][2];
            for (int point = 0; point < 16; point++)
                multiply(inputs[point], s->weights + point * INPUTS * OUTPUTS + output, sums[point]);
            for (int tile = 0; tile < TILES; tile++)
                for (int j = 0; j < 2; j++)
                    fire_tile(s, sums, tile, j, output + j * LANES, s->output + s->to[first]);
        }
    }
}

/* An image as it is evaluated (spiking.prepare): cropped and standardised. input: where its first pixel goes. */
static void prepare(const Stage *s, const uint8_t *image, float *input) {
    const float pixels = CROP * CROP * CHANNELS;
    int sum = 0, squares = 0;
    image += (IMAGE + 1) * ((IMAGE - CROP) / 2) * CHANNELS;
    for (int row = 0; row < CROP; row++)
        for (int i = 0; i < CROP * CHANNELS; i++) {
            int pixel = image[row * IMAGE * CHANNELS + i];
            sum += pixel;
            squares += pixel * pixel;
        }
    float mean = sum / pixels, variance = squares / pixels - mean * mean;
    float deviation = sqrtf(variance > 1 / pixels ? variance : 1 / pixels);
    for (int row = 0; row < CROP; row++)
        for (int i = 0; i < CROP * CHANNELS; i++)
            input[row * s->input_row + i] = (image[row * IMAGE * CHANNELS + i] - mean) / deviation;
}

/* Logits of an image: the weights of cnn11's neurons that spike, added up. */
static void classify(const Network *network, const uint64_t *spikes, float *logits) {
    float sums[PADDED_CLASSES] = {0};
    for (int word = 0; word < FEATURES / 64; word++)
        for (uint64_t left = spikes[word]; left; left &= left - 1) {
            const float *weights = network->classes + (word * 64 + __builtin_ctzll(left)) * PADDED_CLASSES;
            for (int i = 0; i < PADDED_CLASSES; i++)
                sums[i] += weights[i];
        }
    for (int i = 0; i < CLASSES; i++)
        logits[i] = sums[i] * network->scale[i] + network->offset[i];
}

/* Spikes of an image in a map; bytes: a multiple of 8. */
static int count(const uint8_t *map, int bytes) {
    int spikes = 0;
    for (int i = 0; i < bytes; i += 8) {
        uint64_t eight;
        memcpy(&eight, map + i, sizeof eight);
        spikes += __builtin_popcountll(eight);
    }
    return spikes;
}

static void run_stage(Stage *stages, int i, int images) {
    double started = omp_get_wtime();
    if (i == 0)
        relu_stage(stages, images);
    else if (i == 1)
        spike_stage(stages + 1, images);
    else if (stages[i].minus)
        hidden(stages + i, images, 1);
    else
        hidden(stages + i, images, 0);
    stages[i].seconds += omp_get_wtime() - started;
}

/* Run this number of images, [image][row][column][channel]; without them, on the input spikes that are in their map.
   logits: [image][class]. spikes: [image][map]. */
void run(Network *network, const uint8_t *images, int number, float *logits, double *spikes) {
    Stage *stages = network->stages;
    if (images)
        for (int i = 0; i < number; i++)
            prepare(stages, images + (ptrdiff_t)i * IMAGE * IMAGE * CHANNELS,
                    (float *)stages->input + stages->from[i * stages->positions] + stages->input_row + CHANNELS);
    for (int i = images ? 0 : 2; i < STAGES; i++)
        run_stage(stages, i, number);
#pragma omp parallel for schedule(static)
    for (int i = 0; i < number; i++) {
        classify(network, (const uint64_t *)stages[STAGES - 1].output + i * (FEATURES / 64), logits + i * CLASSES);
        for (int map = 0; map < MAPS; map++)
            spikes[i * MAPS + map] = count(network->maps[map] + (ptrdiff_t)i * network->bytes[map], network->bytes[map]);
    }
}

void set_threads(int threads) { omp_set_num_threads(threads); }
int get_threads(void) { return omp_get_max_threads(); }
