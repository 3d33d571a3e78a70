/* Hidden stages of many images: a map is [row][column][channel] of planes, and a plane is one neuron's bit in each of 256
   images. A neuron's sum is held in planes too, as the bits of a number: first less its threshold, then with the planes of
   its synapses added, those of weight 1 and those of -1. Adders are made of AND, OR and XOR, and treat 256 images at once:
   weights of 0 cost nothing, nor do shifts. */

enum { IMAGES = 256, PLANES = 32, TASK = 32, MOST_WORDS = 32, MOST_BITS = 12, COUNT_BITS = 17 };
typedef uint64_t plane __attribute__((vector_size(IMAGES / 8)));

static inline plane load_plane(const void *from) {
    plane x;
    memcpy(&x, from, sizeof x);
    return x;
}

/* a + b + *c in each lane: *c becomes the lower bit, the upper one is returned. */
static inline __attribute__((always_inline)) plane add(plane a, plane b, plane *c) {
#ifdef __AVX512VL__
    plane carry = (plane)_mm256_ternarylogic_epi64((__m256i)a, (__m256i)b, (__m256i)*c, 0xe8);
    *c = (plane)_mm256_ternarylogic_epi64((__m256i)a, (__m256i)b, (__m256i)*c, 0x96);
#else
    plane differ = a ^ b, carry = (a & b) | (differ & *c);
    *c ^= differ;
#endif
    return carry;
}

/* Eight planes to the number's three lower bits; the carry is returned. */
static inline __attribute__((always_inline)) plane add_eight(const uint8_t *patch, const uint16_t *synapses, plane *number) {
    plane fours[2];
    for (int i = 0; i < 2; i++, synapses += 4) {
        plane two = add(load_plane(patch + synapses[0]), load_plane(patch + synapses[1]), number);
        plane twos = add(load_plane(patch + synapses[2]), load_plane(patch + synapses[3]), number);
        fours[i] = add(two, twos, number + 1);
    }
    return add(fours[0], fours[1], number + 2);
}

/* A carry into a number's bit goes up as far as it has to in any image. */
static inline __attribute__((always_inline)) void carry_on(plane *number, int bit, int bits, plane carry) {
#pragma GCC unroll 16
    for (; bit < bits; bit++) {
        plane next = number[bit] & carry;
        number[bit] ^= carry;
        carry = next;
    }
}

/* All planes that a list names. There is a multiple of eight of them. */
static inline __attribute__((always_inline)) void add_planes(const uint8_t *patch, const uint16_t *synapses, int length,
                                                             plane *number, int bits) {
    for (; length >= 16; length -= 16, synapses += 16) {
        plane eight = add_eight(patch, synapses, number), eights = add_eight(patch, synapses + 8, number);
        carry_on(number, 4, bits, add(eight, eights, number + 3));
    }
    if (length)
        carry_on(number, 3, bits, add_eight(patch, synapses, number));
}

/* An integer in every lane. */
static inline __attribute__((always_inline)) void spread(int value, plane *number, int bits) {
    for (int bit = 0; bit < bits; bit++)
        number[bit] = (plane){0} - (uint64_t)(value >> bit & 1);
}

/* Which images a neuron fires in: where sum - threshold is not negative. To subtract is to add to the complement: with
   x = ~n as -1 - n, what stands at the end is -1 - (sum - threshold), whose sign says it. */
static inline __attribute__((always_inline)) plane fires(const uint8_t *patch, const uint16_t *synapses,
                                                         const Neuron *neuron, const plane *unseen, int bits) {
    plane number[MOST_BITS];
    synapses += neuron->synapses;
    if (unseen) { /* -1 - spikes seen, to which come 1 - threshold and twice the spikes that weights of 1 meet */
        plane carry = {0}, one[MOST_BITS];
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
    for (int bit = 0; bit < bits; bit++)
        number[bit] = ~number[bit];
    add_planes(patch, synapses + neuron->plus, neuron->minus, number, bits);
    return number[bits - 1];
}

/* A task: TASK filters of a group at a position. What they see is gathered first, and a plane of zeros that fills up
   lists of synapses. */
static inline __attribute__((always_inline)) void fire_filters(const Stage *s, int position, int group, int first, int bits) {
    plane patch[MOST_WORDS * PLANES + 1], unseen[MOST_BITS] = {0};
    for (int word = 0; word < s->words; word++) {
        int from = s->from[position] + group * s->channels + s->offsets[word];
        memcpy(patch + word * PLANES, s->input_planes + (ptrdiff_t)from * PLANES * sizeof(plane), PLANES * sizeof(plane));
    }
    patch[s->words * PLANES] = (plane){0};
    if (!s->minus) {
        spread(0, unseen, bits);
        add_planes((const uint8_t *)patch, s->synapses, s->words * PLANES, unseen, bits);
        for (int bit = 0; bit < bits; bit++)
            unseen[bit] = ~unseen[bit];
    }
    const Neuron *neuron = s->neurons + group * s->filters + first;
    for (const Neuron *end = neuron + TASK; neuron < end; neuron++) {
        plane spikes = fires((const uint8_t *)patch, s->synapses, neuron, s->minus ? NULL : unseen, bits);
        ptrdiff_t place = (ptrdiff_t)s->to[position] * 8 + neuron->place;
        memcpy(s->output_planes + place * sizeof(plane), &spikes, sizeof spikes);
    }
}

/* Four matrices of 64 x 64 bits: bit i of row j goes to bit j of row i. */
static void transpose(plane *rows) {
    uint64_t mask = 0xffffffff;
    for (int step = 32; step; step /= 2, mask ^= mask << step)
        for (int low = 0; low < 64; low = (low + step + 1) & ~step) {
            plane swapped = (rows[low] >> step ^ rows[low + step]) & mask;
            rows[low] ^= swapped << step;
            rows[low + step] ^= swapped;
        }
}

/* The images' maps, `bytes` each, as planes; and back. */
static void to_planes(const uint8_t *maps, int bytes, uint8_t *planes) {
#pragma omp parallel for schedule(static)
    for (int byte = 0; byte < bytes; byte += 8) {
        plane rows[64];
        for (int image = 0; image < IMAGES; image++)
            memcpy((uint64_t *)(rows + image % 64) + image / 64, maps + (ptrdiff_t)image * bytes + byte, 8);
        transpose(rows);
        memcpy(planes + (ptrdiff_t)byte * 8 * sizeof *rows, rows, sizeof rows);
    }
}

static void from_planes(const uint8_t *planes, int bytes, uint8_t *maps) {
#pragma omp parallel for schedule(static)
    for (int byte = 0; byte < bytes; byte += 8) {
        plane rows[64];
        memcpy(rows, planes + (ptrdiff_t)byte * 8 * sizeof *rows, sizeof rows);
        transpose(rows);
        for (int image = 0; image < IMAGES; image++)
            memcpy(maps + (ptrdiff_t)image * bytes + byte, (uint64_t *)(rows + image % 64) + image / 64, 8);
    }
}

/* A number holds a sum less a threshold, neither beyond the synapses by more than one. How many bits that takes is known
   to the compiler, which keeps them in registers. */
static void hidden_by_planes(const Stage *s) {
    int tasks = s->filters / TASK;
#pragma omp parallel for schedule(static)
    for (int task = 0; task < s->positions * s->groups * tasks; task++) {
        int position = task % s->positions, group = task / s->positions / tasks, first = task / s->positions % tasks * TASK;
        if (s->words * PLANES < 511)
            fire_filters(s, position, group, first, 10);
        else if (s->words * PLANES < 1023)
            fire_filters(s, position, group, first, 11);
        else
            fire_filters(s, position, group, first, 12);
    }
}

/* Each image's spikes in a map. all: a list of 64 planes, one after the other. spikes: [image][map]. */
static void count_by_planes(const uint8_t *planes, int bytes, const uint16_t *all, int images, double *spikes) {
    plane number[COUNT_BITS] = {0};
    for (int byte = 0; byte < bytes; byte += 8)
        add_planes(planes + (ptrdiff_t)byte * 8 * sizeof *number, all, 64, number, COUNT_BITS);
    for (int image = 0; image < images; image++) {
        int sum = 0;
        for (int bit = 0; bit < COUNT_BITS; bit++)
            sum |= (int)(number[bit][image / 64] >> image % 64 & 1) << bit;
        spikes[image * MAPS] = sum;
    }
}
