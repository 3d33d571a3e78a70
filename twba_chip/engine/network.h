/* What the stages share: the vectors of floats, and the structs that Python fills in. */
#include <math.h>
#include <omp.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

#ifdef __AVX512F__
enum { LANES = 16 }; /* floats in a vector */
#else
enum { LANES = 8 };
#endif
enum { IMAGE = 32, CROP = 24, CHANNELS = 3, FEATURES = 512, CLASSES = 10, PADDED_CLASSES = 16, STAGES = 10, MAPS = 8 };

typedef float floats __attribute__((vector_size(4 * LANES)));
typedef int32_t masks __attribute__((vector_size(4 * LANES)));

/* As planes.h computes it: its synapses of weight 1, then those of -1. */
typedef struct {
    int32_t synapses, plus, minus;         /* where they begin, and how many they are */
    int32_t threshold;
    int32_t place;                         /* of its plane in an output position */
} Neuron;

/* A stage. Positions are the output's; offsets are in words or floats in the input, in bytes in the output. */
typedef struct {
    int32_t groups, filters, kernel;       /* filters of one group */
    int32_t positions;                     /* of one image */
    int32_t channels;                      /* words of one group, or floats, at an input position */
    int32_t words;                         /* hidden: that a neuron sees */
    int32_t input_row, output_row;         /* offset from a row to the next */
    int32_t position_bytes;                /* of an output position */
    int32_t image_bytes;                   /* of an output map */
    const void *input;                     /* spikes: uint32; float stages: float */
    uint8_t *output;
    const int32_t *from, *to;              /* [position of a chunk of images]: where its input begins, and its output */
    const int32_t *offsets;                /* [word]: from there, for the first group */
    const int16_t *thresholds;             /* [group][filter] */
    const int32_t *bytes;                  /* [group][filter / 8]: where in an output position their spikes go */
    const void *plus, *minus;              /* few images: [block][word], weights; no minus where no weight is 0 */
    int16_t *seen;                         /* few images: [position][group], room for the spikes that its neurons see */
    const uint8_t *input_planes;           /* many images: the maps as planes */
    uint8_t *output_planes;
    const Neuron *neurons;                 /* [group][filter] */
    const uint16_t *synapses;              /* a plane's place in bytes, in what a neuron sees */
    const float *weights, *scale, *offset; /* float stages: [tap][channel][filter], or packing.winograd's; [filter] */
    double seconds;                        /* spent here so far */
} Stage;

typedef struct {
    Stage stages[STAGES];                  /* two float stages, then the hidden ones */
    int32_t many;                          /* images, and more, whose hidden stages are computed by planes */
    int32_t part;                          /* images at a time whose maps the cache holds */
    const float *classes, *scale, *offset; /* [feature][padded class]; [class] */
} Network;
