"""Whole-network inference of an exported network on the CPU, compiled from C.

Few images are computed with the spikes of 32 channels in a word (words.c), many with the spikes of 256 images in a vector
(planes.c). Both give the integers of spiking_network.py. No framework is imported here.
"""
import contextlib
import operator
import threading
import time
from typing import Callable, Dict, Iterator, NamedTuple, Optional, Sequence

import numpy as np

from twba_chip import spiking_file, spiking_network
from twba_chip.engine import library, packing
from twba_chip.engine.network import CHUNK, MANY, Network  # noqa: F401 (CHUNK and MANY are for the users)
from twba_chip.engine.pace import Pace
from twba_nets import architecture as arch
from twba_nets.architecture import STAGES, Stage
from twba_nets.arrays import Arrays
from twba_nets.spike_statistics import Result

MAX_THREADS = 1024


class Output(NamedTuple):
    """logits: float32 [N, 10]. spikes: float64 [N, maps], each image's in each map but the last (of the paper's network,
    architecture.COUNTED_MAPS).
    """
    logits: np.ndarray
    spikes: np.ndarray


class Engine:
    """An exported network, ready to run. arrays: as spiking_file.load gives them.

    threads: how many compute; 0 for all cores, or for one while other programs keep the cores busy (pace.py).

    stages: the network's. The float stages have the paper's form. A hidden group reads a multiple of 32 channels, has a
    multiple of 32 filters and gives a multiple of 8 to each group of the next stage; a neuron has at most 1,024 synapses;
    a map, with its padding, is a multiple of 64 bits and has fewer than 2^17 neurons.

    Threads may share it: its buffers serve one call after the other. A forked child of a process that has run one gets
    a RuntimeError. Raises UserError where there is no C compiler, ValueError for other arrays, threads or stages.
    """

    def __init__(self, arrays: Arrays, threads: int = 0, stages: Sequence[Stage] = STAGES):
        _check_arrays(arrays, stages)
        if not 0 <= operator.index(threads) <= MAX_THREADS:
            raise ValueError(f"threads are from 1 to {MAX_THREADS}, or 0 for all cores, not {threads}")
        self.library, self.arrays, self.stages = library.load(), arrays, stages
        self.threads = threads or self.library.get_threads()
        self.paces: Optional[Dict[int, Pace]] = None if threads or self.threads == 1 else {}  # by the images' bits
        self.network = Network(arrays, stages, self.threads, bool(self.library.looks_up()))
        self.lock = threading.Lock()
        self.last, self.last_thread = 0, None  # images of the last chunk, and whose they are

    def run(self, images: np.ndarray) -> Output:
        """Images uint8 [N, 32, 32, 3] (or other integers from 0 to 255). Raises ValueError for others."""
        images = np.ascontiguousarray(spiking_network.check_images(images))
        return self._run(len(images), lambda rows: images[rows].ctypes.data)

    def run_spikes(self, spikes: np.ndarray) -> Output:
        """Input spikes bool [N, 24, 24, 64] (or numbers that are 0 or 1). Raises ValueError for others."""
        stage = self.stages[1]
        spikes, words = spiking_network.check_spikes(spikes, stage), self.network.spikes[stage.map][1]

        def load(rows: slice) -> None:
            some = spikes[rows]
            words[:len(some)] = packing.pack(some[..., packing.channel_order(stage)])
        return self._run(len(spikes), load)

    def run_lossy(self, spikes: np.ndarray, kept: Dict[str, np.ndarray]) -> np.ndarray:
        """Logits float32 [N, 10] where some spikes get lost.

        spikes: as run_spikes takes them. kept: name -> bool [N, H, W, C], for each map which of its spikes go on. Raises
        ValueError for other spikes, for none and for more than CHUNK images.
        """
        spikes, number = spiking_network.check_spikes(spikes, self.stages[1]), len(spikes)
        if not 0 < number <= CHUNK:
            raise ValueError(f"spikes of 1 to {CHUNK} images are run at a time, not of {number}")
        library.check_process()
        with self.lock, self._chosen_threads(number):
            self.last = 0
            for struct, (stage, words) in zip(self.network.stages[1:], self.network.spikes.values()):
                if stage.quantised:
                    self.library.hidden_by_words(struct, 0, number)
                else:
                    words[:number] = packing.pack(spikes[..., packing.channel_order(stage)])
                words[:number] &= packing.pack(kept[stage.map][..., packing.channel_order(stage)])
            return spiking_network.classify(self.arrays, packing.unpack(stage, words[:number]), self.stages)

    def _run(self, number: int, load: Callable[[slice], Optional[int]]) -> Output:
        """load(rows): the address of these images, or None once their input spikes are in place."""
        output = Output(np.empty((number, arch.CLASSES), np.float32), np.empty((number, len(self.network.spikes) - 1)))
        library.check_process()
        with self.lock:
            self.last, self.last_thread = 0, threading.get_ident()
            for start in range(0, number, CHUNK):
                rows = slice(start, min(start + CHUNK, number))
                images = rows.stop - start
                with self._chosen_threads(images):
                    self.library.forward(self.network.struct, load(rows), images, output.logits[rows].ctypes.data,
                                         output.spikes[rows].ctypes.data)
                self.last = images
        return output

    @contextlib.contextmanager
    def _chosen_threads(self, images: int) -> Iterator[None]:
        """Compute with the threads that are asked for, or else with as many as are faster at present."""
        pace = None if self.paces is None else self.paces.setdefault(images.bit_length(), Pace())
        all_threads = pace is None or pace.all_threads()
        before, started = self.library.get_threads(), time.perf_counter()
        self.library.set_threads(self.threads if all_threads else 1)
        try:
            yield
        finally:
            self.library.set_threads(before)  # OpenMP's number is the thread's, and another engine may follow
        if pace is not None:
            pace.record(all_threads, (time.perf_counter() - started) / images)

    def unpack(self, images: int) -> Dict[str, np.ndarray]:
        """The maps of spikes, name -> bool [images, H, W, C], of the last chunk's first `images` images.

        A run's images are computed in chunks of CHUNK, the last one with what remains. Raises ValueError for more images
        than it has, RuntimeError where another thread ran it.
        """
        library.check_process()
        with self.lock:
            if not 0 < operator.index(images) <= self.last:
                raise ValueError(f"{images} images: the last chunk that was run has {self.last}")
            if self.last_thread != threading.get_ident():
                raise RuntimeError("the last images were run by another thread: unpack them in that one")
            if self.last >= self.network.struct.many:
                self.library.unpack_planes(self.network.struct)
            return {name: packing.unpack(stage, words[:images]) for name, (stage, words) in self.network.spikes.items()}

    def seconds(self) -> Dict[str, float]:
        """Seconds spent in each stage so far, by convolution."""
        return {stage.conv: struct.seconds for stage, struct in zip(self.stages, self.network.stages)}


def evaluate(arrays: Arrays, x: np.ndarray, y: np.ndarray, threads: int = 0) -> Result:
    """Evaluate an exported network on images uint8 [N, 32, 32, 3] with labels [N].

    Raises ValueError for other images or labels, and for none.
    """
    y = np.asarray(y)
    if not len(x) or y.shape != (len(x),) or y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= arch.CLASSES:
        raise ValueError(f"labels are integers [{len(x)}] from 0 to {arch.CLASSES - 1}, one or more, not {y.dtype} "
                         f"{list(y.shape)}")
    logits, counts = Engine(arrays, threads).run(x)
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(y)), y]
    return Result(float(losses.mean()), float((logits.argmax(axis=1) == y).mean()), counts)


def _check_arrays(arrays: Arrays, stages: Sequence[Stage]) -> None:
    """The C code relies on these types and shapes, and on these weights."""
    for name, (dtype, shape) in spiking_file.array_types(stages).items():
        array = arrays.get(name)
        if not isinstance(array, np.ndarray) or array.dtype != dtype or array.shape != shape:
            raise ValueError(f"{name} is not there, or not {np.dtype(dtype)} {shape}")
        if not np.isfinite(array).all() or name.endswith("/weights") and not -1 <= array.min() <= array.max() <= 1:
            raise ValueError(f"{name} holds values that are not finite, or weights other than -1, 0 and 1")
