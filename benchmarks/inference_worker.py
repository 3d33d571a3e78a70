"""One side of inference.py, in an environment of its own: inference_worker.py SIDE MODEL EXPORT ONNX THREADS.

Reads lines "BATCH SECONDS" and answers each with a line of JSON: the seconds that each batch took which was run in that
time, the predictions, and the engine's stages.
"""
import ctypes
import json
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

import numpy as np

from twba_chip import spiking_file, spiking_network
from twba_nets import architecture as arch, card, npz

PEAK_REPEATS = 20000000


def engine(model, export, onnx, threads):
    """The compiled engine; with each answer its stages' time and operations, and what the processor was measured to do."""
    from twba_chip.engine import MANY, Engine, library
    arrays = spiking_file.load(export)[0]
    running = Engine(arrays, threads)
    ternary = bool(running.network.stages[2].ternary)
    peaks = library.load(REPOSITORY / "benchmarks" / "peak.c")
    peaks.set_threads(threads)
    for peak, arguments in ((peaks.peak_floats, []), (peaks.peak_planes, []), (peaks.peak_synapses, [ctypes.c_int])):
        peak.restype, peak.argtypes = ctypes.c_double, [ctypes.c_int64] + arguments

    def more(images, batch):
        by_planes, seconds = batch >= MANY, running.seconds()
        hidden = peaks.peak_planes(PEAK_REPEATS) if by_planes else peaks.peak_synapses(PEAK_REPEATS, ternary)
        limits = peaks.peak_floats(PEAK_REPEATS), hidden
        for stage in running.network.stages:
            stage.seconds = 0
        return {"stages": {stage.conv: {
            "seconds": seconds[stage.conv] / images, "operations": operations(arrays, stage, batch, by_planes),
            "operations_per_second": limits[stage.quantised]} for stage in arch.STAGES}}
    return lambda images: running.run(images).logits, more


def operations(arrays, stage, batch, by_planes):
    """What the engine has to do in a stage for an image. Float stages: multiply-accumulates; of the second Winograd's, which
    are a quarter of the usual, without its transforms' additions. Hidden stages: synapses; by planes, planes added: one for
    each synapse of weight 1 or -1 (for each of 1 where there is no 0), and all lanes of a vector count, in use or not.
    """
    positions = stage.output_size ** 2
    if not stage.quantised:
        return positions * arrays[stage.conv + "/kernel"].size * (1 / 4 if stage.fires else 1)
    weights = arrays[stage.conv + "/weights"]
    if not by_planes:
        return positions * weights.size
    return positions * int(((weights > 0) if weights.all() else (weights != 0)).sum()) / batch


def tensorflow(model, export, onnx, threads, graph="fast"):
    """The checkpoint as it is, in TensorFlow 1.15."""
    from twba_tensorflow import quieten_tensorflow
    quieten_tensorflow()
    import tensorflow as tf
    from twba_tensorflow import checkpoint
    from twba_tensorflow.graphs import GRAPHS
    session = tf.Session(config=GRAPHS[graph].session_config(threads))
    images = tf.placeholder(tf.float32, [None, 24, 24, 3])
    net = GRAPHS[graph].build(images, card.load_recipe(model).variant)
    checkpoint.assign(session, npz.read_model(model))
    session.run(net.refresh)
    return lambda x: session.run(net.logits, {images: x}), nothing


def published(*arguments):
    """The same by the published code's graph."""
    return tensorflow(*arguments, graph="published")


def pytorch(model, export, onnx, threads, exact=False):
    """The same network written plainly, float32, eager."""
    import torch
    from twba_torch import device, network, variables
    device.keep_memory()
    torch.set_num_threads(threads)
    net = network.Network(card.load_recipe(model).variant, exact=exact)
    variables.assign(npz.read_model(model), net)
    net.eval()

    def run(x):
        with torch.inference_mode():
            return net(torch.from_numpy(x))[0].numpy()
    return run, nothing


def pytorch_int8(model, export, onnx, threads):
    """This project's own exact int8 convolutions in PyTorch."""
    return pytorch(model, export, onnx, threads, exact=True)


def onnxruntime(model, export, onnx, threads):
    """The export as ONNX."""
    import onnxruntime as ort
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(str(onnx), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(["logits"], {name: x})[0], nothing


def nothing(images, batch):
    """What a side answers besides its times."""
    return {}


SIDES = {"engine": engine, "tensorflow": tensorflow, "published": published, "pytorch": pytorch,
         "pytorch_int8": pytorch_int8, "onnxruntime": onnxruntime}
# these get standardised images, which the others standardise themselves
PREPARED = ("tensorflow", "published", "pytorch", "pytorch_int8")


def main():
    side, *paths, threads = sys.argv[1:]
    run, more = SIDES[side](*map(Path, paths), int(threads))
    images = np.random.RandomState(0).randint(0, 256, (200, 32, 32, 3)).astype(np.uint8)
    if side in PREPARED:
        images = spiking_network.central_crop(images)
    for line in sys.stdin:
        batch, seconds = line.split()
        x = images[:int(batch)]
        run(x)  # buffers and kernels for this batch
        times, ends = [], time.perf_counter() + float(seconds)
        while time.perf_counter() < ends:
            started = time.perf_counter()
            logits = run(x)
            times.append(time.perf_counter() - started)
        answer = dict(more((len(times) + 1) * len(x), len(x)), times=times, predictions=logits.argmax(1).tolist())
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
