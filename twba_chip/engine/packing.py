"""An exported network's arrays as the engine's C wants them: bits, words, planes, offsets."""
import numpy as np

from twba_nets import architecture as arch

# the kernel's part of Winograd's F(2x2, 3x3), by which floats.h computes the second float stage
WINOGRAD = np.array([[1, 0, 0], [.5, .5, .5], [.5, -.5, .5], [0, 0, 1]])
PLANE_BYTES = 32  # of planes.h: a bit of 256 images


def bit_order(stage):
    """A group's filters in the order of their bits: those that each group of the next stage reads stand together."""
    return np.arange(stage.filters).reshape(-1, arch.next_groups(stage)).T.ravel()


def chunk_places(images, buffer, rows, step):
    """Where the positions of these rows and columns begin, image by image: int32 [images, rows * columns].

    A buffer for fewer images is used again for the next ones.
    """
    image = buffer[0, :, :, 0].size * step
    return places(buffer[0], rows, step) + np.arange(images, dtype=np.int32)[:, None] % len(buffer) * image


def places(image, rows, step):
    """The same in one image, whose positions are `step` apart: int32 [rows * columns]."""
    return ((rows[:, None] * image.shape[1] + rows) * step).ravel().astype(np.int32)


def winograd(kernel):
    """float32 [3, 3, channels, filters] -> [filters / 16, 16 points, channels, 16 filters]."""
    points = np.einsum("pr,qc,rcio->pqio", WINOGRAD, WINOGRAD, kernel)
    return np.moveaxis(points.reshape(16, kernel.shape[2], -1, 16), 2, 0)


def _blocks(bits):
    """bool [taps, channels, groups, filters] -> words uint32 [blocks, 32 filters, words]."""
    words = pack(bits.transpose(2, 3, 0, 1))
    return words.reshape(-1, 32, words[0, 0].size)


def bit_planes(bits):
    """bool [taps, channels, groups, filters] -> uint32 [blocks, words, 32 filters]."""
    return np.ascontiguousarray(_blocks(bits).transpose(0, 2, 1))


def sets_of_four(bits):
    """bool [taps, channels, groups, filters] -> uint8 [blocks, bytes, 2 vectors, 2 halves of the byte, 16 filters]."""
    octets = _blocks(bits).view(np.uint8)
    halves = np.stack([octets & 15, octets >> 4], axis=-1)
    return np.ascontiguousarray(halves.reshape(len(octets), 2, 16, -1, 2).transpose(0, 3, 1, 4, 2))


def neurons(weights, thresholds, places):
    """network.h's neurons, int32 [groups * filters, 5], and their synapses.

    Weights int8 [taps, channels, groups, filters], thresholds and places [groups, filters]. A list of synapses is filled
    up to a multiple of eight with the plane of zeros after the last. Where no weight is 0 those of 1 do; and all synapses,
    from the beginning, are a list too.
    """
    taps, channels, groups, filters = weights.shape
    by_neuron = weights.reshape(-1, groups * filters).T
    parts, found, end = [np.arange(taps * channels)], [], taps * channels
    for neuron, threshold, place in zip(by_neuron, thresholds.flat, places.flat):
        lists = [np.flatnonzero(neuron == 1), [] if weights.all() else np.flatnonzero(neuron == -1)]
        lists = [np.append(synapses, [taps * channels] * (-len(synapses) % 8)) for synapses in lists]
        found.append((end, len(lists[0]), len(lists[1]), threshold, place))
        end += len(lists[0]) + len(lists[1])
        parts += lists
    return np.array(found, np.int32), (np.concatenate(parts) * PLANE_BYTES).astype(np.uint16)


def pack(bits):
    """bool [..., 32 n] -> uint32 [..., n], the first bit the lowest."""
    octets = np.packbits(bits.reshape(bits.shape[:-1] + (-1, 8))[..., ::-1], axis=-1)
    return octets.reshape(bits.shape[:-1] + (-1,)).view("<u4")


def unpack(stage, words):
    """A stage's map, uint32 [N, H, W, n] -> bool [N, H, W, C] in TensorFlow's order of channels."""
    octets = np.ascontiguousarray(words).view(np.uint8)
    bits = np.unpackbits(octets[..., None], axis=-1)[..., ::-1]
    shape = words.shape[:3]
    by_reader = bits.reshape(shape + (arch.next_groups(stage), stage.groups, -1))
    return np.moveaxis(by_reader, 3, 5).reshape(shape + (-1,)).astype(bool)


