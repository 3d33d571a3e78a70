/* Classifies the pictures on standard input, and writes for each the maps, a byte per neuron, the logits, and the class. */
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
