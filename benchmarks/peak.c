/* The processor's own limit for the engine's two instruction mixes: everything in registers, nothing to wait for. */
#include "../twba_nets/engine.c"

#define KEEP(vector) __asm__ volatile("" : "+x"(vector)) /* the compiler must take it for changed */

enum { SUMS = 8 };

/* Synapses a second, all threads: AND, population count, addition and the same for the minus plane. */
double peak_ternary(int64_t repeats, int ternary) {
    double started = omp_get_wtime();
    int threads = 1;
#pragma omp parallel
    {
#pragma omp single
        threads = omp_get_num_threads();
        words sums[SUMS] = {0}, spikes = (words){0} + 0x5a5a5a5au, plus = spikes * 3u, minus = spikes * 5u;
        for (int64_t i = 0; i < repeats; i++) {
            KEEP(spikes);
#pragma GCC unroll 8
            for (int j = 0; j < SUMS; j++) {
                KEEP(plus);
                sums[j] += popcount(spikes & plus);
                if (ternary) {
                    KEEP(minus);
                    sums[j] -= popcount(spikes & minus);
                }
            }
        }
        for (int j = 0; j < SUMS; j++)
            KEEP(sums[j]);
    }
    return (double)threads * repeats * SUMS * LANES * 32 / (omp_get_wtime() - started);
}

/* Float multiply-accumulates a second, all threads. */
double peak_float(int64_t repeats) {
    double started = omp_get_wtime();
    int threads = 1;
#pragma omp parallel
    {
#pragma omp single
        threads = omp_get_num_threads();
        floats sums[2 * SUMS] = {0}, a = (floats){0} + 0.5f, b = a;
        for (int64_t i = 0; i < repeats; i++) {
#pragma GCC unroll 16
            for (int j = 0; j < 2 * SUMS; j++) {
                KEEP(a);
                sums[j] = sums[j] * a + b;
            }
        }
        for (int j = 0; j < 2 * SUMS; j++)
            KEEP(sums[j]);
    }
    return (double)threads * repeats * 2 * SUMS * LANES / (omp_get_wtime() - started);
}
