/* The hidden stages of many images, all 256 of a chunk at once, one neuron's spikes in a plane. */
#include "network.h"

/* What is wrong with the sizes of the stages that fire, from the one that makes the input spikes to the last, or NULL. */
const char *check_planes(const Stage *input, const Stage *last);

/* A hidden stage. */
void hidden_by_planes(const Stage *s);

/* The chunk's maps, `bytes` of each image, as planes [8 * bytes]; and back. */
void to_planes(const uint8_t *maps, int bytes, uint8_t *planes);
void from_planes(const uint8_t *planes, int bytes, uint8_t *maps);

/* How many spikes a map of this many bytes has in each of the first `images` images: to spikes[image * step]. */
void count_by_planes(const uint8_t *planes, int bytes, int images, double *spikes, int step);
