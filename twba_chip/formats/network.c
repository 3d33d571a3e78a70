/* The forward pass of an exported network in C99. It allocates nothing and calls no library.

   A map of spikes is bits, [row][column][reader][word]. A reader is a group of the stage that reads the map. Its bit i is
   channel reader + i * readers, so the channels of a group are adjacent. Only the last few rows of a float map are kept.

   To see the spikes, define AFTER_STAGE(s), a statement: it runs when spikes[s % 2] is the map that hidden stage s reads, and at
   the end the classifier. */

#include <limits.h>

#if INT_MAX < 0x7fffffff
#error "an int must have 32 bits"
#endif

#ifdef __clang__
#pragma STDC FP_CONTRACT OFF /* a product and a sum are rounded separately, as by gcc with -std=c99 */
#endif

#ifndef AFTER_STAGE
#define AFTER_STAGE(s) (void)0
#endif

static float float_rows[FLOAT_ROWS];     /* the rows that each float stage reads */
static uint32_t spikes[2][SPIKE_WORDS];  /* the maps before and after a hidden stage */
static uint32_t seen[SEEN_WORDS];        /* the patch of a hidden group at one position */
static const uint8_t *crop;              /* the image's first pixel within the crop */
static float pixel_mean, pixel_deviation;

static int ones(uint32_t x) {
    x -= x >> 1 & 0x55555555u;
    x = (x & 0x33333333u) + (x >> 2 & 0x33333333u);
    x = (x + (x >> 4)) & 0x0f0f0f0fu;
    return (int)(x * 0x01010101u >> 24);
}

/* Newton's method from above: it ends when the root no longer falls. */
static float square_root(float x) {
    float root = x > 1 ? x : 1, next = (root + x / root) / 2;
    while (next < root) {
        root = next;
        next = (root + x / root) / 2;
    }
    return root;
}

/* Mean and standard deviation of the crop's pixels. The sums are exact. */
static void measure(void) {
    const float pixels = CROP * CROP * CHANNELS, least = 1 / pixels;
    uint32_t sum = 0;
    uint64_t squares = 0;
    for (int row = 0; row < CROP; row++)
        for (int k = 0; k < CROP * CHANNELS; k++) {
            uint32_t pixel = crop[row * IMAGE * CHANNELS + k];
            sum += pixel;
            squares += pixel * pixel;
        }
    uint64_t spread = squares * (CROP * CROP * CHANNELS) - (uint64_t)sum * sum; /* pixels^2 times the variance */
    float variance = (float)spread / (pixels * pixels);
    pixel_mean = (float)sum / pixels;
    pixel_deviation = square_root(variance > least ? variance : least);
}

static void fire(const HiddenStage *reader, uint32_t *map, int row, int column, int channel) {
    int bit = channel / reader->groups;
    uint32_t *words = map + ((row * reader->size + column) * reader->groups + channel % reader->groups) * reader->words;
    words[bit / 32] |= (uint32_t)1 << bit % 32;
}

/* Row `row` of the map that float stage s reads, among the kept rows. */
static float *kept_row(int s, int row) {
    const FloatStage *stage = float_stages + s;
    return float_rows + stage->first_row + row % stage->kernel * stage->size * stage->channels;
}

static float float_sum(int s, int row, int column, int filter) {
    const FloatStage *stage = float_stages + s;
    float sum = 0;
    for (int y = 0; y < stage->kernel; y++) {
        int from_row = row * stage->stride + y - stage->margin;
        if (from_row < 0 || from_row >= stage->size)
            continue;
        for (int x = 0; x < stage->kernel; x++) {
            int from_column = column * stage->stride + x - stage->margin;
            if (from_column < 0 || from_column >= stage->size)
                continue;
            const float *inputs = kept_row(s, from_row) + from_column * stage->channels;
            const float *weights = stage->weights + (y * stage->kernel + x) * stage->channels * stage->filters + filter;
            for (int c = 0; c < stage->channels; c++)
                sum += inputs[c] * weights[c * stage->filters];
        }
    }
    return sum * stage->scale[filter] + stage->offset[filter];
}

/* Computes row `row` of the map that float stage s reads: float stage s - 1's output, or the image for s = 0. */
static void make_row(int s, int row) {
    float *out = kept_row(s, row);
    if (s == 0) {
        for (int k = 0; k < CROP * CHANNELS; k++)
            out[k] = (crop[row * IMAGE * CHANNELS + k] - pixel_mean) / pixel_deviation;
        return;
    }
    const FloatStage *stage = float_stages + s - 1;
    for (int column = 0; column < stage->output_size; column++)
        for (int filter = 0; filter < stage->filters; filter++) {
            float sum = float_sum(s - 1, row, column, filter);
            *out++ = sum > 0 ? sum : 0;
        }
}

/* Computes all rows up to `row` of the map that float stage s reads. Each row is computed once, from rows that are still kept. */
static void make_rows(int s, int row, int *made) {
    for (; made[s] <= row; made[s]++) {
        if (s > 0) {
            const FloatStage *before = float_stages + s - 1;
            int last = made[s] * before->stride - before->margin + before->kernel - 1;
            make_rows(s - 1, last < before->size ? last : before->size - 1, made);
        }
        make_row(s, made[s]);
    }
}

/* Computes the image's input spikes. */
static void encode(uint32_t *map) {
    const int s = FLOAT_STAGES - 1;
    const FloatStage *stage = float_stages + s;
    int made[FLOAT_STAGES] = {0};
    for (int row = 0; row < stage->output_size; row++) {
        int last = row * stage->stride - stage->margin + stage->kernel - 1;
        make_rows(s, last < stage->size ? last : stage->size - 1, made);
        for (int column = 0; column < stage->output_size; column++)
            for (int filter = 0; filter < stage->filters; filter++)
                if (float_sum(s, row, column, filter) >= 0)
                    fire(hidden_stages, map, row, column, filter);
    }
}

/* Copies the patch of group `group` at a position, [row][column][word]. Returns the number of its spikes. */
static int look(const HiddenStage *stage, const uint32_t *map, int row, int column, int group) {
    uint32_t *word = seen;
    int count = 0;
    for (int y = 0; y < stage->kernel; y++)
        for (int x = 0; x < stage->kernel; x++) {
            int from_row = row * stage->stride + y - stage->margin, from_column = column * stage->stride + x - stage->margin;
            int inside = from_row >= 0 && from_row < stage->size && from_column >= 0 && from_column < stage->size;
            int place = inside ? ((from_row * stage->size + from_column) * stage->groups + group) * stage->words : 0;
            for (int i = 0; i < stage->words; i++) {
                *word = inside ? map[place + i] : 0;
                count += ones(*word++);
            }
        }
    return count;
}

/* A neuron's potential: the sum of the weights of the synapses with a spike. count: of the patch's spikes. */
static int potential(const HiddenStage *stage, const uint32_t *weights, int count) {
    int words = stage->kernel * stage->kernel * stage->words, plus = 0, minus = 0;
    for (int i = 0; i < words; i++)
        plus += ones(seen[i] & weights[i]);
    if (BINARY)
        return 2 * plus - count;
    for (int i = 0; i < words; i++)
        minus += ones(seen[i] & weights[words + i]);
    return plus - minus;
}

static void hidden(const HiddenStage *stage, const uint32_t *before, uint32_t *after) {
    int words = stage->kernel * stage->kernel * stage->words * (BINARY ? 1 : 2);
    for (int row = 0; row < stage->output_size; row++)
        for (int column = 0; column < stage->output_size; column++)
            for (int group = 0; group < stage->groups; group++) {
                int count = look(stage, before, row, column, group);
                for (int filter = 0; filter < stage->filters; filter++) {
                    int neuron = group * stage->filters + filter;
                    if (potential(stage, stage->weights + neuron * words, count) >= stage->thresholds[neuron])
                        fire(stage + 1, after, row, column, neuron);
                }
            }
}

static void clear(uint32_t *map) {
    for (int i = 0; i < SPIKE_WORDS; i++)
        map[i] = 0;
}

/* Sums the classifier's weights of the neurons that spike. Returns the class of the largest logit. */
static int classify(const uint32_t *map, float *logits) {
    const HiddenStage *end = hidden_stages + HIDDEN_STAGES;
    int best = 0;
    for (int k = 0; k < CLASSES; k++) {
        float sum = 0;
        for (int place = 0; place < end->size * end->size; place++)
            for (int channel = 0; channel < LAST_CHANNELS; channel++)
                if (map[place * end->words + channel / 32] >> channel % 32 & 1)
                    sum += classifier_weights[(place * LAST_CHANNELS + channel) * CLASSES + k];
        logits[k] = sum * classifier_scale[k] + classifier_offset[k];
        best = logits[k] > logits[best] ? k : best;
    }
    return best;
}

int NAME_classify(const uint8_t image[IMAGE * IMAGE * CHANNELS], float logits[CLASSES]) {
    const int margin = (IMAGE - CROP) / 2;
    crop = image + (margin * IMAGE + margin) * CHANNELS;
    measure();
    clear(spikes[0]);
    encode(spikes[0]);
    AFTER_STAGE(0);
    for (int s = 0; s < HIDDEN_STAGES; s++) {
        clear(spikes[(s + 1) % 2]);
        hidden(hidden_stages + s, spikes[s % 2], spikes[(s + 1) % 2]);
        AFTER_STAGE(s + 1);
    }
    return classify(spikes[HIDDEN_STAGES % 2], logits);
}
