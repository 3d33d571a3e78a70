/* Classifies the pictures on standard input, and writes the ticks that each took. */
#include "board.h"
#include "net.c"

static uint8_t image[IMAGE * IMAGE * CHANNELS];
static float logits[CLASSES];

int main(void) {
    while (receive(image, sizeof image)) {
        uint32_t begin = ticks();
        net_classify(image, logits);
        uint32_t taken = ticks() - begin;
        send(&taken, sizeof taken);
    }
    return 0;
}
