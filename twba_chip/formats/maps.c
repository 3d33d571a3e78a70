/* A network that exposes its spikes: after NAME_classify, maps holds a byte per neuron, the input spikes first, each map
   [row][column][channel]. */

static void keep(int s);
#define AFTER_STAGE(s) keep(s)
#include "NAME.c"

uint8_t image[IMAGE * IMAGE * CHANNELS];
uint8_t maps[(HIDDEN_STAGES + 1) * SPIKE_WORDS * 32]; /* they end at maps_end */
float logits[CLASSES];
static uint8_t *maps_end;

static void keep(int s) {
    const HiddenStage *reader = hidden_stages + s;
    int channels = s == 0 ? float_stages[FLOAT_STAGES - 1].filters : reader[-1].groups * reader[-1].filters;
    if (s == 0)
        maps_end = maps;
    for (int place = 0; place < reader->size * reader->size; place++)
        for (int channel = 0; channel < channels; channel++) {
            const uint32_t *words = spikes[s % 2] + (place * reader->groups + channel % reader->groups) * reader->words;
            int bit = channel / reader->groups;
            *maps_end++ = words[bit / 32] >> bit % 32 & 1;
        }
}
