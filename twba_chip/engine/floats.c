#include "floats.h"

#include <math.h>

#include "vectors.h"

enum { ACROSS = LANES == 16 ? 12 : 6 }; /* positions whose sums fit into registers, two vectors each */
enum { FILTERS = 32 };                  /* each stage has a multiple of them, and so of two vectors */

/* Writes the outputs of LANES filters at a position: spikes, or ReLU's values. */
static inline void put(const Stage *s, int position, int filter, floats value, int fires) {
    uint8_t *y = s->output + s->geometry.output_starts[position];
    if (fires) {
        uint16_t bits = not_negative(value);
        memcpy(y + filter / 8, &bits, LANES / 8);
    } else {
        value = (floats)((masks)value & (value > 0));
        memcpy(y + filter * sizeof(float), &value, sizeof value);
    }
}

/* A stage's outputs at ACROSS positions x 2 LANES filters. If fewer positions are left, the last one is repeated. */
static void compute_block(const Stage *s, const int *positions, int filter, int fires) {
    const Geometry *g = &s->geometry;
    floats sums[ACROSS][2] = {0};
    const float *x[ACROSS], *weights = s->floats.weights + filter;
    for (int i = 0; i < ACROSS; i++)
        x[i] = (const float *)s->input + g->input_starts[positions[i]];
    for (int row = 0; row < g->kernel; row++)
        for (int k = row * g->input_row; k < row * g->input_row + g->kernel * g->channels; k++, weights += g->filters) {
            floats both[2] = {load_floats(weights), load_floats(weights + LANES)};
#pragma GCC unroll 12
            for (int i = 0; i < ACROSS; i++)
                for (int j = 0; j < 2; j++)
                    sums[i][j] += x[i][k] * both[j];
        }
    for (int j = 0; j < 2; j++) {
        int at = filter + j * LANES;
        floats scale = load_floats(s->floats.scale + at), offset = load_floats(s->floats.offset + at);
        for (int i = 0; i < ACROSS; i++)
            put(s, positions[i], at, sums[i][j] * scale + offset, fires);
    }
}

/* Any stage, for images [first, last). */
static void compute(const Stage *s, int first, int last, int fires) {
    const Geometry *g = &s->geometry;
    int end = last * g->positions;
#pragma omp parallel for schedule(static)
    for (int position = first * g->positions; position < end; position += ACROSS) {
        int positions[ACROSS];
        for (int i = 0; i < ACROSS; i++)
            positions[i] = position + i < end ? position + i : end - 1;
        for (int filter = 0; filter < g->filters; filter += 2 * LANES)
            compute_block(s, positions, filter, fires);
    }
}

/* The paper's second stage by Winograd's F(4x4, 3x3) (Lavin and Gray, 2016): a tile of 6x6 inputs gives 4x4 outputs by 36 products
   instead of 144. Its points are 0, A, -A, B, -B and infinity. With 3/4 and 3/2 the root mean square of its errors is twice
   that of the direct sums; with the usual 1 and 2 it is three and a half times as large. */

enum { KERNEL = 3, SIZE = 24, INPUTS = 32, OUTPUTS = 64 }; /* of the stage */
enum { TILE = 4, EDGE = TILE + 2, POINTS = EDGE * EDGE, TILES = SIZE / TILE };
enum { VECTORS = LANES == 16 ? 4 : 2 }; /* of outputs whose sums over a row of tiles fit into registers */
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

/* Transforms a row's tiles of inputs in both directions. */
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

/* Multiplies at one point of the tiles: [tile][input] times [input][VECTORS of outputs]. weights: of the point, from the first
   output on. */
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

/* Computes a tile's 4x4 outputs of LANES filters and writes their spikes. y: the first position of the tiles' first row. */
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
static void compute_by_winograd(const Stage *s, int first, int last) {
    const Geometry *g = &s->geometry;
#pragma omp parallel for schedule(static)
    for (int position = first * g->positions; position < last * g->positions; position += TILE * SIZE) {
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

void float_stage(const Stage *s, int first, int last, int fires) {
    if (s->floats.winograd)
        compute_by_winograd(s, first, last);
    else
        compute(s, first, last, fires);
}

void standardise(const Network *network, const uint8_t *image, int i) {
    const Geometry *g = &network->stages->geometry;
    int channels = network->channels, picture_row = network->picture_size * channels, row_length = network->image_size * channels;
    /* the first position's patch begins with the zeros around the image */
    float *input = (float *)network->stages->input + g->input_starts[i * g->positions];
    input += network->image_margin * (g->input_row + channels);
    image += (network->picture_size - network->image_size) / 2 * (ptrdiff_t)(picture_row + channels);
    int64_t pixels = (int64_t)network->image_size * row_length;
    int64_t sum = 0, squares = 0;
    for (int row = 0; row < network->image_size; row++)
        for (int k = 0; k < row_length; k++) {
            int pixel = image[(ptrdiff_t)row * picture_row + k];
            sum += pixel;
            squares += pixel * pixel;
        }
    /* in float32 the difference of the two large squares would lose a low contrast */
    double exact = (double)sum / pixels, variance = (double)squares / pixels - exact * exact;
    float mean = exact, deviation = sqrt(variance > 1.0 / pixels ? variance : 1.0 / pixels);
    for (int row = 0; row < network->image_size; row++)
        for (int k = 0; k < row_length; k++)
            input[row * g->input_row + k] = (image[(ptrdiff_t)row * picture_row + k] - mean) / deviation;
}

enum { CLASS_BLOCK = 16 }; /* classes whose sums fit into registers */

/* Sums the weights of the neurons that spike. */
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

/* channels, row: channels and floats per row of the stage's input. */
static const char *check_float_stage(const Stage *s, int64_t channels, int64_t row, int fires) {
    const Geometry *g = &s->geometry;
    if (g->groups != 1 || g->channels != channels || g->input_row != row)
        return "a float stage has groups, or does not match its input map";
    if (g->filters < 1 || g->filters % FILTERS || g->output_position != (fires ? g->filters / 8 : 4 * (int64_t)g->filters))
        return "floats.c does not support a float stage's number of filters, or the packing of its outputs";
    int64_t points = s->floats.winograd ? POINTS : (int64_t)g->kernel * g->kernel;
    if (g->kernel < 1 || s->floats.number != points * channels * g->filters)
        return "floats.c does not support the packing of a float stage's weights";
    if (s->floats.winograd && !(fires && channels == INPUTS && g->filters == OUTPUTS && g->kernel == KERNEL && g->size == SIZE &&
                                row == (SIZE + KERNEL - 1) * INPUTS))
        return "a float stage set to Winograd's algorithm does not have the form of the paper's second one";
    return NULL;
}

const char *check_float_stages(const Network *network) {
    const char *mistake = NULL;
    int64_t channels = network->channels, row = (network->image_size + 2 * (int64_t)network->image_margin) * channels;
    const Stage *hidden = network->stages + network->float_stages;
    for (const Stage *s = network->stages; s < hidden && !mistake; s++) {
        mistake = check_float_stage(s, channels, row, s + 1 == hidden);
        channels = s->geometry.filters;
        row = s->geometry.output_row / sizeof(float);
    }
    return mistake;
}

const char *check_classifier(const Classifier *classifier, const Stage *last) {
    const Geometry *g = &last->geometry;
    if (classifier->features % 64 || classifier->features != 8 * (int64_t)g->output_image)
        return "the classifier's features do not match the neurons of the last stage";
    if (classifier->classes < 1 || classifier->padded_classes != (classifier->classes + CLASS_BLOCK - 1) / CLASS_BLOCK * CLASS_BLOCK)
        return "the classifier has no classes, or floats.c does not support the padding of their weights";
    return NULL;
}
