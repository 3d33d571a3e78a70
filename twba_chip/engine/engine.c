/* An exported network's forward pass on a CPU. __init__.py calls these functions. */
#include "floats.h"
#include "openmp.h"
#include "planes.h"
#include "vectors.h"
#include "words.h"

/* The last float stage, whose spikes the hidden stages read. */
static Stage *encoder(const Network *network) { return network->stages + network->float_stages - 1; }

static Stage *last_stage(const Network *network) { return network->stages + network->number_of_stages - 1; }

static const char *check_images(const Network *network) {
    int64_t size = network->picture_size;
    if (size < 1 || network->channels < 1 || network->image_bytes != size * size * network->channels)
        return "an image has no pixels, or its bytes do not match its pixels";
    if (network->image_size < 1 || network->image_size > size || network->image_margin < 0)
        return "the crop of an image is empty or larger than the image";
    return NULL;
}

/* Checks a stage's output map. */
static const char *check_map(const Stage *s) {
    const Geometry *g = &s->geometry;
    if (g->size < 1 || g->margin < 0 || g->positions != (int64_t)g->size * g->size)
        return "a map has no positions, or their number does not match its rows and columns";
    int64_t rows = g->size + 2 * (int64_t)g->margin;
    if (g->output_position < 1 || g->output_row != rows * g->output_position || g->output_image != rows * g->output_row)
        return "a map is not square";
    return NULL;
}

/* Checks the output map of a stage that fires. */
static const char *check_spikes(const Stage *s) {
    const Geometry *g = &s->geometry;
    if (g->groups < 1 || g->output_position * (int64_t)8 != (int64_t)g->groups * g->filters || g->output_image % 8)
        return "a map's bits do not match its neurons, or are not a multiple of 64";
    return NULL;
}

static const char *check_hidden_stage(const Stage *s) {
    const Geometry *g = &s->geometry, *before = &s[-1].geometry;
    if (g->groups < 1 || (int64_t)g->groups * g->channels * 32 != (int64_t)before->groups * before->filters)
        return "the channels of a hidden stage do not match the filters of the stage before";
    if (g->fan_in < 1 || g->fan_in != (int64_t)g->kernel * g->kernel * g->channels)
        return "a hidden neuron has no synapses, or their number does not match its kernel";
    const char *mistake = check_words(s);
    return mistake ? mistake : check_spikes(s);
}

/* Checks all sizes that Python shares. Returns what is wrong, or NULL. */
static const char *check(const Network *network, int number) {
    if (network->network_bytes != sizeof(Network) || network->stages_bytes != network->number_of_stages * (int64_t)sizeof(Stage))
        return "the structs' sizes in Python and in network.h differ";
    if (network->chunk != IMAGES || number < 1 || number > IMAGES || network->part < 1 || network->part > IMAGES)
        return "a call has no images, or more than a plane has bits";
    if (network->float_stages < 1 || network->number_of_stages <= network->float_stages)
        return "there is no float stage, or no hidden one";
    const Stage *last = last_stage(network);
    const char *mistake = check_images(network);
    for (const Stage *s = network->stages; s <= last && !mistake; s++)
        mistake = check_map(s);
    mistake = mistake ? mistake : check_float_stages(network);
    mistake = mistake ? mistake : check_spikes(encoder(network));
    for (const Stage *s = encoder(network) + 1; s <= last && !mistake; s++)
        mistake = check_hidden_stage(s);
    if (network->many <= IMAGES && !mistake)
        mistake = check_planes(encoder(network), last);
    return mistake ? mistake : check_classifier(&network->classifier, last);
}

/* Adds the time since `started` to a stage's. Returns the time now. */
static double add_time(Stage *s, double started) {
    double now = omp_get_wtime();
    s->seconds += now - started;
    return now;
}

/* Computes the input spikes of images [first, last). */
static void encode(Network *network, const uint8_t *images, int first, int last) {
    for (int i = first; i < last; i++)
        standardise(network, images + (ptrdiff_t)i * network->image_bytes, i);
    double time = omp_get_wtime();
    for (Stage *s = network->stages; s <= encoder(network); s++) {
        float_stage(s, first, last, s == encoder(network));
        time = add_time(s, time);
    }
}

/* Computes all hidden stages for images [first, last), from their input spikes. */
static void hidden_stages_by_words(Network *network, int first, int last) {
    double time = omp_get_wtime();
    for (Stage *s = encoder(network) + 1; s <= last_stage(network); s++) {
        hidden_by_words(s, first, last);
        time = add_time(s, time);
    }
}

/* The same for all images of the chunk. The last map is converted back from planes for the classifier; the others are if
   `unpacked`. */
static void hidden_stages_by_planes(Network *network, int unpacked) {
    Stage *input = encoder(network), *last = last_stage(network);
    to_planes(input->output, input->geometry.output_image, input->planes.output);
    double time = omp_get_wtime();
    for (Stage *s = input + 1; s <= last; s++) {
        hidden_by_planes(s);
        time = add_time(s, time);
    }
    for (Stage *s = unpacked ? input + 1 : last; s <= last; s++)
        from_planes(s->planes.output, s->geometry.output_image, s->output);
}

/* Counts the spikes of all maps but the last, which the classifier reads. spikes: [image][map]. */
static void count_spikes(const Network *network, int number, int by_planes, double *spikes) {
    int maps = network->number_of_stages - network->float_stages;
#pragma omp parallel for schedule(dynamic)
    for (int map = 0; map < maps; map++) {
        const Stage *s = encoder(network) + map;
        int bytes = s->geometry.output_image;
        if (by_planes)
            count_by_planes(s->planes.output, bytes, number, spikes + map, maps);
        else
            for (int i = 0; i < number; i++)
                spikes[i * maps + map] = count_by_words(s->output + (ptrdiff_t)i * bytes, bytes);
    }
}

/* A forward pass of a chunk of images, [image][row][column][channel]; if NULL, of the input spikes already in their map.
   logits: [image][class]. spikes: [image][map]. unpacked: whether to leave all maps of spikes, not only the last, as words.
   Returns NULL, or the reason why nothing was computed. */
const char *forward(Network *network, const uint8_t *images, int number, int unpacked, float *logits, double *spikes) {
    const char *mistake = check(network, number);
    if (mistake)
        return mistake;
    int by_planes = number >= network->many;
    for (int first = 0; first < number; first += network->part) {
        int last = first + network->part < number ? first + network->part : number;
        if (images)
            encode(network, images, first, last);
        if (!by_planes)
            hidden_stages_by_words(network, first, last);
    }
    if (by_planes)
        hidden_stages_by_planes(network, unpacked);
    const Classifier *classifier = &network->classifier;
    const uint64_t *features = (const uint64_t *)last_stage(network)->output;
#pragma omp parallel for schedule(static)
    for (int i = 0; i < number; i++)
        classify(classifier, features + i * (classifier->features / 64), logits + i * classifier->classes);
    count_spikes(network, number, by_planes, spikes);
    return NULL;
}

void set_threads(int threads) { omp_set_num_threads(threads); }
int get_threads(void) { return omp_get_max_threads(); }
