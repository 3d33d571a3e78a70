/* The hidden stages of few images, an image at a time, the spikes of 32 channels in a word. */
#include "network.h"

/* What is wrong with a hidden stage's sizes, or NULL. */
const char *check_words(const Stage *s);

/* A hidden stage of images [first, last). */
void hidden_by_words(const Stage *s, int first, int last);

/* Spikes in an image's map of this many bytes, a multiple of 8. */
int count_by_words(const uint8_t *map, int bytes);

/* Whether Words.plus and minus are wanted for look-ups, in place of a population count. */
int looks_up(void);
