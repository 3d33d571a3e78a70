"""Whole-network inference of an exported network on the CPU, compiled: engine.c with what it needs around it.

Spikes are bits; ternary weights are two planes of bits, or numbers of sets of four where the processor does not count bits
in vectors (engine.c). The integers are those of spiking.py, bit for bit. The kernel is compiled for this machine at first
use and kept in the user's cache. No framework is imported here.
"""
import ctypes
import hashlib
import os
import platform
import subprocess
import tempfile
from collections import OrderedDict, namedtuple
from pathlib import Path

import numpy as np

from twba_nets import architecture as arch
from twba_nets.errors import UserError
from twba_nets.spikes import Result as EvaluationResult

SOURCE = Path(__file__).with_name("engine.c")
FLAGS = ["-O3", "-fno-math-errno", "-march=native", "-mprefer-vector-width=512", "-fopenmp", "-shared", "-fPIC"]
# the kernel's part of Winograd's F(2x2, 3x3), by which engine.c computes the second float stage
WINOGRAD = np.array([[1, 0, 0], [.5, .5, .5], [.5, -.5, .5], [0, 0, 1]])
CHUNK = 16  # images at a time: their maps stay in the cache

Result = namedtuple("Result", "logits spikes")
Result.__doc__ = """logits: float32 [N, 10]. spikes: float64 [N, 8], each counted map's (architecture.COUNTED_MAPS)."""


class Stage(ctypes.Structure):
    """engine.c's struct of this name."""
    _fields_ = ([(name, ctypes.c_int32) for name in (
        "groups", "filters", "kernel", "positions", "channels", "words", "input_row", "output_row", "position_bytes")] + [
            (name, ctypes.c_void_p) for name in (
                "input", "output", "from", "to", "offsets", "plus", "minus", "thresholds", "bytes", "seen", "weights",
                "scale", "offset")] + [("seconds", ctypes.c_double)])


class Network(ctypes.Structure):
    """engine.c's struct of this name."""
    _fields_ = [("stages", Stage * len(arch.STAGES)), ("maps", ctypes.c_void_p * len(arch.COUNTED_MAPS)),
                ("bytes", ctypes.c_int32 * len(arch.COUNTED_MAPS))] + [
                    (name, ctypes.c_void_p) for name in ("classes", "scale", "offset")]


class Engine:
    """An exported network, ready to run. arrays: as spiking_file.load gives them. threads: 0 for all cores.

    Its buffers serve one call at a time. Raises UserError where there is no C compiler.
    """

    def __init__(self, arrays, threads=0):
        self.library, self.arrays = load_library(), arrays
        if threads:
            self.library.set_threads(threads)
        self.chunk = max(CHUNK, 8 * self.library.get_threads())
        self.network, self.maps = Network(), OrderedDict()
        self.kept = []  # arrays that the structs point to
        margin = arch.padding(arch.IMAGE_SIZE, arch.RELU_STAGE)
        before, size = self._buffer(arch.IMAGE_SIZE, margin, arch.CHANNELS, np.float32), arch.IMAGE_SIZE
        for struct, stage, following in zip(self.network.stages, arch.STAGES, arch.STAGES[1:] + (None,)):
            size = arch.output_size(size, stage)
            margin = arch.padding(size, following) if following else 0
            after = self._output(stage, size, margin)
            self._point(struct, self._hidden_arrays(stage) if stage in arch.HIDDEN_STAGES else self._float_arrays(stage))
            self._describe(struct, stage, size, margin, before, after)
            before = after
        for i, name in enumerate(arch.COUNTED_MAPS):
            self.network.maps[i], self.network.bytes[i] = self.maps[name][1].ctypes.data, self.maps[name][1][0].nbytes
        self._point(self.network, self._classifier())

    def _buffer(self, size, margin, channels, dtype):
        """A chunk's map with its padding, which stays 0."""
        return np.zeros((self.chunk, size + 2 * margin, size + 2 * margin, channels), dtype)

    def _output(self, stage, size, margin):
        filters = stage.groups * stage.filters
        if stage is arch.RELU_STAGE:
            return self._buffer(size, margin, filters, np.float32)
        buffer = self._buffer(size, margin, filters // 32, np.uint32)
        inner = slice(margin, margin + size)
        self.maps[stage.bn if stage is arch.SPIKE_STAGE else stage.conv] = (stage, buffer, buffer[:, inner, inner])
        return buffer

    def _point(self, struct, arrays):
        for name, array in arrays.items():
            setattr(struct, name, array.ctypes.data)
        self.kept += arrays.values()

    def _describe(self, struct, stage, size, margin, before, after):
        channels = before.shape[3] // stage.groups
        struct.groups, struct.filters, struct.kernel, struct.positions = stage.groups, stage.filters, stage.kernel, size ** 2
        struct.channels, struct.words = channels, stage.kernel ** 2 * channels
        struct.input_row, struct.output_row = before[0, 0].size, after[0, 0].nbytes
        struct.position_bytes = after[0, 0, 0].nbytes
        rows, taps = np.arange(size), np.arange(stage.kernel)
        self._point(struct, {
            "input": before, "output": after,
            "from": _chunk_places(before, stage.stride * rows, before[0, 0, 0].size),
            "to": _chunk_places(after, margin + rows, struct.position_bytes),
            "offsets": _places(before[0], taps, before[0, 0, 0].size)[:, None] + np.arange(channels, dtype=np.int32),
            "seen": np.empty((self.chunk, size ** 2, stage.groups), np.int16)})

    def _affine(self, name):
        """Kernel, scale and offset of a float layer."""
        return [np.ascontiguousarray(self.arrays["%s/%s" % (name, key)], np.float32) for key in ("kernel", "scale", "offset")]

    def _classifier(self):
        kernel, scale, offset = self._affine(arch.OUTPUT)
        return {"classes": np.pad(kernel, ((0, 0), (0, 16 - arch.CLASSES)), mode="constant"), "scale": scale,
                "offset": offset}

    def _float_arrays(self, stage):
        kernel, scale, offset = self._affine(stage.conv)
        if stage is arch.SPIKE_STAGE:
            kernel = np.einsum("pr,qc,rcio->pqio", WINOGRAD, WINOGRAD, kernel)
        arrays = {"weights": kernel, "scale": scale, "offset": offset}
        return {name: np.ascontiguousarray(array[..., _bit_order(stage)], np.float32) for name, array in arrays.items()}

    def _hidden_arrays(self, stage):
        weights, thresholds = self.arrays[stage.conv + "/weights"], self.arrays[stage.conv + "/thresholds"]
        weights = weights.reshape(stage.kernel ** 2, -1, stage.groups, stage.filters)[..., _bit_order(stage)]
        thresholds = thresholds.reshape(stage.groups, stage.filters)[:, _bit_order(stage)]
        share = stage.filters // arch.next_groups(stage)  # bits that a group adds to one of the next stage's groups
        first = np.arange(0, stage.filters, 8)
        place = first // share * stage.groups * share + first % share + np.arange(stage.groups)[:, None] * share
        pack = _sets_of_four if self.library.looks_up() else _bit_planes
        arrays = {"plus": pack(weights > 0), "thresholds": np.ascontiguousarray(thresholds, np.int16),
                  "bytes": (place // 8).astype(np.int32)}
        return dict(arrays, minus=pack(weights < 0)) if (weights == 0).any() else arrays

    def run(self, images):
        """Images uint8 [N, 32, 32, 3] -> Result. Raises ValueError for another shape."""
        images = np.ascontiguousarray(images, np.uint8)
        if images.shape[1:] != (32, 32, arch.CHANNELS):
            raise ValueError("images are [N, 32, 32, 3], not %s" % (images.shape,))
        return self._run(len(images), lambda rows: images[rows].ctypes.data)

    def run_spikes(self, spikes):
        """Input spikes bool [N, 24, 24, 64] -> Result."""
        stage, _, inner = self.maps[arch.SPIKE_STAGE.bn]

        def load(rows):
            some = spikes[rows]
            inner[:len(some)] = _pack(some[..., _bit_order(stage)])
        return self._run(len(spikes), load)

    def unpack(self, images):
        """The nine maps of the last `images` images that were run (at most self.chunk), name -> bool [N, H, W, C]."""
        return OrderedDict((name, _unpack(stage, inner[:images])) for name, (stage, _, inner) in self.maps.items())

    def seconds(self):
        """Seconds spent in each stage so far, by convolution."""
        return OrderedDict((stage.conv, struct.seconds) for stage, struct in zip(arch.STAGES, self.network.stages))

    def _run(self, number, load):
        """load(rows): the address of these images, or None once their input spikes are in place."""
        result = Result(np.empty((number, arch.CLASSES), np.float32), np.empty((number, len(arch.COUNTED_MAPS))))
        for start in range(0, number, self.chunk):
            rows = slice(start, min(start + self.chunk, number))
            self.library.run(self.network, load(rows), rows.stop - start, result.logits[rows].ctypes.data,
                             result.spikes[rows].ctypes.data)
        return result


def evaluate(arrays, x, y, threads=0):
    """Evaluate an exported network on images uint8 [N, 32, 32, 3] with labels [N]. Returns a spikes.Result."""
    logits, counts = Engine(arrays, threads).run(x)
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(y)), y]
    return EvaluationResult(float(losses.mean()), float((logits.argmax(axis=1) == y).mean()), counts)


def _bit_order(stage):
    """A group's filters in the order of their bits: those that each group of the next stage reads stand together."""
    return np.arange(stage.filters).reshape(-1, arch.next_groups(stage)).T.ravel()


def _chunk_places(buffer, rows, step):
    """Where the positions of these rows and columns begin in each image of a buffer: int32 [N, rows * columns]."""
    image = buffer[0, :, :, 0].size * step
    return _places(buffer[0], rows, step) + np.arange(len(buffer), dtype=np.int32)[:, None] * image


def _places(image, rows, step):
    """The same in one image, whose positions are `step` apart: int32 [rows * columns]."""
    return ((rows[:, None] * image.shape[1] + rows) * step).ravel().astype(np.int32)


def _blocks(bits):
    """bool [taps, channels, groups, filters] -> words uint32 [blocks, 32 filters, words]."""
    words = _pack(bits.transpose(2, 3, 0, 1))
    return words.reshape(-1, 32, words[0, 0].size)


def _bit_planes(bits):
    """bool [taps, channels, groups, filters] -> uint32 [blocks, words, 32 filters]."""
    return np.ascontiguousarray(_blocks(bits).transpose(0, 2, 1))


def _sets_of_four(bits):
    """bool [taps, channels, groups, filters] -> uint8 [blocks, bytes, 2 vectors, 2 halves of the byte, 16 filters]."""
    octets = _blocks(bits).view(np.uint8)
    halves = np.stack([octets & 15, octets >> 4], axis=-1)
    return np.ascontiguousarray(halves.reshape(len(octets), 2, 16, -1, 2).transpose(0, 3, 1, 4, 2))


def _pack(bits):
    """bool [..., 32 n] -> uint32 [..., n], the first bit the lowest."""
    octets = np.packbits(bits.reshape(bits.shape[:-1] + (-1, 8))[..., ::-1], axis=-1)
    return octets.reshape(bits.shape[:-1] + (-1,)).view("<u4")


def _unpack(stage, words):
    """A stage's map, uint32 [N, H, W, n] -> bool [N, H, W, C] in TensorFlow's order of channels."""
    octets = np.ascontiguousarray(words).view(np.uint8)
    bits = np.unpackbits(octets[..., None], axis=-1)[..., ::-1]
    shape = words.shape[:3]
    by_reader = bits.reshape(shape + (arch.next_groups(stage), stage.groups, -1))
    return np.moveaxis(by_reader, 3, 5).reshape(shape + (-1,)).astype(bool)


def load_library(source=SOURCE):
    """engine.c (or another file that includes it) compiled. Raises UserError where there is no compiler."""
    compiler = os.environ.get("CC", "cc")
    what = source.read_bytes() + SOURCE.read_bytes() + repr((FLAGS, compiler, _processor())).encode()
    path = _cache() / ("%s-%s.so" % (source.stem, hashlib.sha256(what).hexdigest()[:16]))
    if not path.exists():
        _compile(compiler, source, path)
    # how often OpenMP's threads look before they sleep: on a busy machine its own default burns what the others need
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    library = ctypes.CDLL(str(path))
    library.run.argtypes = [ctypes.POINTER(Network), ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
    library.run.restype = library.set_threads.restype = None
    return library


def _processor():
    """What the compiled code depends on: the instruction set."""
    try:
        return next(line for line in open("/proc/cpuinfo") if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return platform.processor()


def _cache():
    folder = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "twba_nets"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError("%s: the compiled engine cannot be kept there (%s): set XDG_CACHE_HOME to a folder that can be "
                        "written" % (folder, error.strerror))
    return folder


def _compile(compiler, source, path):
    with tempfile.TemporaryDirectory(dir=str(path.parent)) as folder:
        built = Path(folder) / path.name
        try:
            done = subprocess.run([compiler] + FLAGS + ["-o", str(built), str(source)], stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, universal_newlines=True)
        except OSError:
            raise UserError("%s: no such C compiler, and the engine needs one: install gcc, or name one in CC" % compiler)
        if done.returncode:
            raise UserError("%s: cannot compile %s (%s): use gcc, or leave the engine out"
                            % (compiler, source.name, (done.stdout.splitlines() or ["no message"])[0]))
        os.replace(str(built), str(path))  # another process may be compiling too
