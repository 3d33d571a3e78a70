/* OpenMP, or one thread if the compiler has none. */
#ifndef OPENMP_H
#define OPENMP_H
#ifdef _OPENMP
#include <omp.h>
#else
#include <time.h>

static inline double omp_get_wtime(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec * 1e-9;
}

static inline void omp_set_num_threads(int threads) { (void)threads; }
static inline int omp_get_max_threads(void) { return 1; }
static inline int omp_get_num_threads(void) { return 1; }
#endif
#endif
