"""TVM compiles the float ONNX file."""
import numpy as np
import onnx
import tvm
from tvm import relax
from tvm.relax.frontend.onnx import from_onnx


def run(path, **inputs):
    """A model's outputs, name -> array. TVM compiles it for this number of images."""
    model = onnx.load(path)
    module = from_onnx(model, shape_dict={name: list(value.shape) for name, value in inputs.items()})
    machine = relax.VirtualMachine(tvm.compile(module, target="llvm"), tvm.cpu())
    outputs = machine["main"](*(tvm.runtime.tensor(value) for value in inputs.values()))
    names = [output.name for output in model.graph.output]
    return dict(zip(names, [output.numpy() for output in (outputs if len(names) > 1 else [outputs])]))


def test_hidden_spikes_are_the_references(network):
    results = run(network.folder / "floats_hidden.onnx", bn0=network.spikes)
    network.assert_equal(results)
    np.testing.assert_array_equal(results["logits"].argmax(1), network.predictions)


def test_images_give_nearly_the_references_logits(network):
    logits = run(network.folder / "floats.onnx", images=network.images)["logits"]
    network.assert_nearly_equal(logits)
