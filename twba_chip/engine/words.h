/* Hidden stages of a few images: a map is [image][row][column][group of the next stage][word] with that stage's zero padding
   around it; a word holds 32 input channels as bits. Neurons are taken 32 filters (a block) at a time, in two vectors of 16,
   and a few positions at a time. A neuron's sum is computed
   - with AVX-512's population count: a vector holds a word of 16 filters' weights, as one plane of bits for the weights
     of 1 and one for those of -1; AND, population count and addition treat 512 synapses at once;
   - without: a byte of spikes is two sets of four. For each of the 16 sets of four weights a table has how many of them
     the spikes meet. A vector holds these weights' numbers for 16 filters, and one look-up (a byte shuffle, AVX2) and
     one addition treat 128 synapses at once. */

enum { BLOCK = 32, CHUNK = 72 }; /* filters; positions that a block's weights are kept for */

#ifdef __AVX512VPOPCNTDQ__

enum { POSITIONS = 8, LOOKS_UP = 0 };
typedef uint32_t sums_of_16 __attribute__((vector_size(64)));

static inline sums_of_16 load_words(const uint32_t *from) {
    sums_of_16 x;
    memcpy(&x, from, sizeof x);
    return x;
}

static inline sums_of_16 popcount(sums_of_16 x) { return (sums_of_16)_mm512_popcnt_epi32((__m512i)x); }

static inline uint16_t at_least(sums_of_16 sums, const int16_t *thresholds) {
    return _mm512_cmpge_epi32_mask((__m512i)sums, _mm512_cvtepi16_epi32(_mm256_loadu_si256((const void *)thresholds)));
}

/* Sums of a block's neurons at `across` positions. */
static inline __attribute__((always_inline)) void integrate(const Stage *s, const uint32_t *const *x, int across,
                                                            const int16_t *seen, int block, int ternary,
                                                            sums_of_16 (*sums)[2]) {
    const uint32_t *plus = (const uint32_t *)s->plus + (ptrdiff_t)block * s->words * BLOCK;
    const uint32_t *minus = (const uint32_t *)s->minus + (ptrdiff_t)block * s->words * BLOCK;
    for (int i = 0; i < across; i++)
        sums[i][0] = sums[i][1] = (sums_of_16){0};
    for (int word = 0; word < s->words; word++) {
        sums_of_16 ones[2] = {load_words(plus + word * BLOCK), load_words(plus + word * BLOCK + 16)}, others[2];
        if (ternary) {
            others[0] = load_words(minus + word * BLOCK);
            others[1] = load_words(minus + word * BLOCK + 16);
        }
#pragma GCC unroll 8
        for (int i = 0; i < across; i++) {
            sums_of_16 spikes = x[i][s->offsets[word]] - (sums_of_16){0};
            for (int j = 0; j < 2; j++) {
                sums[i][j] += popcount(spikes & ones[j]);
                if (ternary)
                    sums[i][j] -= popcount(spikes & others[j]);
            }
        }
    }
    if (!ternary)
        for (int i = 0; i < across; i++)
            for (int j = 0; j < 2; j++)
                sums[i][j] = 2 * sums[i][j] - seen[i * s->groups];
}

#else

enum { POSITIONS = 3, LOOKS_UP = 1, WORDS = 7 }; /* int8 holds the sums of 7 words: 28 bytes, 4 at most from each half */
typedef int8_t bytes_of_32 __attribute__((vector_size(32)));
typedef int16_t sums_of_16 __attribute__((vector_size(32)));

/* [byte of spikes][half of the byte, set of four weights]: the sum of these weights where there are spikes. In `ones`
   a weight is 1 or 0, in `signs` it is 1 or -1. */
static int8_t ones[256][32], signs[256][32];

static __attribute__((constructor)) void fill_tables(void) {
    for (int spikes = 0; spikes < 256; spikes++)
        for (int i = 0; i < 32; i++) {
            int four = spikes >> (i < 16 ? 0 : 4) & 15;
            ones[spikes][i] = __builtin_popcount(four & i);
            signs[spikes][i] = 2 * ones[spikes][i] - __builtin_popcount(four);
        }
}

static inline bytes_of_32 load_bytes(const void *from) {
    bytes_of_32 x;
    memcpy(&x, from, sizeof x);
    return x;
}

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

/* The two halves of 16 added up. */
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

/* Sums of a block's neurons at `across` positions. */
static inline __attribute__((always_inline)) void integrate(const Stage *s, const uint32_t *const *x, int across,
                                                            const int16_t *seen, int block, int ternary,
                                                            sums_of_16 (*sums)[2]) {
    (void)seen; /* the table of signs does without */
    const int8_t(*table)[32] = ternary ? ones : signs;
    const bytes_of_32 *plus = (const bytes_of_32 *)s->plus + (ptrdiff_t)block * s->words * 8;
    const bytes_of_32 *minus = (const bytes_of_32 *)s->minus + (ptrdiff_t)block * s->words * 8;
    for (int i = 0; i < across; i++)
        sums[i][0] = sums[i][1] = (sums_of_16){0};
    for (int first = 0; first < s->words; first += WORDS) {
        int last = first + WORDS < s->words ? first + WORDS : s->words;
        bytes_of_32 partial[POSITIONS][2] = {0};
        for (int word = first; word < last; word++)
            for (int byte = 0; byte < 4; byte++) {
                int at = (4 * word + byte) * 2;
                bytes_of_32 pluses[2] = {load_bytes(plus + at), load_bytes(plus + at + 1)}, minuses[2];
                if (ternary) {
                    minuses[0] = load_bytes(minus + at);
                    minuses[1] = load_bytes(minus + at + 1);
                }
#pragma GCC unroll 3
                for (int i = 0; i < across; i++) {
                    bytes_of_32 row = load_bytes(table[((const uint8_t *)(x[i] + s->offsets[word]))[byte]]);
                    for (int j = 0; j < 2; j++) {
                        partial[i][j] += look_up(row, pluses[j]);
                        if (ternary)
                            partial[i][j] -= look_up(row, minuses[j]);
                    }
                }
            }
        for (int i = 0; i < across; i++)
            for (int j = 0; j < 2; j++)
                sums[i][j] += add_halves(partial[i][j]);
    }
}

#endif

/* Whether weights are wanted as numbers of sets of four, in place of planes of bits. */
int looks_up(void) { return LOOKS_UP; }

static inline __attribute__((always_inline)) void fire_block(const Stage *s, int block, int first, int across,
                                                             int ternary) {
    int group = block * BLOCK / s->filters;
    const uint32_t *x[POSITIONS];
    for (int i = 0; i < across; i++)
        x[i] = (const uint32_t *)s->input + s->from[first + i] + group * s->channels;
    sums_of_16 sums[POSITIONS][2];
    integrate(s, x, across, s->seen + first * s->groups + group, block, ternary, sums);
    const int32_t *bytes = s->bytes + block * (BLOCK / 8);
    for (int i = 0; i < across; i++) {
        uint8_t *y = s->output + s->to[first + i];
        for (int j = 0; j < 2; j++) {
            uint16_t bits = at_least(sums[i][j], s->thresholds + block * BLOCK + 16 * j);
            y[bytes[2 * j]] = bits & 255;
            y[bytes[2 * j + 1]] = bits >> 8;
        }
    }
}

/* How many spikes each group's neurons see at each position: with weights of 1 and -1 a sum is twice the spikes that 1
   meets, less all of them. */
static void count_seen(const Stage *s, int begin, int end) {
#pragma omp parallel for schedule(static)
    for (int position = begin; position < end; position++)
        for (int group = 0; group < s->groups; group++) {
            const uint32_t *x = (const uint32_t *)s->input + s->from[position] + group * s->channels;
            int spikes = 0;
            for (int word = 0; word < s->words; word++)
                spikes += __builtin_popcount(x[s->offsets[word]]);
            s->seen[position * s->groups + group] = spikes;
        }
}

/* A hidden stage at these positions. A task is a block at CHUNK of them, POSITIONS at a time, then what is left one by one. */
static inline __attribute__((always_inline)) void fire_blocks(const Stage *s, int begin, int end, int ternary) {
    int chunks = (end - begin + CHUNK - 1) / CHUNK;
    if (!ternary && !LOOKS_UP)
        count_seen(s, begin, end);
#pragma omp parallel for schedule(static)
    for (int task = 0; task < s->groups * s->filters / BLOCK * chunks; task++) {
        int block = task / chunks, first = begin + task % chunks * CHUNK;
        int last = first + CHUNK < end ? first + CHUNK : end;
        for (; first + POSITIONS <= last; first += POSITIONS)
            fire_block(s, block, first, POSITIONS, ternary);
        for (; first < last; first++)
            fire_block(s, block, first, 1, ternary);
    }
}

static void hidden_by_words(const Stage *s, int begin, int end) {
    if (s->minus)
        fire_blocks(s, begin, end, 1);
    else
        fire_blocks(s, begin, end, 0);
}
