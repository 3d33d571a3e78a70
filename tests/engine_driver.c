/* The engine as a program, for a processor that an emulator stands in for. test_engine.py writes its input.
   stdin: four int64: how many pointers, bytes of memory, images, and bytes of images (0: their input spikes are in memory);
   where the memory holds pointers (int64 [pointers]), which are counted from its beginning; the memory, first the Network;
   the images. stdout: the memory once `forward` has run, then logits and spikes. */
#include <stdio.h>
#include <stdlib.h>

#include "network.h"

const char *forward(Network *network, const uint8_t *images, int number, int unpacked, float *logits, double *spikes);

static void *get(int64_t bytes) {
    void *read = aligned_alloc(64, bytes / 64 * 64 + 64);
    if (!read || fread(read, 1, bytes, stdin) != (size_t)bytes)
        exit(1);
    return read;
}

static void put(const void *written, size_t bytes) {
    if (fwrite(written, 1, bytes, stdout) != bytes)
        exit(1);
}

int main(void) {
    int64_t *sizes = get(4 * sizeof *sizes), *pointers = get(sizes[0] * sizeof *pointers), number = sizes[2];
    char *memory = get(sizes[1]);
    for (int64_t i = 0; i < sizes[0]; i++)
        *(uint64_t *)(memory + pointers[i]) += (uintptr_t)memory;
    const uint8_t *images = get(sizes[3]);
    Network *network = (Network *)memory;
    size_t logit_bytes = number * network->classifier.classes * sizeof(float);
    size_t spike_bytes = number * (network->number_of_stages - network->float_stages) * sizeof(double);
    float *logits = malloc(logit_bytes);
    double *spikes = malloc(spike_bytes);
    if (forward(network, sizes[3] ? images : NULL, number, 1, logits, spikes))
        exit(1);
    put(memory, sizes[1]);
    put(logits, logit_bytes);
    put(spikes, spike_bytes);
    return 0;
}
