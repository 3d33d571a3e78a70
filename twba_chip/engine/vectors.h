/* The vectors, and operations that some processors have an instruction for. All that depends on the instruction set is here,
   except the two ways of words.c. */
#ifndef VECTORS_H
#define VECTORS_H
#include <stdint.h>
#include <string.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

/* Floats: floats.c. */

#ifdef __AVX512F__
enum { LANES = 16 };
#else
enum { LANES = 8 };
#endif

typedef float floats __attribute__((vector_size(4 * LANES)));
typedef int32_t masks __attribute__((vector_size(4 * LANES)));

static inline floats load_floats(const float *from) {
    floats x;
    memcpy(&x, from, sizeof x);
    return x;
}

/* Bit i: whether lane i is at least 0. */
static inline uint16_t not_negative(floats x) {
#if defined __AVX512F__
    return _mm512_cmp_ps_mask((__m512)x, _mm512_setzero_ps(), _CMP_GE_OQ);
#elif defined __AVX2__
    return _mm256_movemask_ps(_mm256_cmp_ps((__m256)x, _mm256_setzero_ps(), _CMP_GE_OQ));
#else
    uint16_t bits = 0;
    for (int i = 0; i < LANES; i++)
        bits |= (uint16_t)(x[i] >= 0) << i;
    return bits;
#endif
}

/* Sums of 16 filters: words.c. */

#ifdef __AVX512VPOPCNTDQ__

#define LOOKS_UP 0 /* a population count of 16 words */
typedef uint32_t sums_of_16 __attribute__((vector_size(64)));

static inline sums_of_16 load_words(const uint32_t *from) {
    sums_of_16 x;
    memcpy(&x, from, sizeof x);
    return x;
}

static inline sums_of_16 popcount(sums_of_16 x) { return (sums_of_16)_mm512_popcnt_epi32((__m512i)x); }

/* The bits of `ones` at spikes, and those of `others` elsewhere. */
static inline sums_of_16 choose(sums_of_16 spikes, sums_of_16 ones, sums_of_16 others) {
    return (sums_of_16)_mm512_ternarylogic_epi32((__m512i)spikes, (__m512i)ones, (__m512i)others, 0xca);
}

/* Bit i: whether sum i reaches its threshold. */
static inline uint16_t at_least(sums_of_16 sums, const int16_t *thresholds) {
    return _mm512_cmpge_epi32_mask((__m512i)sums, _mm512_cvtepi16_epi32(_mm256_loadu_si256((const void *)thresholds)));
}

#else

#define LOOKS_UP 1 /* 32 look-ups in tables of 16 bytes */
typedef int8_t bytes_of_32 __attribute__((vector_size(32)));
typedef int16_t sums_of_16 __attribute__((vector_size(32)));

static inline bytes_of_32 load_bytes(const void *from) {
    bytes_of_32 x;
    memcpy(&x, from, sizeof x);
    return x;
}

/* Each half of the index looks up in the same half of the table. */
static inline bytes_of_32 look_up(bytes_of_32 table, bytes_of_32 index) {
#ifdef __AVX2__
    return (bytes_of_32)_mm256_shuffle_epi8((__m256i)table, (__m256i)index);
#else
    bytes_of_32 found;
    for (int i = 0; i < 32; i++)
        found[i] = table[(i & 16) | index[i]];
    return found;
#endif
}

/* The sum of the two halves. */
static inline sums_of_16 add_halves(bytes_of_32 x) {
#ifdef __AVX2__
    __m128i low = _mm256_castsi256_si128((__m256i)x), high = _mm256_extracti128_si256((__m256i)x, 1);
    return (sums_of_16)_mm256_cvtepi8_epi16(low) + (sums_of_16)_mm256_cvtepi8_epi16(high);
#else
    sums_of_16 sums;
    for (int i = 0; i < 16; i++)
        sums[i] = x[i] + x[i + 16];
    return sums;
#endif
}

static inline uint16_t at_least(sums_of_16 sums, const int16_t *thresholds) {
    sums_of_16 least;
    memcpy(&least, thresholds, sizeof least);
#ifdef __AVX2__
    __m256i fires = (__m256i)(sums >= least);
    return _mm_movemask_epi8(_mm_packs_epi16(_mm256_castsi256_si128(fires), _mm256_extracti128_si256(fires, 1)));
#else
    uint16_t bits = 0;
    for (int i = 0; i < 16; i++)
        bits |= (uint16_t)(sums[i] >= least[i]) << i;
    return bits;
#endif
}

#endif

/* Planes: planes.c. A vector holds those of one synapse at PLACES positions. */

#ifdef __AVX512F__
enum { PLACES = 2 };
#else
enum { PLACES = 1 };
#endif
enum { IMAGES = 256, PLANE = IMAGES / 8 }; /* a plane has a bit for each; bytes of a plane */
typedef uint64_t planes __attribute__((vector_size(PLACES * PLANE)));

static inline planes load_planes(const void *from) {
    planes x;
    memcpy(&x, from, sizeof x);
    return x;
}

/* a + b + *c in each lane: *c becomes the lower bit. Returns the upper bit. */
static inline __attribute__((always_inline)) planes add(planes a, planes b, planes *c) {
#ifdef __AVX512F__
    planes carry = (planes)_mm512_ternarylogic_epi64((__m512i)a, (__m512i)b, (__m512i)*c, 0xe8);
    *c = (planes)_mm512_ternarylogic_epi64((__m512i)a, (__m512i)b, (__m512i)*c, 0x96);
#else
    planes differ = a ^ b, carry = (a & b) | (differ & *c);
    *c ^= differ;
#endif
    return carry;
}
#endif
