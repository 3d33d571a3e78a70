"""Shared by the readers' tests: a released network's files and their expected results."""
import os
import sys
from pathlib import Path
from typing import Dict

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from twba_chip.spiking import opening, reference

FILES = Path(os.environ["READERS_FILES"])  # the folder that make_files.py wrote
HIDDEN = ("cnn1", "cnn2", "cnn4", "cnn6", "cnn7", "cnn8", "cnn10", "cnn11")


class Network:
    """images: uint8 [N, 32, 32, 3]. maps: name -> bool [N, C, H, W], "bn0" (the input spikes) first."""

    def __init__(self, name: str):
        self.name, self.folder = name, FILES / name
        with np.load(self.folder / "reference.npz") as archive:
            self.maps = {key: archive[key] for key in archive.files}
        self.images, self.predictions = self.maps.pop("images"), self.maps.pop("predictions")
        self.spikes = self.maps["bn0"].astype(np.float32)
        self.exported = opening.open_network(name)

    def assert_equal(self, maps: Dict[str, np.ndarray]) -> None:
        """Assert that a reader's hidden maps for `spikes`, and the predictions from them, are the reference's."""
        for name in HIDDEN:
            np.testing.assert_array_equal(maps[name], self.maps[name], name)
        logits = reference.classify(self.exported, np.moveaxis(maps["cnn11"], 1, 3))
        np.testing.assert_array_equal(logits.argmax(1), self.predictions)

    def assert_nearly_equal(self, logits: np.ndarray) -> None:
        """Assert that a reader's logits for `images` are the reference's, except for some images: there a potential is so close
        to the threshold that rounding flips an input spike. Few of these are classified differently.
        """
        expected = reference.classify(self.exported, np.moveaxis(self.maps["cnn11"], 1, 3))
        assert (np.abs(logits - expected).max(axis=1) < 1e-4).mean() > 0.7
        assert (logits.argmax(1) == self.predictions).mean() >= 0.97


@pytest.fixture(scope="module", params=["twba", "bwba"])
def network(request) -> Network:
    return Network(request.param)
