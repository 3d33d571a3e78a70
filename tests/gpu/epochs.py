"""Train on noise in a separate process, or in those that torchrun starts: python tests/gpu/epochs.py FOLDER. See subject.py."""
import time

STARTED = time.time()

import argparse
import json
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

import torch

from gpu.subject import RECIPE, noise
from twba_nets.network.architecture import PAPER
from twba_nets.runs import npz
from twba_torch import device as devices, variables
from twba_torch.training import Trainer


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--float64", action="store_true")
    parser.add_argument("--no-compile", action="store_true")
    args = parser.parse_args()
    if args.float64:
        torch.set_default_dtype(torch.float64)
    with devices.prepared(args.device) as device:
        trainer = Trainer(RECIPE, noise(500, 250), device, exact=not args.float64, compiled=not args.no_compile)
        first = npz.read_epoch(args.resume) if args.resume else 0
        if args.resume:
            variables.assign(npz.read_training(args.resume, PAPER), trainer.network, trainer.adam)
        seconds = first_step_seconds(trainer)
        for epoch in range(first, args.epochs):
            trainer.train_and_test(epoch)
            if trainer.rank == 0:
                folder = args.folder / str(epoch + 1)
                folder.mkdir(parents=True)
                trainer.saving(folder, epoch + 1)()
        if trainer.rank == 0:
            print(json.dumps(seconds[0]))
    devices.leave()


def first_step_seconds(trainer):
    """A list that will collect the seconds from this process's start to the end of each step."""
    seconds, step = [], trainer.train_batch

    def timed(*arguments):
        totals = step(*arguments).tolist()
        seconds.append(time.time() - STARTED)
        return torch.tensor(totals, dtype=torch.float64, device=trainer.device)

    trainer.train_batch = timed
    return seconds


if __name__ == "__main__":
    main()
