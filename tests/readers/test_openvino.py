"""OpenVINO runs both ONNX files if it is set to float32."""
import numpy as np
import openvino
import pytest

forms = pytest.mark.parametrize("form, spike", [("integers", np.uint8(255)), ("floats", np.float32(1))])


def run(path, inputs):
    model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return {output.any_name: value for output, value in model([inputs]).items()}


@forms
def test_hidden_spikes_are_the_references(network, form, spike):
    results = run(network.folder / f"{form}_hidden.onnx", network.maps["bn0"] * spike)
    network.assert_equal({name: map == spike for name, map in results.items()})
    np.testing.assert_array_equal(results["logits"].argmax(1), network.predictions)


@forms
def test_images_give_nearly_the_references_logits(network, form, spike):
    logits = run(network.folder / f"{form}.onnx", network.images)["logits"]
    network.assert_nearly_equal(logits)
