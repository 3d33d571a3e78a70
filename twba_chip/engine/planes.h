/* The hidden stages for all 256 images of a chunk at once. A plane holds one neuron's spikes. */
#include "network.h"

/* Checks the sizes of the stages that fire. input: the one that makes the input spikes. Returns what is wrong, or NULL. */
const char *check_planes(const Stage *input, const Stage *last);

/* Computes a hidden stage. */
void hidden_by_planes(const Stage *s);

/* Convert the chunk's maps, `bytes` per image, to planes [8 * bytes], and back. */
void to_planes(const uint8_t *maps, int bytes, uint8_t *planes);
void from_planes(const uint8_t *planes, int bytes, uint8_t *maps);

/* Counts the spikes of a map of `bytes` bytes per image, in each of the first `images` images, into spikes[image * step]. */
void count_by_planes(const uint8_t *planes, int bytes, int images, double *spikes, int step);
