/* The float stages, the classifier, and what makes an image ready for them: what the paper computes off chip. */
#include "network.h"

/* What is wrong with the sizes of the float stages, and of the classifier, which reads the last stage's map; or NULL. */
const char *check_float_stages(const Network *network);
const char *check_classifier(const Classifier *classifier, const Stage *last);

/* Crop and standardise an image (spiking/reference.py has the same), uint8 [row][column][channel]: number i of the chunk, to
   its place in the input of the first stage. */
void standardise(const Network *network, const uint8_t *image, int i);

/* A float stage of images [first, last). fires: whether its output is spikes, else floats. */
void float_stage(const Stage *s, int first, int last, int fires);

/* Logits [class] of an image, from the last stage's spikes [feature / 64]. */
void classify(const Classifier *classifier, const uint64_t *spikes, float *logits);
