/* A map is [row][column][channel] of planes. A plane is one neuron's bit in each of 256 images. A neuron's sum is held in planes
   too: plane k has bit k of all images' numbers. It begins with minus the threshold; then the planes of its synapses are added,
   of weight 1 and of weight -1. Adders are made of AND, OR and XOR, and serve 256 images at once. Weights of 0 and shifts cost
   nothing. If a vector holds two planes, they belong to the same neuron at two positions, which share their weights. */
#include "planes.h"

#include "vectors.h"

enum { WORD = 32 };                                       /* planes per word */
enum { MOST_WORDS = 32, MOST_BITS = 12, COUNT_BITS = 17 }; /* words of a patch; bits of a sum; bits of a map's spike count */

/* Adds eight planes to the number's three lower bits. Returns the carry. The planes are first added to one another, so that each
   bit of the number waits for one addition, not for four. */
static inline __attribute__((always_inline)) planes add_eight(const uint8_t *patch, const uint16_t *synapses, planes *number) {
    planes x[8];
    for (int i = 0; i < 8; i++)
        x[i] = load_planes(patch + synapses[i] * PLACES);
    planes two = add(x[0], x[1], x + 2), twos = add(x[3], x[4], x + 5), both = add(x[2], x[5], x + 6);
    planes last = add(x[6], x[7], number), four = add(two, twos, &both);
    return add(four, add(both, last, number + 1), number + 2);
}

/* Adds a carry to the number at this bit. */
static inline __attribute__((always_inline)) void carry_on(planes *number, int bit, int bits, planes carry) {
#pragma GCC unroll 16
    for (; bit < bits; bit++) {
        planes next = number[bit] & carry;
        number[bit] ^= carry;
        carry = next;
    }
}

/* Adds sixteen planes to the number's four lower bits. Returns the carry. */
static inline __attribute__((always_inline)) planes add_sixteen(const uint8_t *patch, const uint16_t *synapses, planes *number) {
    planes eight = add_eight(patch, synapses, number), eights = add_eight(patch, synapses + 8, number);
    return add(eight, eights, number + 3);
}

/* Adds all planes of a list. length: a multiple of eight. */
static inline __attribute__((always_inline)) void add_planes(const uint8_t *patch, const uint16_t *synapses, int length,
                                                             planes *number, int bits) {
    for (; length >= 32; length -= 32, synapses += 32) {
        planes sixteen = add_sixteen(patch, synapses, number), sixteens = add_sixteen(patch, synapses + 16, number);
        carry_on(number, 5, bits, add(sixteen, sixteens, number + 4));
    }
    if (length & 16)
        carry_on(number, 4, bits, add_sixteen(patch, synapses, number));
    if (length & 8)
        carry_on(number, 3, bits, add_eight(patch, synapses + (length & 16), number));
}

/* Sets all lanes to an integer. */
static inline __attribute__((always_inline)) void spread(int value, planes *number, int bits) {
    for (int bit = 0; bit < bits; bit++)
        number[bit] = (planes){0} - (uint64_t)(value >> bit & 1);
}

/* Turns n into -1 - n. */
static inline __attribute__((always_inline)) void complement(planes *number, int bits) {
    for (int bit = 0; bit < bits; bit++)
        number[bit] = ~number[bit];
}

/* Returns the images in which a neuron fires. Planes can only be added, so the synapses of -1 are added to the complement. That
   gives -1 - (sum - threshold), which is negative if the sum reaches the threshold: its sign is the spike.
   A stage that is not ternary has no lists of -1. There sum = 2 * plus - seen, where plus counts the spikes at weights of 1,
   and seen counts all spikes. The number begins with -seen - threshold, and plus is added one bit higher.
   unseen: -1 - seen; NULL if the stage is ternary. */
static inline __attribute__((always_inline)) planes fires(const uint8_t *patch, const uint16_t *synapses, const Neuron *neuron,
                                                         const planes *unseen, int bits) {
    planes number[MOST_BITS];
    synapses += neuron->first_synapse;
    if (unseen) {
        planes carry = {0}, one[MOST_BITS];
        spread(1 - neuron->threshold, one, bits);
        for (int bit = 0; bit < bits; bit++) {
            number[bit] = carry;
            carry = add(unseen[bit], one[bit], number + bit);
        }
        add_planes(patch, synapses, neuron->plus, number + 1, bits - 1);
    } else {
        spread(-neuron->threshold, number, bits);
        add_planes(patch, synapses, neuron->plus, number, bits);
    }
    complement(number, bits);
    add_planes(patch, synapses + neuron->plus, neuron->minus, number, bits);
    return number[bits - 1];
}

/* A task: some filters of a group at PLACES positions; the last position is repeated if the count is not a multiple of PLACES.
   First their patches are copied together. Planes of zeros follow, for the synapses that pad the lists. */
static inline __attribute__((always_inline)) void fire_filters(const Stage *s, const int *positions, int group, int first,
                                                               int filters, int bits) {
    const Geometry *g = &s->geometry;
    const Planes *p = &s->planes;
    uint8_t patch[MOST_WORDS * WORD + 1][PLACES][PLANE] __attribute__((aligned(64)));
    planes unseen[MOST_BITS] = {0};
    for (int place = 0; place < PLACES; place++)
        for (int word = 0; word < g->fan_in; word++) {
            int from = g->input_starts[positions[place]] + group * g->channels + g->offsets[word];
            for (int i = 0; i < WORD; i++)
                memcpy(patch[word * WORD + i][place], p->input + ((ptrdiff_t)from * WORD + i) * PLANE, PLANE);
        }
    memset(patch[g->fan_in * WORD], 0, sizeof *patch);
    if (!s->ternary) {
        add_planes(patch[0][0], p->synapses, g->fan_in * WORD, unseen, bits);
        complement(unseen, bits);
    }
    const Neuron *neuron = p->neurons + group * g->filters + first;
    for (const Neuron *end = neuron + filters; neuron < end; neuron++) {
        planes spikes = fires(patch[0][0], p->synapses, neuron, s->ternary ? NULL : unseen, bits);
        for (int place = 0; place < PLACES; place++) {
            ptrdiff_t at = (ptrdiff_t)g->output_starts[positions[place]] * 8 + neuron->place;
            memcpy(p->output + at * PLANE, (const uint8_t *)&spikes + place * PLANE, PLANE);
        }
    }
}

/* A number holds a sum minus a threshold: from -n - 1 to n with n synapses. The compiler must know the number of bits to keep
   them in registers. */
void hidden_by_planes(const Stage *s) {
    const Geometry *g = &s->geometry;
    int places = (g->positions + PLACES - 1) / PLACES, filters = g->filters % 64 ? 32 : 64, tasks = g->filters / filters;
#pragma omp parallel for schedule(static)
    for (int task = 0; task < places * g->groups * tasks; task++) {
        int group = task / places / tasks, first = task / places % tasks * filters, positions[PLACES];
        for (int place = 0; place < PLACES; place++) {
            int position = task % places * PLACES + place;
            positions[place] = position < g->positions ? position : g->positions - 1;
        }
        if (g->fan_in * WORD < 511)
            fire_filters(s, positions, group, first, filters, 10);
        else if (g->fan_in * WORD < 1023)
            fire_filters(s, positions, group, first, filters, 11);
        else
            fire_filters(s, positions, group, first, filters, 12);
    }
}

const char *check_planes(const Stage *input, const Stage *last) {
    for (const Stage *s = input; s <= last; s++) {
        const Geometry *g = &s->geometry;
        if ((int64_t)g->positions * g->groups * g->filters >= 1 << COUNT_BITS)
            return "a map has more neurons than planes.c can count";
        if (s > input && g->fan_in > MOST_WORDS)
            return "a hidden neuron has more synapses than planes.c can add";
        if (s > input && s->planes.neuron_bytes != sizeof(Neuron))
            return "a neuron's sizes in Python and in network.h differ";
    }
    return NULL;
}

typedef uint64_t plane __attribute__((vector_size(PLANE)));

/* Transposes four matrices of 64 x 64 bits: bit i of row j goes to bit j of row i. */
static void transpose(plane *rows) {
    uint64_t mask = 0xffffffff;
    for (int step = 32; step; step /= 2, mask ^= mask << step)
        for (int low = 0; low < 64; low = (low + step + 1) & ~step) {
            plane swapped = (rows[low] >> step ^ rows[low + step]) & mask;
            rows[low] ^= swapped << step;
            rows[low + step] ^= swapped;
        }
}

void to_planes(const uint8_t *maps, int bytes, uint8_t *planes) {
#pragma omp parallel for schedule(static)
    for (int byte = 0; byte < bytes; byte += 8) {
        plane rows[64];
        for (int image = 0; image < IMAGES; image++)
            memcpy((uint64_t *)(rows + image % 64) + image / 64, maps + (ptrdiff_t)image * bytes + byte, 8);
        transpose(rows);
        memcpy(planes + (ptrdiff_t)byte * 8 * sizeof *rows, rows, sizeof rows);
    }
}

void from_planes(const uint8_t *planes, int bytes, uint8_t *maps) {
#pragma omp parallel for schedule(static)
    for (int byte = 0; byte < bytes; byte += 8) {
        plane rows[64];
        memcpy(rows, planes + (ptrdiff_t)byte * 8 * sizeof *rows, sizeof rows);
        transpose(rows);
        for (int image = 0; image < IMAGES; image++)
            memcpy(maps + (ptrdiff_t)image * bytes + byte, (uint64_t *)(rows + image % 64) + image / 64, 8);
    }
}

/* If a vector holds two planes, the spikes of a map's even and odd neurons are counted separately. */
void count_by_planes(const uint8_t *maps, int bytes, int images, double *spikes, int step) {
    planes number[COUNT_BITS] = {0};
    uint16_t all[64 / PLACES];
    for (int i = 0; i < 64 / PLACES; i++)
        all[i] = i * PLANE;
    for (int byte = 0; byte < bytes; byte += 8)
        add_planes(maps + (ptrdiff_t)byte * 8 * PLANE, all, 64 / PLACES, number, COUNT_BITS);
    for (int image = 0; image < images; image++) {
        int sum = 0;
        for (int place = 0; place < PLACES; place++)
            for (int bit = 0; bit < COUNT_BITS; bit++)
                sum += (int)(number[bit][place * (IMAGES / 64) + image / 64] >> image % 64 & 1) << bit;
        spikes[image * step] = sum;
    }
}
