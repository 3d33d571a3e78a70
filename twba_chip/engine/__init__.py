"""Whole-network inference of an exported network on the CPU, compiled: engine.c with what it needs around it.

A few images are computed with 32 channels' spikes in a word (words.h), many with 256 images' spikes in a vector (planes.h).
The integers are those of spiking_network.py, bit for bit. No framework is imported here.
"""
import operator
import threading
from collections import OrderedDict, namedtuple

import numpy as np

from twba_chip import spiking_file, spiking_network
from twba_chip.engine import library, packing
from twba_nets import architecture as arch
from twba_nets.spike_statistics import Result as EvaluationResult

CHUNK = 8 * packing.PLANE_BYTES  # images of a call
MANY = 96  # from here on a vector's 256 lanes pay, though the rest of them are idle
MAX_THREADS = 1024
PART = 16  # images at a time whose float maps stay in the cache

Result = namedtuple("Result", "logits spikes")
Result.__doc__ = """logits: float32 [N, 10]. spikes: float64 [N, 8], each counted map's (architecture.COUNTED_MAPS)."""


class Engine:
    """An exported network, ready to run. arrays: as spiking_file.load gives them. threads: 0 for all cores.

    Threads may share it: its buffers serve one call after the other. A forked child of a process that has run one gets
    a RuntimeError. Raises UserError where there is no C compiler, ValueError for other arrays or threads.
    """

    def __init__(self, arrays, threads=0):
        _check_arrays(arrays)
        if not 0 <= operator.index(threads) <= MAX_THREADS:
            raise ValueError("threads are from 1 to %d, or 0 for all cores, not %d" % (MAX_THREADS, threads))
        self.library, self.arrays = library.load(), arrays
        if threads:
            self.library.set_threads(threads)
        self.network, self.maps = library.Network(), OrderedDict()
        self.network.part = min(max(PART, 8 * self.library.get_threads()), CHUNK)
        self.network.many = MANY
        self.lock = threading.Lock()
        self.last, self.last_thread = 0, None  # images of the last chunk, and whose they are
        self.kept = []  # arrays that the structs point to
        size, margin = arch.IMAGE_SIZE, arch.padding(arch.IMAGE_SIZE, arch.RELU_STAGE)
        before, planes_before = _buffer(self.network.part, size, margin, arch.CHANNELS, np.float32), None
        for struct, stage in zip(self.network.stages, arch.STAGES):
            size, following = arch.output_size(size, stage), arch.following(stage)
            margin = arch.padding(size, following) if following else 0
            after, planes = self._outputs(stage, size, margin)
            self._describe(struct, stage, size, margin, before, after)
            if stage in arch.HIDDEN_STAGES:
                self._point(struct, dict(self._hidden_arrays(stage), input_planes=planes_before, output_planes=planes,
                                         seen=np.empty((CHUNK, size ** 2, stage.groups), np.int16)))
            else:
                self._point(struct, self._float_arrays(stage))
            before, planes_before = after, planes
        self._point(self.network, self._classifier())

    def _outputs(self, stage, size, margin):
        """A stage's output of many images, and as planes."""
        filters = stage.groups * stage.filters
        if stage is arch.RELU_STAGE:
            return _buffer(self.network.part, size, margin, filters, np.float32), None
        buffer, inner = _buffer(CHUNK, size, margin, filters // 32, np.uint32), slice(margin, margin + size)
        self.maps[stage.bn if stage is arch.SPIKE_STAGE else stage.conv] = (stage, buffer, buffer[:, inner, inner])
        return buffer, np.zeros(buffer[0].size * 32 * packing.PLANE_BYTES, np.uint8)

    def _point(self, struct, arrays):
        for name, array in arrays.items():
            setattr(struct, name, array.ctypes.data)
        self.kept += arrays.values()

    def _describe(self, struct, stage, size, margin, before, after):
        channels = before.shape[3] // stage.groups
        struct.groups, struct.filters, struct.kernel, struct.positions = stage.groups, stage.filters, stage.kernel, size ** 2
        struct.channels, struct.words = channels, stage.kernel ** 2 * channels
        struct.input_row, struct.output_row = before[0, 0].size, after[0, 0].nbytes
        struct.position_bytes, struct.image_bytes = after[0, 0, 0].nbytes, after[0].nbytes
        rows, taps = np.arange(size), np.arange(stage.kernel)
        self._point(struct, {
            "input": before, "output": after,
            "from": packing.chunk_places(CHUNK, before, stage.stride * rows, before[0, 0, 0].size),
            "to": packing.chunk_places(CHUNK, after, margin + rows, struct.position_bytes),
            "offsets": packing.places(before[0], taps, before[0, 0, 0].size)[:, None] + np.arange(channels, dtype=np.int32)})

    def _affine(self, name):
        """Kernel, scale and offset of a float layer."""
        return [np.ascontiguousarray(self.arrays["%s/%s" % (name, key)], np.float32) for key in ("kernel", "scale", "offset")]

    def _classifier(self):
        kernel, scale, offset = self._affine(arch.OUTPUT)
        return {"classes": np.pad(kernel, ((0, 0), (0, 16 - arch.CLASSES)), mode="constant"), "scale": scale,
                "offset": offset}

    def _float_arrays(self, stage):
        arrays = [array[..., packing.bit_order(stage)] for array in self._affine(stage.conv)]
        if stage is arch.SPIKE_STAGE:
            arrays[0] = packing.winograd(arrays[0])
        return {name: np.ascontiguousarray(array, np.float32) for name, array in zip(("weights", "scale", "offset"), arrays)}

    def _hidden_arrays(self, stage):
        order = packing.bit_order(stage)
        weights = self.arrays[stage.conv + "/weights"].reshape(stage.kernel ** 2, -1, stage.groups, stage.filters)[..., order]
        thresholds = self.arrays[stage.conv + "/thresholds"].reshape(stage.groups, stage.filters)[:, order]
        # a threshold beyond the sums' range is as good as one just outside: the planes' numbers are no wider
        thresholds = np.clip(thresholds, -(weights < 0).sum((0, 1)), (weights > 0).sum((0, 1)) + 1)
        share = stage.filters // arch.next_groups(stage)  # bits that a group adds to one of the next stage's groups
        first = np.arange(0, stage.filters, 8)
        place = first // share * stage.groups * share + first % share + np.arange(stage.groups)[:, None] * share
        pack = packing.sets_of_four if self.library.looks_up() else packing.bit_planes
        neurons, synapses = packing.neurons(weights, thresholds, np.repeat(place, 8, axis=1) + np.arange(stage.filters) % 8)
        arrays = {"plus": pack(weights > 0), "thresholds": np.ascontiguousarray(thresholds, np.int16),
                  "bytes": (place // 8).astype(np.int32), "neurons": neurons, "synapses": synapses}
        return dict(arrays, minus=pack(weights < 0)) if (weights == 0).any() else arrays

    def run(self, images):
        """Images uint8 [N, 32, 32, 3] (or other integers from 0 to 255) -> Result. Raises ValueError for others."""
        images = np.ascontiguousarray(spiking_network.check_images(images))
        return self._run(len(images), lambda rows: images[rows].ctypes.data)

    def run_spikes(self, spikes):
        """Input spikes bool [N, 24, 24, 64] (or numbers that are 0 or 1) -> Result. Raises ValueError for others."""
        stage, _, inner = self.maps[arch.SPIKE_STAGE.bn]
        spikes = spiking_network.check_spikes(spikes, arch.SPIKE_STAGE.bn)

        def load(rows):
            some = spikes[rows]
            inner[:len(some)] = packing.pack(some[..., packing.bit_order(stage)])
        return self._run(len(spikes), load)

    def unpack(self, images):
        """The nine maps, name -> bool [images, H, W, C], of the last chunk's first `images` images.

        A run's images are computed in chunks of CHUNK, the last one with what remains. Raises ValueError for more images
        than it has, RuntimeError where another thread ran it.
        """
        library.check_process()
        with self.lock:
            if not 0 < operator.index(images) <= self.last:
                raise ValueError("%d images: the last chunk that was run has %d" % (images, self.last))
            if self.last_thread != threading.get_ident():
                raise RuntimeError("the last images were run by another thread: unpack them in that one")
            if self.last >= MANY:
                self.library.show(self.network)
            return OrderedDict((name, packing.unpack(stage, inner[:images]))
                               for name, (stage, _, inner) in self.maps.items())

    def seconds(self):
        """Seconds spent in each stage so far, by convolution."""
        return OrderedDict((stage.conv, struct.seconds) for stage, struct in zip(arch.STAGES, self.network.stages))

    def _run(self, number, load):
        """load(rows): the address of these images, or None once their input spikes are in place."""
        result = Result(np.empty((number, arch.CLASSES), np.float32), np.empty((number, len(arch.COUNTED_MAPS))))
        library.check_process()
        with self.lock:
            self.last, self.last_thread = 0, threading.get_ident()
            for start in range(0, number, CHUNK):
                rows = slice(start, min(start + CHUNK, number))
                self.library.run(self.network, load(rows), rows.stop - start, result.logits[rows].ctypes.data,
                                 result.spikes[rows].ctypes.data)
                self.last = rows.stop - start
        return result


def evaluate(arrays, x, y, threads=0):
    """Evaluate an exported network on images uint8 [N, 32, 32, 3] with labels [N]. Returns a spike_statistics.Result.

    Raises ValueError for other images or labels, and for none.
    """
    y = np.asarray(y)
    if not len(x) or y.shape != (len(x),) or y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= arch.CLASSES:
        raise ValueError("labels are integers [%d] from 0 to %d, one or more, not %s %s"
                         % (len(x), arch.CLASSES - 1, y.dtype, list(y.shape)))
    logits, counts = Engine(arrays, threads).run(x)
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(y)), y]
    return EvaluationResult(float(losses.mean()), float((logits.argmax(axis=1) == y).mean()), counts)


def _check_arrays(arrays):
    """The C code relies on these types and shapes, and on these weights."""
    for name, (dtype, shape) in spiking_file.array_types().items():
        array = arrays.get(name)
        if not isinstance(array, np.ndarray) or array.dtype != dtype or array.shape != shape:
            raise ValueError("%s is not there, or not %s %s" % (name, np.dtype(dtype), shape))
        if not np.isfinite(array).all() or name.endswith("/weights") and not -1 <= array.min() <= array.max() <= 1:
            raise ValueError("%s holds values that are not finite, or weights other than -1, 0 and 1" % name)


def _buffer(images, size, margin, channels, dtype):
    """A map of some images with its padding, which stays 0."""
    return np.zeros((images, size + 2 * margin, size + 2 * margin, channels), dtype)
