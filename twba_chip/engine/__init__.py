"""Whole-network inference of an exported network on the CPU, compiled from C.

Few images are computed with the spikes of 32 channels in a word (words.c), many with the spikes of 256 images in a vector
(planes.c). Both give the integers of spiking_network.py. No framework is imported here.
"""
import contextlib
import operator
import threading
import time
from typing import Callable, Dict, Iterator, NamedTuple, Optional, Sequence, Tuple, Union

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
    """logits: float32 [N, classes]. spikes: float64 [N, maps], how many each image has in each map but the last (of the
    paper's network, architecture.COUNTED_MAPS).
    """
    logits: np.ndarray
    spikes: np.ndarray


Maps = Dict[str, np.ndarray]  # name -> bool [N, H, W, C], in network order: of the paper's network, "bn0", "cnn1", ..., "cnn11"


class Engine:
    """An exported network, ready to run. arrays: as spiking_file.load gives them, of any number of classes; it copies them.

    threads: how many compute; 0 for all cores, or for one while other programs keep the cores busy (pace.py).

    stages: the network's. The float stages have the paper's form. A hidden group reads a multiple of 32 channels, has a
    multiple of 32 filters and gives a multiple of 8 to each group of the next stage; a neuron has at most 1,024 synapses;
    a map, with its padding, is a multiple of 64 bits and has fewer than 2^17 neurons.

    Threads may share it: its buffers serve one call after the other. A forked child of a process that has run one gets
    a RuntimeError. A copy, also by pickle, is another engine of the same network. Raises UserError where there is no C
    compiler, or for other stages; ValueError for other arrays or threads.
    """

    def __init__(self, arrays: Arrays, threads: int = 0, stages: Sequence[Stage] = STAGES):
        arrays = _copied(arrays, stages)
        if not 0 <= operator.index(threads) <= MAX_THREADS:
            raise ValueError(f"threads are from 1 to {MAX_THREADS}, or 0 for all cores, not {threads}")
        self.library, self.arrays, self.stages = library.load(), arrays, stages
        self.threads = threads or self.library.get_threads()
        self.paces: Optional[Dict[int, Pace]] = None if threads or self.threads == 1 else {}  # by the images' bits
        self.network = Network(arrays, stages, self.threads, bool(self.library.looks_up()))
        self.lock = threading.Lock()
        self.asked = threads

    def __reduce__(self):
        return type(self), (self.arrays, self.asked, self.stages)

    def run(self, images: np.ndarray, return_spikes: bool = False) -> Union[Output, Tuple[Output, Maps]]:
        """Images uint8 [N, 32, 32, 3] (or other integers from 0 to 255). Raises ValueError for others.

        return_spikes: also return the maps of spikes, a byte a neuron: of the paper's network 220 KB an image.
        """
        images = np.ascontiguousarray(spiking_network.check_images(images))
        return self._run(len(images), lambda rows: images[rows].ctypes.data, return_spikes)

    def run_spikes(self, spikes: np.ndarray, return_spikes: bool = False) -> Union[Output, Tuple[Output, Maps]]:
        """The same of input spikes bool [N, 24, 24, 64] (or numbers that are 0 or 1). Raises ValueError for others."""
        stage = self.stages[1]
        spikes, words = spiking_network.check_spikes(spikes, stage), self.network.spikes[stage.map][1]

        def load(rows: slice) -> None:
            some = spikes[rows]
            words[:len(some)] = packing.pack(some[..., packing.channel_order(stage)])
        return self._run(len(spikes), load, return_spikes)

    def run_lossy(self, spikes: np.ndarray, kept: Dict[str, np.ndarray]) -> np.ndarray:
        """Logits float32 [N, classes] where some spikes get lost.

        spikes: as run_spikes takes them. kept: name -> bool [N, H, W, C], for each map which of its spikes go on. Raises
        ValueError for other spikes, for none and for more than CHUNK images.
        """
        spikes, number = spiking_network.check_spikes(spikes, self.stages[1]), len(spikes)
        if not 0 < number <= CHUNK:
            raise ValueError(f"spikes of 1 to {CHUNK} images are run at a time, not of {number}")
        library.check_process()
        with self.lock, self._chosen_threads(number):
            for struct, (stage, words) in zip(self.network.stages[1:], self.network.spikes.values()):
                if stage.quantised:
                    self.library.hidden_by_words(struct, 0, number)
                else:
                    words[:number] = packing.pack(spikes[..., packing.channel_order(stage)])
                words[:number] &= packing.pack(kept[stage.map][..., packing.channel_order(stage)])
            return spiking_network.classify(self.arrays, packing.unpack(stage, words[:number]), self.stages)

    def _run(self, number: int, load: Callable[[slice], Optional[int]],
             return_spikes: bool) -> Union[Output, Tuple[Output, Maps]]:
        """load(rows): the address of these images, or None once their input spikes are in place."""
        network, classes = self.network, self.network.struct.classifier.classes
        output = Output(np.empty((number, classes), np.float32), np.empty((number, len(network.spikes) - 1)))
        maps = {name: np.empty((number,) + stage.map_shape, bool)
                for name, (stage, _) in network.spikes.items() if return_spikes}
        library.check_process()
        with self.lock:
            for start in range(0, number, CHUNK):
                rows = slice(start, min(start + CHUNK, number))
                images = rows.stop - start
                with self._chosen_threads(images):
                    mistake = self.library.forward(network.struct, load(rows), images, bool(return_spikes),
                                                   output.logits[rows].ctypes.data, output.spikes[rows].ctypes.data)
                if mistake:
                    raise ValueError(f"the engine refuses this network: {mistake.decode()}")
                for name, spikes in maps.items():
                    stage, words = network.spikes[name]
                    spikes[rows] = packing.unpack(stage, words[:images])
        return (output, maps) if return_spikes else output

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

    def seconds(self) -> Dict[str, float]:
        """Seconds spent in each stage so far, by convolution."""
        return {stage.conv: struct.seconds for stage, struct in zip(self.stages, self.network.stages)}


def evaluate(arrays: Arrays, x: np.ndarray, y: np.ndarray, threads: int = 0) -> Result:
    """Evaluate an exported network on images uint8 [N, 32, 32, 3] with labels [N].

    Raises ValueError for other images or labels, and for none.
    """
    y, classes = np.asarray(y), _classes(arrays)
    if not len(x) or y.shape != (len(x),) or y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= classes:
        raise ValueError(f"labels are integers [{len(x)}] from 0 to {classes - 1}, one or more, not {y.dtype} "
                         f"{list(y.shape)}")
    logits, counts = Engine(arrays, threads).run(x)
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(y)), y]
    return Result(float(losses.mean()), float((logits.argmax(axis=1) == y).mean()), counts)


def _classes(arrays: Arrays) -> int:
    """How many classes the classifier has; where it is none, which _copied finds, as many as the paper's."""
    kernel = arrays.get(f"{arch.OUTPUT}/kernel")
    return kernel.shape[1] if isinstance(kernel, np.ndarray) and kernel.ndim == 2 and kernel.size else arch.CLASSES


def _copied(arrays: Arrays, stages: Sequence[Stage]) -> Arrays:
    """The arrays, read-only, so that no one changes what the C reads. It relies on these types, shapes and weights."""
    copies = {}
    for name, (dtype, shape) in spiking_file.array_types(stages, _classes(arrays)).items():
        array = arrays.get(name)
        if not isinstance(array, np.ndarray) or array.dtype != dtype or array.shape != shape:
            raise ValueError(f"{name} is not there, or not {np.dtype(dtype)} {shape}")
        if not np.isfinite(array).all() or name.endswith("/weights") and not -1 <= array.min() <= array.max() <= 1:
            raise ValueError(f"{name} holds values that are not finite, or weights other than -1, 0 and 1")
        copies[name] = array.copy()
        copies[name].setflags(write=False)
    return copies
