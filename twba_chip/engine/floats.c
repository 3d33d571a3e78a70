#include "floats.h"

#include <math.h>

#include "vectors.h"

enum { ACROSS = LANES == 16 ? 12 : 6 }; /* positions whose sums registers hold, two vectors each */
enum { KERNEL = 3, INPUTS = 32, OUTPUTS = 64 }; /* of the second stage, which the first one's outputs are INPUTS of */

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

/* The second stage by Winograd's F(4x4, 3x3) (Lavin and Gray, 2016): a tile of 6x6 inputs gives 4x4 outputs by 36 products,
   where 144 are usual. Its points are 0, A, -A, B, -B and infinity: with 3/4 and 3/2 the root mean square of its errors is twice
   that of the usual sums, with the usual 1 and 2 it is three and a half times as large. */

enum { TILE = 4, EDGE = TILE + 2, POINTS = EDGE * EDGE, TILES = CROP / TILE };
enum { VECTORS = LANES == 16 ? 4 : 2 }; /* of outputs, whose sums over a row of tiles registers hold */
static const float A = 0.75f, B = 1.5f, AA = 0.5625f, BB = 2.25f;

static inline void transform_input(const floats *x, floats *y) {
    floats even_a = x[4] - BB * x[2], odd_a = A * (x[3] - BB * x[1]);
    floats even_b = x[4] - AA * x[2], odd_b = B * (x[3] - AA * x[1]);
    y[0] = even_b - BB * (x[2] - AA * x[0]);
    y[1] = even_a + odd_a;
    y[2] = even_a - odd_a;
    y[3] = even_b + odd_b;
    y[4] = even_b - odd_b;
    y[5] = x[5] - (AA + BB) * x[3] + AA * BB * x[1];
}

static inline void transform_output(const floats *x, floats *y) {
    floats even_a = x[1] + x[2], odd_a = A * (x[1] - x[2]), even_b = x[3] + x[4], odd_b = B * (x[3] - x[4]);
    y[0] = x[0] + even_a + even_b;
    y[1] = odd_a + odd_b;
    y[2] = AA * even_a + BB * even_b;
    y[3] = x[5] + AA * odd_a + BB * odd_b;
}

/* A row's tiles of inputs, transformed in both directions, to be multiplied point by point. */
static void transform_inputs(const float *x, int row_length, float (*inputs)[TILES][INPUTS]) {
    for (int tile = 0; tile < TILES; tile++)
        for (int channel = 0; channel < INPUTS; channel += LANES) {
            floats half[EDGE][EDGE], whole[EDGE];
            for (int row = 0; row < EDGE; row++) {
                floats across[EDGE];
                for (int column = 0; column < EDGE; column++)
                    across[column] = load_floats(x + row * row_length + (TILE * tile + column) * INPUTS + channel);
                transform_input(across, half[row]);
            }
            for (int column = 0; column < EDGE; column++) {
                floats down[EDGE];
                for (int row = 0; row < EDGE; row++)
                    down[row] = half[row][column];
                transform_input(down, whole);
                for (int row = 0; row < EDGE; row++)
                    memcpy(&inputs[EDGE * row + column][tile][channel], whole + row, sizeof *whole);
            }
        }
}

/* One point of the tiles: [tile][input] times [input][VECTORS of outputs]. weights: the point's, from the first output on. */
static void multiply(const float *weights, const float (*inputs)[INPUTS], floats (*sums)[VECTORS]) {
    floats block[TILES][VECTORS] = {0};
    for (int k = 0; k < INPUTS; k++, weights += OUTPUTS) {
        floats row[VECTORS];
        for (int j = 0; j < VECTORS; j++)
            row[j] = load_floats(weights + j * LANES);
#pragma GCC unroll 6
        for (int i = 0; i < TILES; i++)
            for (int j = 0; j < VECTORS; j++)
                block[i][j] += inputs[i][k] * row[j];
    }
    memcpy(sums, block, sizeof block);
}

/* A tile's 4x4 outputs of LANES filters, and which of them spike. y: the first row's first position. */
static void fire_tile(const Stage *s, floats (*sums)[TILES][VECTORS], int tile, int j, int output, uint8_t *y) {
    const Geometry *g = &s->geometry;
    floats half[EDGE][TILE], whole[TILE];
    floats scale = load_floats(s->floats.scale + output), offset = load_floats(s->floats.offset + output);
    for (int row = 0; row < EDGE; row++) {
        floats across[EDGE];
        for (int column = 0; column < EDGE; column++)
            across[column] = sums[EDGE * row + column][tile][j];
        transform_output(across, half[row]);
    }
    for (int column = 0; column < TILE; column++) {
        floats down[EDGE];
        for (int row = 0; row < EDGE; row++)
            down[row] = half[row][column];
        transform_output(down, whole);
        for (int row = 0; row < TILE; row++) {
            uint16_t bits = not_negative(whole[row] * scale + offset);
            memcpy(y + row * g->output_row + (TILE * tile + column) * g->output_position + output / 8, &bits, LANES / 8);
        }
    }
}

/* A step is a row of tiles: four rows of outputs. */
void spike_stage(const Stage *s, int first, int last) {
    const Geometry *g = &s->geometry;
#pragma omp parallel for schedule(static)
    for (int position = first * g->positions; position < last * g->positions; position += TILE * CROP) {
        float inputs[POINTS][TILES][INPUTS];
        transform_inputs((const float *)s->input + g->input_starts[position], g->input_row, inputs);
        for (int output = 0; output < OUTPUTS; output += VECTORS * LANES) {
            floats sums[POINTS][TILES][VECTORS];
            for (int point = 0; point < POINTS; point++)
                multiply(s->floats.weights + point * INPUTS * OUTPUTS + output, inputs[point], sums[point]);
            for (int tile = 0; tile < TILES; tile++)
                for (int j = 0; j < VECTORS; j++)
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

enum { CLASS_BLOCK = 16 }; /* classes whose sums registers hold */

/* Adds up the weights of the neurons that spike. */
void classify(const Classifier *classifier, const uint64_t *spikes, float *logits) {
    for (int first = 0; first < classifier->classes; first += CLASS_BLOCK) {
        float sums[CLASS_BLOCK] = {0};
        for (int word = 0; word < classifier->features / 64; word++)
            for (uint64_t left = spikes[word]; left; left &= left - 1) {
                ptrdiff_t feature = word * 64 + __builtin_ctzll(left);
                const float *weights = classifier->weights + feature * classifier->padded_classes + first;
                for (int i = 0; i < CLASS_BLOCK; i++)
                    sums[i] += weights[i];
            }
        for (int i = 0; i < CLASS_BLOCK && first + i < classifier->classes; i++)
            logits[first + i] = sums[i] * classifier->scale[first + i] + classifier->offset[first + i];
    }
}

static const char *check_float_stage(const Stage *s, int channels, int filters, int weights, int position_bytes) {
    const Geometry *g = &s->geometry;
    if (g->groups != 1 || g->kernel != KERNEL || g->channels != channels || g->filters != filters)
        return "a float stage has other groups, channels or filters, or another kernel, than floats.c is written for";
    if (g->positions != CROP * CROP || g->input_row != (CROP + KERNEL - 1) * channels)
        return "a float stage's map has another size than floats.c is written for";
    if (s->floats.number != weights || g->output_position != position_bytes)
        return "a float stage's weights or outputs are packed otherwise than floats.c reads them";
    return NULL;
}

const char *check_float_stages(const Stage *stages) {
    if (stages[0].geometry.output_row != 4 * stages[1].geometry.input_row)
        return "the first stage writes other rows than the second one reads";
    const char *mistake = check_float_stage(stages, CHANNELS, INPUTS, KERNEL * KERNEL * CHANNELS * INPUTS, 4 * INPUTS);
    return mistake ? mistake : check_float_stage(stages + 1, INPUTS, OUTPUTS, POINTS * INPUTS * OUTPUTS, OUTPUTS / 8);
}

const char *check_classifier(const Classifier *classifier, const Stage *last) {
    const Geometry *g = &last->geometry;
    if (classifier->features % 64 || classifier->features != 8 * g->output_image)
        return "the classifier reads another number of spikes than the last stage gives";
    if (classifier->classes < 1 || classifier->padded_classes != (classifier->classes + CLASS_BLOCK - 1) / CLASS_BLOCK * CLASS_BLOCK)
        return "the classifier has no classes, or their weights are padded otherwise than floats.c reads them";
    return NULL;
}
