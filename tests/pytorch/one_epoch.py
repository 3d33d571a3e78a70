"""Train for an epoch on a few digits in as many processes as torchrun starts: one_epoch.py FOLDER.

In float64, with precise batch norm.
"""
import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from helpers import load_few_digits
from twba_nets.runs import recipe as recipes
from twba_torch import device as devices
from twba_torch.training import Trainer, train

folder = Path(sys.argv[1])
torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
data = load_few_digits(test_images=61)
recipe = dataclasses.replace(recipes.digits("twba"), epochs=1, precise_batch_norm=True)
with devices.prepared("cpu") as device:
    folder.mkdir(exist_ok=True)
    train(Trainer(recipe, data, device, exact=False, compiled=False), folder, 0)
devices.leave()
