/* Runs the pictures of standard input, and writes of each the maps, a byte a neuron, the logits, and the class. */
#include "board.h"
#include "maps.c"

int main(void) {
    while (receive(image, sizeof image)) {
        int32_t best = net_classify(image, logits);
        send(maps, maps_end - maps);
        send(logits, sizeof logits);
        send(&best, sizeof best);
    }
    return 0;
}
