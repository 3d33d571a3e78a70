/* The processor's limit for the engine's three instruction mixes, with all operands in registers and no waiting. */
#include "../twba_chip/engine/openmp.h"
#include "../twba_chip/engine/vectors.h"

/* Makes the compiler assume that a vector has changed. Without AVX2 it is two registers. */
#ifdef __AVX2__
#define KEEP(vector) __asm__ volatile("" : "+x"(vector))
#else
#ifdef __aarch64__
#define REGISTER "+w"
#else
#define REGISTER "+x"
#endif
typedef uint64_t half __attribute__((vector_size(16)));
#define KEEP(vector)                                                            \
    do {                                                                        \
        half halves[2];                                                         \
        memcpy(halves, &vector, sizeof halves);                                 \
        __asm__ volatile("" : REGISTER(halves[0]), REGISTER(halves[1]));        \
        memcpy(&vector, halves, sizeof halves);                                 \
    } while (0)
#endif

enum { SUMS = 8, CHAINS = 12 }; /* independent chains, so that none waits for itself */

/* The addend in words.c for 512 synapses, or 128. */
#ifdef __AVX512VPOPCNTDQ__
typedef sums_of_16 operands;
static inline operands meet(operands spikes, operands plus, operands minus, int ternary) {
    (void)ternary;
    return popcount(choose(spikes, plus, minus));
}
#else
typedef bytes_of_32 operands;
static inline operands meet(operands spikes, operands plus, operands minus, int ternary) {
    return ternary ? look_up(spikes, plus) - look_up(spikes, minus) : look_up(spikes, plus);
}
#endif

/* Operations per second over all threads. operations: of work in each repeat. */
static double rate(void (*work)(int64_t), int64_t repeats, int operations) {
    double started = omp_get_wtime();
    int threads = 1;
#pragma omp parallel
    {
#pragma omp single
        threads = omp_get_num_threads();
        work(repeats);
    }
    return (double)threads * repeats * operations / (omp_get_wtime() - started);
}

static inline __attribute__((always_inline)) void synapses(int64_t repeats, int ternary) {
    operands sums[SUMS] = {0}, spikes = (operands){0} + 0x5a, plus = spikes / 2, minus = spikes / 4;
    for (int64_t i = 0; i < repeats; i++) {
        KEEP(spikes);
#pragma GCC unroll 8
        for (int j = 0; j < SUMS; j++) {
            KEEP(plus);
            KEEP(minus);
            sums[j] += meet(spikes, plus, minus, ternary);
        }
    }
    for (int j = 0; j < SUMS; j++)
        KEEP(sums[j]);
}

static void ternary_synapses(int64_t repeats) { synapses(repeats, 1); }
static void binary_synapses(int64_t repeats) { synapses(repeats, 0); }

static void adders(int64_t repeats) {
    planes sums[SUMS] = {0}, a = (planes){0} + 0x5a, b = a;
    for (int64_t i = 0; i < repeats; i++) {
#pragma GCC unroll 8
        for (int j = 0; j < SUMS; j++) {
            KEEP(a);
            KEEP(b);
            planes carry = add(a, b, sums + j);
            KEEP(carry);
        }
    }
    for (int j = 0; j < SUMS; j++)
        KEEP(sums[j]);
}

static void products(int64_t repeats) {
    floats sums[CHAINS] = {0}, a = (floats){0} + 0.5f, b = a;
    for (int64_t i = 0; i < repeats; i++) {
#pragma GCC unroll 12
        for (int j = 0; j < CHAINS; j++) {
            KEEP(a);
            sums[j] = sums[j] * a + b;
        }
    }
    for (int j = 0; j < CHAINS; j++)
        KEEP(sums[j]);
}

/* Synapses per second: choice, population count, addition; or look-up and addition, repeated for the weights of -1. */
double peak_synapses(int64_t repeats, int ternary) {
    return rate(ternary ? ternary_synapses : binary_synapses, repeats, SUMS * (LOOKS_UP ? 128 : 512));
}

/* Planes per second that adders take in. */
double peak_planes(int64_t repeats) { return rate(adders, repeats, SUMS * PLACES); }

/* Float multiply-accumulates per second. */
double peak_floats(int64_t repeats) { return rate(products, repeats, CHAINS * LANES); }
