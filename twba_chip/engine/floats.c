#include "floats.h"

#include <math.h>

#include "vectors.h"

enum { ACROSS = LANES == 16 ? 12 : 6 }; /* positions whose sums registers hold, two vectors each */

/* What the first stage computes at ACROSS positions of a row x 2 LANES filters. */
static void relu_block(const Stage *s, int first, int filter) {
    const Geometry *g = &s->geometry;
    floats sums[ACROSS][2] = {0};
    const float *x = (const float *)s->input + g->input_starts[first], *weights = s->floats.weights + filter;
    for (int row = 0; row < g->kernel; row++)
        for (int k = 0; k < g->kernel * g->channels; k++, weights += g->filters) {
            const float *at = x + row * g->input_row + k;
            floats both[2] = {load_floats(weights), load_floats(weights + LANES)};
#pragma GCC unroll 12
            for (int i = 0; i < ACROSS; i++)
                for (int j = 0; j < 2; j++)
                    sums[i][j] += at[i * g->channels] * both[j];
        }
    for (int i = 0; i < ACROSS; i++)
        for (int j = 0; j < 2; j++) {
            int at = filter + j * LANES;
            floats value = sums[i][j] * load_floats(s->floats.scale + at) + load_floats(s->floats.offset + at);
            value = (floats)((masks)value & (value > 0));
            memcpy(s->output + g->output_starts[first + i] + at * sizeof(float), &value, sizeof value);
        }
}

void relu_stage(const Stage *s, int first, int last) {
    const Geometry *g = &s->geometry;
#pragma omp parallel for schedule(static)
    for (int position = first * g->positions; position < last * g->positions; position += ACROSS)
        for (int filter = 0; filter < g->filters; filter += 2 * LANES)
            relu_block(s, position, filter);
}

/* The second stage by Winograd's F(2x2, 3x3) (Lavin and Gray, 2016): a tile of 4x4 inputs gives 2x2 outputs by 16 products,
   where 36 are usual. Its constants are 1 and 1/2, so it rounds about as the usual sums do. */

enum { TILES = CROP / 2, POINTS = 16, INPUTS = 32, OUTPUTS = 64 }; /* tiles of a row, products of a tile, channels, filters */
enum { TOGETHER = 16 };                                            /* filters whose weights lie together */

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
static void transform_inputs(const float *x, int row_length, float (*inputs)[TILES][INPUTS]) {
    for (int tile = 0; tile < TILES; tile++)
        for (int channel = 0; channel < INPUTS; channel += LANES) {
            floats half[4][4], whole[4];
            for (int row = 0; row < 4; row++) {
                floats across[4];
                for (int column = 0; column < 4; column++)
                    across[column] = load_floats(x + row * row_length + (2 * tile + column) * INPUTS + channel);
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

/* One point of the tiles: [tile][input] times [input][two vectors of outputs]. */
static void multiply(const float *all_weights, const float (*inputs)[INPUTS], int point, int output, floats (*sums)[2]) {
    const float *weights[2];
    for (int j = 0; j < 2; j++, output += LANES)
        weights[j] = all_weights + (output / TOGETHER * POINTS + point) * INPUTS * TOGETHER + output % TOGETHER;
    for (int first = 0; first < TILES; first += ACROSS) {
        floats block[ACROSS][2] = {0};
        for (int k = 0; k < INPUTS; k++) {
            floats both[2] = {load_floats(weights[0] + k * TOGETHER), load_floats(weights[1] + k * TOGETHER)};
#pragma GCC unroll 12
            for (int i = 0; i < ACROSS; i++)
                for (int j = 0; j < 2; j++)
                    block[i][j] += inputs[first + i][k] * both[j];
        }
        memcpy(sums + first, block, sizeof block);
    }
}

/* A tile's 2x2 outputs of LANES filters, and which of them spike. y: the output row's first position. */
static void fire_tile(const Stage *s, floats (*sums)[TILES][2], int tile, int j, int output, uint8_t *y) {
    const Geometry *g = &s->geometry;
    floats half[4][2], whole[2], scale = load_floats(s->floats.scale + output), offset = load_floats(s->floats.offset + output);
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
            memcpy(y + row * g->output_row + (2 * tile + column) * g->output_position + output / 8, &bits, LANES / 8);
        }
    }
}

/* A step is a row of tiles: two rows of outputs. */
void spike_stage(const Stage *s, int first, int last) {
    const Geometry *g = &s->geometry;
#pragma omp parallel for schedule(static)
    for (int position = first * g->positions; position < last * g->positions; position += 2 * CROP) {
        float inputs[POINTS][TILES][INPUTS];
        transform_inputs((const float *)s->input + g->input_starts[position], g->input_row, inputs);
        for (int output = 0; output < OUTPUTS; output += 2 * LANES) {
            floats sums[POINTS][TILES][2];
            for (int point = 0; point < POINTS; point++)
                multiply(s->floats.weights, inputs[point], point, output, sums[point]);
            for (int tile = 0; tile < TILES; tile++)
                for (int j = 0; j < 2; j++)
                    fire_tile(s, sums, tile, j, output + j * LANES, s->output + g->output_starts[position]);
        }
    }
}

void standardise(const Stage *s, const uint8_t *image, int i) {
    const Geometry *g = &s->geometry;
    /* what the first position sees begins one row and one column before the first pixel */
    float *input = (float *)s->input + g->input_starts[i * g->positions] + g->input_row + CHANNELS;
    const float pixels = CROP * CROP * CHANNELS;
    int sum = 0, squares = 0;
    image += (IMAGE + 1) * ((IMAGE - CROP) / 2) * CHANNELS;
    for (int row = 0; row < CROP; row++)
        for (int k = 0; k < CROP * CHANNELS; k++) {
            int pixel = image[row * IMAGE * CHANNELS + k];
            sum += pixel;
            squares += pixel * pixel;
        }
    float mean = sum / pixels, variance = squares / pixels - mean * mean;
    float deviation = sqrtf(variance > 1 / pixels ? variance : 1 / pixels);
    for (int row = 0; row < CROP; row++)
        for (int k = 0; k < CROP * CHANNELS; k++)
            input[row * g->input_row + k] = (image[row * IMAGE * CHANNELS + k] - mean) / deviation;
}

/* Adds up the weights of the neurons that spike. */
void classify(const Classifier *classifier, const uint64_t *spikes, float *logits) {
    float sums[PADDED_CLASSES] = {0};
    for (int word = 0; word < classifier->features / 64; word++)
        for (uint64_t left = spikes[word]; left; left &= left - 1) {
            const float *weights = classifier->weights + (word * 64 + __builtin_ctzll(left)) * PADDED_CLASSES;
            for (int i = 0; i < PADDED_CLASSES; i++)
                sums[i] += weights[i];
        }
    for (int i = 0; i < CLASSES; i++)
        logits[i] = sums[i] * classifier->scale[i] + classifier->offset[i];
}
