"""The oldest ONNX Runtime that reads the ONNX files. (The newest: tests/pytorch/test_onnx.py.)"""
import numpy as np
import onnxruntime
import pytest

forms = pytest.mark.parametrize("form, spike", [("integers", np.uint8(255)), ("floats", np.float32(1))])


def run(path, **inputs):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs)))


@forms
def test_hidden_spikes_are_the_references(network, form, spike):
    results = run(network.folder / f"{form}_hidden.onnx", bn0=network.maps["bn0"] * spike)
    network.assert_equal({name: map == spike for name, map in results.items()})
    np.testing.assert_array_equal(results["logits"].argmax(1), network.predictions)


@forms
def test_images_give_nearly_the_references_logits(network, form, spike):
    logits = run(network.folder / f"{form}.onnx", images=network.images)["logits"]
    network.assert_nearly_equal(logits)
