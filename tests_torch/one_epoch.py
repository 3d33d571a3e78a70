"""Train for an epoch on a few digits in float64, in as many processes as torchrun starts: one_epoch.py FOLDER."""
import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from twba_nets import recipe as recipes
from twba_nets.datasets import digits
from twba_torch import device as devices
from twba_torch.training import Trainer, train

folder = Path(sys.argv[1])
torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
data = digits.load()
data = data._replace(x_train=data.x_train[:110], y_train=data.y_train[:110], x_test=data.x_test[:61],
                     y_test=data.y_test[:61])
recipe = dataclasses.replace(recipes.digits("twba"), epochs=1)
with devices.prepared("cpu") as device:
    folder.mkdir(exist_ok=True)
    train(Trainer(recipe, data, device, exact=False, compiled=False), folder, 0)
