"""The sides of inference.py. Each is a function of a network's files and the number of threads, and imports its library."""
import os
import shlex
import subprocess
from pathlib import Path
from typing import Callable, Dict, NamedTuple, Optional

import numpy as np

from twba_chip.spiking import file as spiking_file
from twba_nets.network.architecture import PAPER
from twba_nets.runs import card, npz


class Files(NamedTuple):
    """One network's checkpoint, exported file and ONNX model."""
    model: Path
    export: Path
    onnx: Path


class Side(NamedTuple):
    """version: of the library. run: images -> logits [N, classes]. prepared: whether the images are standardised, float32
    [N, 24, 24, 3], instead of uint8 [N, 32, 32, 3]. stages: the engine's roofline.Stages.
    """
    version: str
    run: Callable[[np.ndarray], np.ndarray]
    prepared: bool = False
    stages: Optional[Callable[[int, int], dict]] = None


def engine(files: Files, threads: int) -> Side:
    """The compiled engine; with several threads its default, which adapts to the machine's load."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    from roofline import Stages
    from twba_chip.engine import Engine
    running = Engine(spiking_file.load(files.export), 1 if threads == 1 else 0)
    return Side(_compiler(), lambda images: running.run(images).logits, stages=Stages(running, threads))


def engine_avx2(files: Files, threads: int) -> Side:
    """The engine, compiled for the first processors with AVX2."""
    from twba_chip.engine import library
    library.FLAGS = [flag for flag in library.FLAGS if flag not in library.NATIVE] + ["-march=haswell"]
    return engine(files, threads)


def _compiler() -> str:
    command = shlex.split(os.environ.get("CC") or "cc")
    return subprocess.check_output([*command, "--version"], universal_newlines=True).splitlines()[0]


def tensorflow(files: Files, threads: int, graph: str = "fast") -> Side:
    """The checkpoint in TensorFlow 1.15."""
    from twba_tensorflow import quieten_tensorflow
    quieten_tensorflow()
    import tensorflow as tf
    from twba_tensorflow import checkpoint
    from twba_tensorflow.graphs import GRAPHS
    session = tf.Session(config=GRAPHS[graph].session_config(threads))
    images = tf.placeholder(tf.float32, [None, PAPER.image_size, PAPER.image_size, PAPER.channels])
    net = GRAPHS[graph].build(images, card.load_recipe(files.model).variant, PAPER)
    checkpoint.assign(session, npz.read_model(files.model, PAPER))
    session.run(net.refresh)
    return Side(tf.__version__, lambda x: session.run(net.logits, {images: x}), prepared=True)


def published(files: Files, threads: int) -> Side:
    """The same in the published code's graph."""
    return tensorflow(files, threads, graph="published")


def pytorch(files: Files, threads: int, exact: bool = False) -> Side:
    """The same network in plain PyTorch, float32, eager. exact: with this project's int8 convolutions."""
    import torch
    from twba_torch import device, network, variables
    device.keep_memory()
    torch.set_num_threads(threads)
    net = network.Network(card.load_recipe(files.model).variant, PAPER, exact=exact)
    variables.assign(npz.read_model(files.model, PAPER), net)
    net.eval()

    def run(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return net(torch.from_numpy(x))[0].numpy()
    return Side(torch.__version__, run, prepared=True)


def pytorch_int8(files: Files, threads: int) -> Side:
    """This project's exact int8 convolutions in PyTorch."""
    return pytorch(files, threads, exact=True)


def onnxruntime(files: Files, threads: int) -> Side:
    """The ONNX model in integers, QLinearConv, with the default, all optimisations. (In floats it takes twice the time.)"""
    import onnxruntime as ort
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(str(files.onnx), options, providers=["CPUExecutionProvider"])
    return Side(ort.__version__, lambda x: session.run(["logits"], {"images": x})[0])


def openvino(files: Files, threads: int, **more: str) -> Side:
    """The same model, its float stages in float32. (All in floats it takes twice the time.)"""
    import openvino as ov
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", **more}
    request = ov.Core().compile_model(str(files.onnx), "CPU", options).create_infer_request()
    return Side(ov.__version__, lambda x: request.infer([x], share_inputs=True)[0])


def openvino_bf16(files: Files, threads: int) -> Side:
    """The same in bfloat16, OpenVINO's default on a processor that has it. Raises ImportError on another."""
    import openvino as ov
    if "BF16" not in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise ImportError("this processor has no bfloat16")
    return openvino(files, threads, INFERENCE_PRECISION_HINT="bf16")


def litert(files: Files, threads: int) -> Side:
    """LiteRT (TensorFlow Lite) with XNNPACK; the hidden stages in int8."""
    import ai_edge_litert
    import litert_model
    from ai_edge_litert.interpreter import Interpreter
    model = litert_model.build(spiking_file.load(files.export).arrays)
    by_batch: Dict[int, Interpreter] = {}

    def prepare(batch: int) -> Interpreter:
        interpreter = Interpreter(model_content=model, num_threads=threads)
        interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"],
                                        [batch, PAPER.image_size, PAPER.image_size, PAPER.channels])
        interpreter.allocate_tensors()
        return interpreter

    def run(x: np.ndarray) -> np.ndarray:
        interpreter = by_batch.get(len(x)) or by_batch.setdefault(len(x), prepare(len(x)))
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return Side(ai_edge_litert.__version__, run, prepared=True)
