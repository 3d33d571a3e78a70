"""ncnn runs the hidden stages of the float ONNX file, converted by pnnx. (It cannot cast images from uint8.)"""
import shutil
import subprocess
import sys
from pathlib import Path

import ncnn
import numpy as np
import pytest

from conftest import HIDDEN

PNNX = Path(sys.executable).with_name("pnnx")
IMAGES = 20


@pytest.fixture(scope="module")
def converted(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp(network.name)
    shutil.copy(network.folder / "floats_hidden.onnx", folder)
    subprocess.run([PNNX, "floats_hidden.onnx", "inputshape=[1,64,24,24]f32", "fp16=0"], cwd=folder, check=True)
    return folder / "floats_hidden.ncnn.param", folder / "floats_hidden.ncnn.bin"


def load(converted):
    net = ncnn.Net()
    net.opt.num_threads = 2
    # Winograd's sums are not integers
    net.opt.use_winograd_convolution = net.opt.use_fp16_storage = net.opt.use_bf16_storage = False
    assert net.load_param(str(converted[0])) == net.load_model(str(converted[1])) == 0
    return net


def run(net, spikes):
    """One image's input spikes [C, H, W] -> the outputs in the file's order."""
    extractor = net.create_extractor()
    extractor.input("in0", ncnn.Mat(spikes).clone())
    return [np.array(extractor.extract(f"out{index}")[1]) for index in range(len(HIDDEN) + 1)]


def test_hidden_spikes_are_the_references(network, converted):
    net = load(converted)
    for index in range(IMAGES):
        *maps, logits = run(net, network.spikes[index])
        for name, spikes in zip(HIDDEN, maps):
            np.testing.assert_array_equal(spikes, network.maps[name][index], name)
        assert logits.argmax() == network.predictions[index]
