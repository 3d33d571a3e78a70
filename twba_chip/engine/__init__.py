"""Whole-network inference of an exported network on the CPU, compiled from C.

Small batches pack the spikes of 32 channels into a word (words.c), large ones the spikes of 256 images into a vector (planes.c).
Both give the integers of spiking/reference.py.
"""
import contextlib
import operator
import threading
import time
from typing import TYPE_CHECKING, Callable, Dict, Iterator, NamedTuple, Optional, Tuple, Union, overload

import numpy as np

from twba_chip.spiking import file as spiking_file, reference
from twba_chip.engine import library
from twba_chip.engine.prepared import CHUNK, MANY, Prepared  # noqa: F401 (CHUNK and MANY are public)
from twba_chip.engine.pace import Pace
from twba_chip.spiking.file import SpikingNetwork
from twba_nets.system.arrays import Arrays
from twba_nets.runs.spike_statistics import Result

if TYPE_CHECKING:
    from typing import Literal  # from Python 3.8 on

MAX_THREADS = 1024


class Output(NamedTuple):
    """logits: float32 [N, classes]. spikes: float64 [N, maps], spike counts per image and map, without the last map
    (Architecture.counted_maps).
    """
    logits: np.ndarray
    spikes: np.ndarray


Maps = Dict[str, np.ndarray]  # name -> bool [N, H, W, C], in network order; the paper's network has "bn0", "cnn1", ..., "cnn11"


class Engine:
    """An exported network, ready to run. It copies the arrays.

    threads: 0 for all cores, or for one core while other programs keep the cores busy (pace.py).

    Any architecture that can be exported runs. Dummies that never fire pad a group's filters, and the channels that it reads,
    to a multiple of 32 (padding.py); they cost as much time as real filters. With more than 1,024 synapses per neuron, dummies
    included, or 2^17 or more neurons per map, large batches too are computed by words.

    It is thread-safe: calls run one after the other. A copy or an unpickled engine is a new engine of the same network.
    Raises UserError if there is no C compiler, or if a size exceeds the C's numbers (README.md); ValueError for invalid arrays
    or threads; RuntimeError in a forked child of a process that has run an engine.
    """

    def __init__(self, network: SpikingNetwork, threads: int = 0):
        if not 0 <= operator.index(threads) <= MAX_THREADS:
            raise ValueError(f"threads are from 1 to {MAX_THREADS}, or 0 for all cores, not {threads}")
        self.library, self.network = library.load(), network._replace(arrays=_copied(network))
        self.threads = threads or self.library.get_threads()
        self.paces: Optional[Dict[int, Pace]] = None if threads or self.threads == 1 else {}  # by the images' bits
        self.prepared = Prepared(self.network, self.threads, bool(self.library.looks_up()))
        self.lock = threading.Lock()
        self.asked = threads

    def __reduce__(self):
        return type(self), (self.network, self.asked)

    @overload
    def run(self, images: np.ndarray, return_spikes: "Literal[False]" = False) -> Output: ...

    @overload
    def run(self, images: np.ndarray, return_spikes: "Literal[True]") -> Tuple[Output, Maps]: ...

    def run(self, images: np.ndarray, return_spikes: bool = False) -> Union[Output, Tuple[Output, Maps]]:
        """Run images uint8 [N, S, S, C] (or other integers from 0 to 255). Raises ValueError for invalid images.

        return_spikes: also return the maps of spikes, a byte per neuron: 220 KB per image for the paper's network.
        """
        images = np.ascontiguousarray(reference.check_images(images, self.network.architecture))
        return self._run(len(images), lambda rows: images[rows].ctypes.data, return_spikes)

    def run_spikes(self, spikes: np.ndarray, return_spikes: bool = False) -> Union[Output, Tuple[Output, Maps]]:
        """Run input spikes bool [N, H, W, C] (or numbers that are 0 or 1). Raises ValueError for invalid spikes."""
        stage = self.network.architecture.encoder
        spikes, inputs = reference.check_spikes(spikes, stage), self.prepared.spikes[stage.map]

        def load(rows: slice) -> None:
            some = spikes[rows]
            inputs.words[:len(some)] = inputs.pack(some)
        return self._run(len(spikes), load, return_spikes)

    def run_lossy(self, spikes: np.ndarray, kept: Dict[str, np.ndarray]) -> np.ndarray:
        """Logits float32 [N, classes] when some spikes are lost.

        spikes: as in run_spikes. kept: name -> bool [N, H, W, C], which spikes of each map are kept.
        Raises ValueError for invalid spikes, and for no or more than CHUNK images.
        """
        spikes, number = reference.check_spikes(spikes, self.network.architecture.encoder), len(spikes)
        if not 0 < number <= CHUNK:
            raise ValueError(f"spikes of 1 to {CHUNK} images are run at a time, not of {number}")
        library.check_process()
        with self.lock, self._chosen_threads(number):
            structs = self.prepared.stages[self.network.architecture.float_stages - 1:]
            for struct, (name, found) in zip(structs, self.prepared.spikes.items()):
                if found.stage.quantised:
                    self.library.hidden_by_words(struct, 0, number)
                else:
                    found.words[:number] = found.pack(spikes)
                found.words[:number] &= found.pack(kept[name])
            return reference.classify(self.network, found.unpack(number))

    def _run(self, number: int, load: Callable[[slice], Optional[int]],
             return_spikes: bool) -> Union[Output, Tuple[Output, Maps]]:
        """load(rows) returns the images' address, or copies their input spikes into place and returns None."""
        prepared, classes = self.prepared, self.network.architecture.classes
        output = Output(np.empty((number, classes), np.float32), np.empty((number, len(prepared.spikes) - 1)))
        maps = {name: np.empty((number,) + found.stage.map_shape, bool)
                for name, found in prepared.spikes.items() if return_spikes}
        library.check_process()
        with self.lock:
            for start in range(0, number, CHUNK):
                rows = slice(start, min(start + CHUNK, number))
                images = rows.stop - start
                with self._chosen_threads(images):
                    mistake = self.library.forward(prepared.struct, load(rows), images, bool(return_spikes),
                                                   output.logits[rows].ctypes.data, output.spikes[rows].ctypes.data)
                if mistake:
                    raise ValueError(f"the engine refuses this network: {mistake.decode()}")
                for name, spikes in maps.items():
                    spikes[rows] = prepared.spikes[name].unpack(images)
        return (output, maps) if return_spikes else output

    @contextlib.contextmanager
    def _chosen_threads(self, images: int) -> Iterator[None]:
        """Use the requested number of threads or, if none was requested, the number that is faster at present."""
        pace = None if self.paces is None else self.paces.setdefault(images.bit_length(), Pace())
        all_threads = pace is None or pace.all_threads()
        before, started = self.library.get_threads(), time.perf_counter()
        self.library.set_threads(self.threads if all_threads else 1)
        try:
            yield
        finally:
            self.library.set_threads(before)  # OpenMP keeps this number per thread, and another engine may run in it next
        if pace is not None:
            pace.record(all_threads, (time.perf_counter() - started) / images)

    def seconds(self) -> Dict[str, float]:
        """Seconds spent in each stage so far: name of its convolution -> seconds."""
        return {stage.conv: struct.seconds for stage, struct in zip(self.network.architecture.stages, self.prepared.stages)}


def evaluate(network: SpikingNetwork, x: np.ndarray, y: np.ndarray, threads: int = 0) -> Result:
    """Evaluate an exported network on images uint8 [N, S, S, C] with labels [N].

    Raises ValueError for invalid images or labels, and if there are none.
    """
    y, classes = np.asarray(y), network.architecture.classes
    if not len(x) or y.shape != (len(x),) or y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= classes:
        raise ValueError(f"labels are integers [{len(x)}] from 0 to {classes - 1}, one or more, not {y.dtype} "
                         f"{list(y.shape)}")
    logits, counts = Engine(network, threads).run(x)
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(y)), y]
    return Result(float(losses.mean()), float((logits.argmax(axis=1) == y).mean()), counts)


def _copied(network: SpikingNetwork) -> Arrays:
    """Checked, read-only copies of the arrays. The C relies on their types, shapes and values."""
    copies = {}
    for name, (dtype, shape) in spiking_file.array_types(network.architecture).items():
        array = network.arrays.get(name)
        if not isinstance(array, np.ndarray) or array.dtype != dtype or array.shape != shape:
            raise ValueError(f"{name} is not there, or is not {np.dtype(dtype)} {shape}")
        if not np.isfinite(array).all() or name.endswith("/weights") and not -1 <= array.min() <= array.max() <= 1:
            raise ValueError(f"{name} holds values that are not finite, or weights other than -1, 0 and 1")
        copies[name] = array.copy()
        copies[name].setflags(write=False)
    return copies
