/* The network as Python hands it over: structs.py mirrors these structs, prepared.py fills them in. Each size that C takes for
   granted is checked as `forward` begins: by the functions
   whose names begin with check, which say in a sentence what is wrong. */
#ifndef NETWORK_H
#define NETWORK_H
#include <stddef.h>
#include <stdint.h>

/* Where a stage reads and writes. Maps are square. A map has the zeros around it that its reader pads it with; no stage writes
   those. A float stage counts its input in floats, a hidden stage in words, which hold the spikes of 32 channels. */
typedef struct {
    int32_t groups, filters, kernel; /* filters of one group; the kernel's height and width */
    int32_t channels;                /* words (or floats) of one group at an input position */
    int32_t fan_in;                  /* words (or floats) that a neuron sees: kernel * kernel * channels */
    int32_t size, margin;            /* of an image's output map: rows without the zeros, and of zeros on each side */
    int32_t positions;               /* size * size */
    int32_t input_row;               /* words (or floats) from an input row to the next */
    int32_t output_row;              /* bytes from an output row to the next */
    int32_t output_position;         /* bytes of an output position */
    int32_t output_image;            /* bytes of an image's output map */
    const int32_t *input_starts;     /* [image * positions]: words (or floats) before the first that the position sees */
    const int32_t *output_starts;    /* [image * positions]: bytes before the position */
    const int32_t *offsets;          /* [fan_in]: words from the first that a group's neurons see to each of them */
} Geometry;

/* A float stage. */
typedef struct {
    int32_t winograd;                /* whether it is computed by Winograd's F(4x4, 3x3) */
    int32_t number;                  /* of weights */
    const float *weights;            /* [row][column][channel][filter]; for Winograd's [point][channel][filter], the kernels
                                        transformed (packing.winograd) */
    const float *scale, *offset;     /* [filter]: batch norm */
} Floats;

/* A hidden stage of few images: words.c. A block is 32 filters. */
typedef struct {
    const void *plus, *minus;        /* where weights are 1, and -1. With a population count: uint32 [block][fan_in][32].
                                        With look-ups: uint8 [block][4 * fan_in][2][2][16] (packing.sets_of_four) */
    const int16_t *thresholds;       /* [group * filters]; with a population count each has its weights of -1 added */
    const int32_t *bytes;            /* [group * filters / 8]: which bytes of an output position hold eight filters' spikes */
} Words;

/* A neuron of planes.c. Its synapses are two lists, one after the other: those of weight 1, and those of weight -1. */
typedef struct {
    int32_t first_synapse;           /* in Planes.synapses */
    int32_t plus, minus;             /* length of the two lists */
    int32_t threshold;
    int32_t place;                   /* its plane in an output position: its channel */
} Neuron;

/* A hidden stage of many images: planes.c. A plane is one neuron's bit in each of 256 images. Nothing is here where the network
   is computed by words alone. */
typedef struct {
    int32_t neuron_bytes;            /* of a Neuron */
    const uint8_t *input;            /* [row][column][channel][32 bytes] */
    uint8_t *output;                 /* likewise; the last float stage has it, too */
    const Neuron *neurons;           /* [group * filters] */
    const uint16_t *synapses;        /* bytes before their planes in what a neuron sees; first a list of all, fan_in * 32 */
} Planes;

typedef struct {
    Geometry geometry;
    int32_t ternary;                 /* hidden: whether some weights are 0, and not all 1 or -1 */
    const void *input;               /* [image][row][column][channel] floats, or [image][row][column][channel / 32] words */
    uint8_t *output;                 /* likewise: words of the last float stage and of the hidden ones */
    Floats floats;                   /* of a float stage */
    Words words;                     /* of a hidden stage */
    Planes planes;                   /* of a hidden stage */
    double seconds;                  /* spent here so far */
} Stage;

typedef struct {
    int32_t features;                /* neurons of the last stage, a multiple of 64 */
    int32_t classes;
    int32_t padded_classes;          /* the same, rounded up to a multiple of 16 */
    const float *weights;            /* [feature][padded class] */
    const float *scale, *offset;     /* [class] */
} Classifier;

typedef struct {
    int32_t network_bytes, stages_bytes; /* of this struct, and of all stages */
    int32_t picture_size, channels;  /* of an image that is handed over: height and width */
    int32_t image_bytes;             /* of it */
    int32_t image_size, image_margin; /* of its central part, which the first stage reads, and of zeros on each side */
    int32_t chunk;                   /* images that the maps have room for */
    int32_t number_of_stages, float_stages;
    int32_t many;                    /* from this many images on, hidden stages are computed by planes; above chunk: never */
    int32_t part;                    /* images at a time whose float maps stay in the cache */
    Stage *stages;                   /* [number_of_stages]: the float stages, then the hidden ones */
    Classifier classifier;
} Network;
#endif
