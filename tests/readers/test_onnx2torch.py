"""onnx2torch converts the float ONNX file to PyTorch modules."""
import numpy as np
import onnx
import torch

library = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):  # torchvision's wheel is for PyTorch with CUDA and cannot be imported without these operators
    library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
import onnx2torch


def test_hidden_spikes_are_the_references(network):
    model = onnx.load(network.folder / "floats_hidden.onnx")
    with torch.no_grad():
        outputs = onnx2torch.convert(model)(torch.from_numpy(network.spikes))
    results = {value.name: output.numpy() for value, output in zip(model.graph.output, outputs)}
    network.assert_equal(results)
    np.testing.assert_array_equal(results["logits"].argmax(1), network.predictions)


def test_images_give_nearly_the_references_logits(network):
    with torch.no_grad():
        logits = onnx2torch.convert(network.folder / "floats.onnx")(torch.from_numpy(network.images))
    network.assert_nearly_equal(logits.numpy())
