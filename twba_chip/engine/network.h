/* The network as Python passes it: structs.py mirrors these structs, prepared.py fills them in. `forward` first checks each size
   that the C relies on, by the functions named check..., which return a sentence that says what is wrong. */
#ifndef NETWORK_H
#define NETWORK_H
#include <stddef.h>
#include <stdint.h>

/* Where a stage reads and writes. Maps are square. A map includes its reader's zero padding, which no stage writes. A float stage
   counts its input in floats, a hidden stage in words, which hold the spikes of 32 channels. */
typedef struct {
    int32_t groups, filters, kernel; /* filters of one group; the kernel's height and width */
    int32_t channels;                /* words (or floats) of one group at an input position */
    int32_t fan_in;                  /* words (or floats) in a neuron's patch: kernel * kernel * channels */
    int32_t size, margin;            /* of an image's output map: rows without the zeros; rows of zeros on each side */
    int32_t positions;               /* size * size */
    int32_t input_row;               /* words (or floats) from an input row to the next */
    int32_t output_row;              /* bytes from an output row to the next */
    int32_t output_position;         /* bytes of an output position */
    int32_t output_image;            /* bytes of an image's output map */
    const int32_t *input_starts;     /* [image * positions]: offset of the position's patch, in words (or floats) */
    const int32_t *output_starts;    /* [image * positions]: offset of the position, in bytes */
    const int32_t *offsets;          /* [fan_in]: offset in a group's patch, in words */
} Geometry;

/* A float stage. */
typedef struct {
    int32_t winograd;                /* whether to compute it by Winograd's F(4x4, 3x3) */
    int32_t number;                  /* of weights */
    const float *weights;            /* [row][column][channel][filter]; for Winograd's [point][channel][filter], the kernels
                                        transformed (packing.winograd) */
    const float *scale, *offset;     /* [filter]: batch norm */
} Floats;

/* A hidden stage for small batches: words.c. A block is 32 filters. */
typedef struct {
    const void *plus, *minus;        /* the weights of 1, and of -1. With a population count: uint32 [block][fan_in][32].
                                        With look-ups: uint8 [block][4 * fan_in][2][2][16] (packing.sets_of_four) */
    const int16_t *thresholds;       /* [group * filters]; with a population count plus the neuron's number of weights of -1 */
    const int32_t *bytes;            /* [group * filters / 8]: the byte of an output position for eight filters' spikes */
} Words;

/* A neuron of planes.c. Its synapses are two lists, one after the other: weight 1, then weight -1. */
typedef struct {
    int32_t first_synapse;           /* in Planes.synapses */
    int32_t plus, minus;             /* lengths of the two lists */
    int32_t threshold;
    int32_t place;                   /* its plane in an output position: its channel */
} Neuron;

/* A hidden stage for large batches: planes.c. A plane is one neuron's bit in each of 256 images. Empty if the network is
   computed by words only. */
typedef struct {
    int32_t neuron_bytes;            /* size of a Neuron */
    const uint8_t *input;            /* [row][column][channel][32 bytes] */
    uint8_t *output;                 /* likewise; the last float stage has it, too */
    const Neuron *neurons;           /* [group * filters] */
    const uint16_t *synapses;        /* offsets of their planes in a patch, in bytes; first a list of all, fan_in * 32 */
} Planes;

typedef struct {
    Geometry geometry;
    int32_t ternary;                 /* hidden stage: whether some weights are 0, not all 1 or -1 */
    const void *input;               /* [image][row][column][channel] floats, or [image][row][column][channel / 32] words */
    uint8_t *output;                 /* likewise: words for the last float stage and the hidden ones */
    Floats floats;                   /* of a float stage */
    Words words;                     /* of a hidden stage */
    Planes planes;                   /* of a hidden stage */
    double seconds;                  /* spent here so far */
} Stage;

typedef struct {
    int32_t features;                /* neurons of the last stage, a multiple of 64 */
    int32_t classes;
    int32_t padded_classes;          /* classes, rounded up to a multiple of 16 */
    const float *weights;            /* [feature][padded class] */
    const float *scale, *offset;     /* [class] */
} Classifier;

typedef struct {
    int32_t network_bytes, stages_bytes; /* sizes of this struct, and of all stages */
    int32_t picture_size, channels;  /* of an image that is passed: height and width; channels */
    int32_t image_bytes;             /* of such an image */
    int32_t image_size, image_margin; /* height and width of the central crop that the first stage reads; zeros on each side */
    int32_t chunk;                   /* images that fit into the maps */
    int32_t number_of_stages, float_stages;
    int32_t many;                    /* from this many images on, hidden stages are computed by planes; above chunk: never */
    int32_t part;                    /* images whose float maps fit into the cache together */
    Stage *stages;                   /* [number_of_stages]: the float stages, then the hidden ones */
    Classifier classifier;
} Network;
#endif
