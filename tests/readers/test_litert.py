"""LiteRT runs the benchmark's model (benchmarks/litert_model.py), whose hidden stages are int8."""
import sys
from pathlib import Path

from ai_edge_litert.interpreter import Interpreter

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import litert_model
from twba_chip.spiking import reference
from twba_nets.network.architecture import PAPER


def test_images_give_nearly_the_references_logits(network):
    images = reference.central_crop(network.images, PAPER)
    interpreter = Interpreter(model_content=litert_model.build(network.exported.arrays))
    interpreter.resize_tensor_input(0, images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(0, images)
    interpreter.invoke()
    logits = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    network.assert_nearly_equal(logits)
