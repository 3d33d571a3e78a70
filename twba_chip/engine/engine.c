/* The exported network on a CPU. __init__.py builds and calls this. */
#include "network.h"

#include "floats.h"
#include "planes.h"
#include "words.h"

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

/* A stage of images [first, last); of all of the chunk where they are many and it is hidden. */
static void run_stage(Stage *s, int i, int first, int last, int many) {
    double started = omp_get_wtime();
    int begin = first * s->positions, end = last * s->positions;
    if (i == 0)
        relu_stage(s, begin, end);
    else if (i == 1)
        spike_stage(s, begin, end);
    else if (many)
        hidden_by_planes(s);
    else
        hidden_by_words(s, begin, end);
    s->seconds += omp_get_wtime() - started;
}

/* Run a chunk of images, [image][row][column][channel]; without them, run on the input spikes that are in their map.
   logits: [image][class]. spikes: [image][map]. */
void run(Network *network, const uint8_t *images, int number, float *logits, double *spikes) {
    Stage *stages = network->stages;
    int many = number >= network->many;
    for (int first = 0; first < number; first += network->part) {
        int last = first + network->part < number ? first + network->part : number;
        for (int i = first; i < last && images; i++)
            prepare(stages, images + (ptrdiff_t)i * IMAGE * IMAGE * CHANNELS,
                    (float *)stages->input + stages->from[i * stages->positions] + stages->input_row + CHANNELS);
        for (int i = images ? 0 : 2; i < (many ? 2 : STAGES); i++)
            run_stage(stages + i, i, first, last, 0);
    }
    if (many) {
        to_planes(stages[1].output, stages[1].image_bytes, (uint8_t *)stages[2].input_planes);
        for (int i = 2; i < STAGES; i++)
            run_stage(stages + i, i, 0, number, 1);
        from_planes(stages[STAGES - 1].output_planes, stages[STAGES - 1].image_bytes, stages[STAGES - 1].output);
    }
#pragma omp parallel for schedule(static)
    for (int i = 0; i < number; i++)
        classify(network, (const uint64_t *)stages[STAGES - 1].output + i * (FEATURES / 64), logits + i * CLASSES);
#pragma omp parallel for schedule(dynamic)
    for (int map = 0; map < MAPS; map++) { /* the last stage's is not counted */
        const Stage *reader = stages + map + 2;
        int bytes = stages[map + 1].image_bytes;
        if (many)
            count_by_planes(reader->input_planes, bytes, reader->synapses, number, spikes + map);
        else
            for (int i = 0; i < number; i++)
                spikes[i * MAPS + map] = count((const uint8_t *)reader->input + (ptrdiff_t)i * bytes, bytes);
    }
}

/* The maps of the images that `run` computed by planes, to where it leaves those that it computes by words. */
void show(Network *network) {
    for (Stage *s = network->stages + 2; s < network->stages + STAGES; s++)
        from_planes(s->output_planes, s->image_bytes, s->output);
}

void set_threads(int threads) { omp_set_num_threads(threads); }
int get_threads(void) { return omp_get_max_threads(); }
