/* The float stages, the classifier, and what makes an image ready for them. */

#ifdef __AVX512F__
enum { ACROSS = 12 }; /* positions whose sums registers hold, two vectors each */
#else
enum { ACROSS = 6 };
#endif
enum { TILES = 12, INPUTS = 32, OUTPUTS = 64, TOGETHER = 16 }; /* of the second stage: tiles of a row, channels,
   filters, and how many filters' weights lie together */

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

static void relu_stage(const Stage *s, int begin, int end) {
#pragma omp parallel for schedule(static)
    for (int first = begin; first < end; first += ACROSS)
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
static void multiply(const Stage *s, const float (*inputs)[INPUTS], int point, int output, floats (*sums)[2]) {
    const float *weights[2];
    for (int j = 0; j < 2; j++, output += LANES)
        weights[j] = s->weights + (output / TOGETHER * 16 + point) * INPUTS * TOGETHER + output % TOGETHER;
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
static void spike_stage(const Stage *s, int begin, int end) {
#pragma omp parallel for schedule(static)
    for (int first = begin; first < end; first += 4 * TILES) {
        float inputs[16][TILES][INPUTS];
        transform_inputs(s, (const float *)s->input + s->from[first], inputs);
        for (int output = 0; output < OUTPUTS; output += 2 * LANES) {
            floats sums[16][TILES][2];
            for (int point = 0; point < 16; point++)
                multiply(s, inputs[point], point, output, sums[point]);
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
