"""The subject of the checks: a device, and a trainer on it."""
import dataclasses
import functools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from twba_nets.network.architecture import PAPER
from twba_nets.runs import recipe as recipes
from twba_nets.system import places
from twba_nets.datasets.dataset import Dataset
from twba_torch import training

RECIPE = recipes.paper("twba")


def noise(images, test_images):
    """A data set of random images in CIFAR-10's shape."""
    random = np.random.RandomState(0)
    x, y = ((random.randint(0, high, (images + test_images, *shape)).astype(dtype))
            for high, shape, dtype in ((256, (32, 32, 3), np.uint8), (PAPER.classes, (), np.int32)))
    return Dataset("noise", x[:images], y[:images], x[images:], y[images:], flip=True)


@dataclasses.dataclass
class Subject:
    """device: to test. compiled: whether steps are compiled. folder: for files; removed in the end."""
    device: torch.device
    compiled: bool
    folder: Path

    def __post_init__(self):
        self.on_gpu = self.device.type == "cuda"
        self.first_step_seconds = {}  # cold and warm

    @functools.cached_property
    def trainer(self):
        """A trainer on as many images as in CIFAR-10; on a CPU on two batches."""
        images = (50000, 10000) if self.on_gpu else (2 * RECIPE.batch_size,) * 2
        return training.Trainer(RECIPE, noise(*images), self.device, compiled=self.compiled)

    def epochs(self, name, *flags, processes=1):
        """Train on noise in separate processes (epochs.py). Returns the folder, and the seconds to the end of the first step."""
        command = [sys.executable, "-W", "ignore"]
        if processes > 1:
            command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command += ["tests/gpu/epochs.py", str(self.folder / name), *map(str, flags)]
        # several processes choose their GPUs themselves
        command += ["--device", self.device.type if processes > 1 else str(self.device), *["--no-compile"] * (not self.compiled)]
        done = subprocess.run(command, cwd=places.HOME, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return self.folder / name, json.loads(done.stdout.splitlines()[-1])

    def wait(self):
        """Wait until the device has finished all its work."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)
