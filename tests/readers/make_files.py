"""Write the files for the readers' tests: the released networks' exports, and the NumPy reference's results on 100 images.

    python tests/readers/make_files.py FOLDER

The images are CIFAR-10's first test images if CIFAR10_DIR names its folder, else handwritten digits.
"""
import os
import sys
from pathlib import Path

import numpy as np
import onnx

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from twba_chip.formats import nir_graph as export_nir, onnx_model as export_onnx, qonnx_model as export_qonnx
from twba_chip.spiking import reference
from twba_chip.spiking.file import SpikingNetwork
from twba_chip.spiking.opening import open_network
from twba_nets.datasets import cifar10, digits
from twba_nets.network.architecture import PAPER
from twba_nets.system.arrays import Arrays

IMAGES = 100


def main(folder: Path) -> None:
    cifar10_dir = os.environ.get(cifar10.ENVIRONMENT_VARIABLE)
    data = cifar10.load(Path(cifar10_dir)) if cifar10_dir else digits.load()
    for name in ("twba", "bwba"):
        _write_network(name, folder / name, data.x_test[:IMAGES])


def _write_network(name: str, folder: Path, images: np.ndarray) -> None:
    folder.mkdir(parents=True)
    export_nir.main([name, str(folder / "network.nir")])
    export_nir.main([name, str(folder / "groups.nir"), "--groups"])
    export_qonnx.main([name, str(folder / "network.qonnx")])
    export_qonnx.main([name, str(folder / "hidden.qonnx"), "--hidden"])
    for form, flags in (("integers", []), ("floats", ["--float"])):
        export_onnx.main([name, str(folder / f"{form}.onnx"), *flags])
        _write_hidden(folder / f"{form}.onnx", folder / f"{form}_hidden.onnx")
    np.savez(folder / "reference.npz", images=images, **_reference(open_network(name), images))


def _write_hidden(model: Path, out: Path) -> None:
    """Write the part of a model from the input spikes on, with its maps as outputs."""
    hidden = onnx.utils.Extractor(onnx.load(model)).extract_model(["bn0"], [*list(PAPER.map_shapes)[1:], "logits"])
    onnx.save(hidden, out)


def _reference(network: SpikingNetwork, images: np.ndarray) -> Arrays:
    """The nine maps bool [N, C, H, W], and the predictions."""
    maps = {"bn0": reference.encode(network, reference.central_crop(images, PAPER))}
    maps.update(reference.forward(network, maps["bn0"]))
    predictions = reference.classify(network, maps["cnn11"]).argmax(1)
    return {"predictions": predictions, **{name: spikes.transpose(0, 3, 1, 2) for name, spikes in maps.items()}}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
