/* The hidden stages for small batches, an image at a time. A word holds the spikes of 32 channels. */
#include "network.h"

/* Checks a hidden stage's sizes. Returns what is wrong, or NULL. */
const char *check_words(const Stage *s);

/* Computes a hidden stage for images [first, last). */
void hidden_by_words(const Stage *s, int first, int last);

/* Returns the spikes in an image's map. bytes: a multiple of 8. */
int count_by_words(const uint8_t *map, int bytes);

/* Whether Words.plus and minus are to be packed for look-ups, not for a population count. */
int looks_up(void);
