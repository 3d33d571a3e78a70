/* The exported network on a CPU. __init__.py calls these functions. */
#include "floats.h"
#include "openmp.h"
#include "planes.h"
#include "vectors.h"
#include "words.h"

static const char *check_hidden_stage(const Stage *s) {
    const Geometry *g = &s->geometry, *before = &s[-1].geometry;
    if (g->groups < 1 || g->groups * g->channels * 32 != before->groups * before->filters)
        return "a hidden stage reads another number of channels than the stage before gives";
    const char *mistake = check_words(s);
    mistake = mistake ? mistake : check_planes(s);
    return mistake ? mistake : check_map(s);
}

/* What is wrong with a size that Python knows too, or NULL. */
static const char *check(const Network *network, int number) {
    if (network->network_bytes != sizeof(Network) || network->stages_bytes != network->number_of_stages * (int64_t)sizeof(Stage))
        return "the structs have other sizes in Python than in network.h";
    if (network->image_bytes != IMAGE * IMAGE * CHANNELS)
        return "images have another size than floats.c reads";
    if (network->chunk != IMAGES || number < 1 || number > IMAGES || network->part < 1 || network->part > IMAGES)
        return "a call has no images, or more than a plane";
    if (network->number_of_stages <= FLOAT_STAGES)
        return "there is no hidden stage";
    const Stage *stages = network->stages, *last = stages + network->number_of_stages - 1;
    const char *mistake = check_float_stages(stages);
    mistake = mistake ? mistake : check_map(stages + 1);
    for (const Stage *s = stages + FLOAT_STAGES; s <= last && !mistake; s++)
        mistake = check_hidden_stage(s);
    return mistake ? mistake : check_classifier(&network->classifier, last);
}

/* Adds the time since `started` to a stage's; returns what the clock says now. */
static double add_time(Stage *s, double started) {
    double now = omp_get_wtime();
    s->seconds += now - started;
    return now;
}

/* Images [first, last) to the input spikes. */
static void encode(Stage *stages, const uint8_t *images, int first, int last) {
    for (int i = first; i < last; i++)
        standardise(stages, images + (ptrdiff_t)i * IMAGE * IMAGE * CHANNELS, i);
    double time = omp_get_wtime();
    relu_stage(stages, first, last);
    time = add_time(stages, time);
    spike_stage(stages + 1, first, last);
    add_time(stages + 1, time);
}

/* The input spikes of images [first, last) through all hidden stages. */
static void hidden_stages_by_words(Network *network, int first, int last) {
    double time = omp_get_wtime();
    for (Stage *s = network->stages + FLOAT_STAGES; s < network->stages + network->number_of_stages; s++) {
        hidden_by_words(s, first, last);
        time = add_time(s, time);
    }
}

/* The same for all images of the chunk. The last map comes back from planes, for the classifier; the others where they are
   wanted. */
static void hidden_stages_by_planes(Network *network, int unpacked) {
    Stage *input = network->stages + 1, *last = network->stages + network->number_of_stages - 1;
    to_planes(input->output, input->geometry.output_image, input->planes.output);
    double time = omp_get_wtime();
    for (Stage *s = input + 1; s <= last; s++) {
        hidden_by_planes(s);
        time = add_time(s, time);
    }
    for (Stage *s = unpacked ? input + 1 : last; s <= last; s++)
        from_planes(s->planes.output, s->geometry.output_image, s->output);
}

/* Spikes of the stages' output maps but the last, whose spikes the classifier reads. spikes: [image][map]. */
static void count_spikes(const Network *network, int number, int by_planes, double *spikes) {
    int maps = network->number_of_stages - FLOAT_STAGES;
#pragma omp parallel for schedule(dynamic)
    for (int map = 0; map < maps; map++) {
        const Stage *s = network->stages + 1 + map;
        int bytes = s->geometry.output_image;
        if (by_planes)
            count_by_planes(s->planes.output, bytes, number, spikes + map, maps);
        else
            for (int i = 0; i < number; i++)
                spikes[i * maps + map] = count_by_words(s->output + (ptrdiff_t)i * bytes, bytes);
    }
}

/* A forward pass of a chunk of images, [image][row][column][channel]; without them, of the input spikes that are in their
   map. logits: [image][class]. spikes: [image][map]. unpacked: whether all maps of spikes are wanted, not the last alone, where
   words.c has them. Returns NULL, or, where nothing was computed, why. */
const char *forward(Network *network, const uint8_t *images, int number, int unpacked, float *logits, double *spikes) {
    const char *mistake = check(network, number);
    if (mistake)
        return mistake;
    int by_planes = number >= network->many;
    for (int first = 0; first < number; first += network->part) {
        int last = first + network->part < number ? first + network->part : number;
        if (images)
            encode(network->stages, images, first, last);
        if (!by_planes)
            hidden_stages_by_words(network, first, last);
    }
    if (by_planes)
        hidden_stages_by_planes(network, unpacked);
    const Classifier *classifier = &network->classifier;
    const uint64_t *features = (const uint64_t *)network->stages[network->number_of_stages - 1].output;
#pragma omp parallel for schedule(static)
    for (int i = 0; i < number; i++)
        classify(classifier, features + i * (classifier->features / 64), logits + i * classifier->classes);
    count_spikes(network, number, by_planes, spikes);
    return NULL;
}

void set_threads(int threads) { omp_set_num_threads(threads); }
int get_threads(void) { return omp_get_max_threads(); }
