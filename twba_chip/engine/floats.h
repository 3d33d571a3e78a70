/* What the paper computes off chip: an image's standardisation, the float stages and the classifier. */
#include "network.h"

/* Check the sizes of the float stages, and of the classifier, which reads the last stage's map. Return what is wrong, or NULL. */
const char *check_float_stages(const Network *network);
const char *check_classifier(const Classifier *classifier, const Stage *last);

/* Crops and standardises image i of the chunk, uint8 [row][column][channel], into the first stage's input. The same as
   spiking/reference.py's. */
void standardise(const Network *network, const uint8_t *image, int i);

/* A float stage for images [first, last). fires: whether its output is spikes, else floats. */
void float_stage(const Stage *s, int first, int last, int fires);

/* Computes an image's logits [class] from the last stage's spikes [feature / 64]. */
void classify(const Classifier *classifier, const uint64_t *spikes, float *logits);
