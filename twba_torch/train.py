"""Train a TWBA-Net or BWBA-Net with PyTorch: python -m twba_torch.train --variant twba. --help lists all flags."""
from twba_nets.system import interrupts

if __name__ == "__main__":
    interrupts.exit_at_once("setup-torch")  # the imports below take seconds

import argparse
import contextlib
from collections.abc import Sequence
from pathlib import Path

import torch

from twba_nets import command_line
from twba_nets.network import quantisers
from twba_nets.runs import npz, recipe as recipes, run_folder
from twba_nets.datasets.dataset import Dataset
from twba_nets.system import streams
from twba_nets.system.errors import UserError
from twba_nets.runs.run_folder import TRAINING_NAME
from twba_nets.runs.training_run import TrainingRun, epochs_done
from twba_torch import device as devices, training, variables

PRECISIONS = {
    "exact": "the hidden stages in int8 (CPU) or float16 (GPU); the forward pass is exact, and the backward pass rounds "
             "gradients to bfloat16",
    "float32": "all in float32",
    "float64": "all in float64, to compare with TensorFlow",
}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags that both frameworks share, and PyTorch's own."""
    parser = argparse.ArgumentParser(
        prog="twba-nets train",
        description="Train a TWBA-Net or BWBA-Net on a GPU or CPU, or in several processes with `torchrun "
        "--nproc-per-node N -m twba_torch.train ...`. The default is the paper's recipe; --resume keeps the recipe of the "
        "run. The output folder gets training.npz (all variables, including Adam's), model.npz with its card model.json, "
        "recipe.json, log.csv, TensorBoard summaries and learning_curve.png.")
    parser.add_argument("--variant", choices=quantisers.WEIGHTS, required=True,
                        help="twba: ternary weights; bwba: binary weights")
    command_line.add_training_flags(parser, recipes.paper("twba"))
    parser.add_argument("--resume", nargs="?", const=True, default=False, type=command_line.resume_value,
                        metavar="CHECKPOINT",
                        help="continue from the output folder's training.npz, or from this one; python -m "
                        "twba_tensorflow.convert makes one from TensorFlow's checkpoints")
    parser.add_argument("--teacher", nargs="+", metavar="MODEL", help="also learn from the logits of this network on the same "
                        "distorted images, or from the mean of several: a released one (twba-published), a run's folder or an "
                        "npz. Give it again with --resume")
    parser.add_argument("--precise-batch-norm", action="store_true", default=None, help="after the last epoch, re-estimate "
                        "batch norm's statistics over all training images in one pass; otherwise they are those of about "
                        "the last ten batches")
    parser.add_argument("--minutes", type=command_line.above_zero, metavar="N",
                        help="save and stop after the epoch in which N minutes have passed, to train in pieces")
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: a GPU if there is one)")
    parser.add_argument("--precision", choices=list(PRECISIONS), default="exact",
                        help="; ".join(f"{name}: {what}" for name, what in PRECISIONS.items()) + " (default: exact)")
    parser.add_argument("--no-compile", action="store_true", help="do not fuse operations with torch.compile, which needs "
                        "g++ and a minute or two on a CPU")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    args.output = args.output or command_line.default_run(args.variant)
    saved = "continue from the last checkpoint with --resume"
    with interrupts.one_line_for_mistakes(lambda: command_line.stopped(args.output, saved)):
        train(args)
    devices.leave()


def train(args: argparse.Namespace) -> None:
    """Train according to the command line. Raises UserError."""
    run = TrainingRun(recipes.paper(args.variant), args, npz.read_latent, locate, chief=streams.is_chief())
    torch.set_default_dtype(torch.float64 if args.precision == "float64" else torch.float32)
    if run.is_done:
        run.end_without_training(lambda recipe: training.complete(recipe, run.folder, run.start))  # type: ignore[arg-type]
        return
    run.require_teachers()
    with devices.prepared(args.device, args.threads) as device:
        if device.type == "cpu":
            devices.check_cpu(args.precision == "exact", not args.no_compile)
        else:
            devices.check_gpu(not args.no_compile)
        try:
            _train_on(device, run, run.load_data())
        except torch.cuda.OutOfMemoryError as error:
            raise UserError(f"{device}: its memory is full ({str(error).splitlines()[0]}): use a smaller --batch-size, or "
                            "another --device")


def _train_on(device: torch.device, run: TrainingRun, data: Dataset) -> None:
    args, recipe = run.args, run.recipe
    trainer = training.Trainer(recipe, data, device, args.precision == "exact", not args.no_compile, run.teachers)
    if run.start:
        variables.assign(npz.read_training(run.start, run.recipe.architecture), trainer.network, trainer.adam)
    elif run.initial:
        variables.assign(run.initial, trainer.network)
    with run.claimed() if run.chief else contextlib.nullcontext():
        if run.chief:
            run.begin(device, args.precision)
        done = training.train(trainer, run.folder, run.first_epoch, args.minutes, args.precision)
    if run.chief:
        print(epochs_done(run.folder, done, recipe) + ("" if done == recipe.epochs else ": continue with --resume"))


def locate(source: str | Path) -> Path:
    """The training.npz named by `source`, the file itself or its folder.

    Raises UserError if there is none, or if the folder has a later TensorFlow checkpoint, which PyTorch cannot read.
    """
    path = Path(source)
    path = path / TRAINING_NAME if path.is_dir() else path
    there = path.suffix == ".npz" and path.exists()
    tensorflow = run_folder.newest_prefix(path.parent)
    epoch = npz.read_epoch(path) if there and tensorflow else 0
    if tensorflow and (run_folder.epoch_of(tensorflow) or 0) > epoch:
        raise UserError(f"{path}: TensorFlow took this run to epoch {run_folder.epoch_of(tensorflow)}: convert its checkpoint "
                        f"to a training.npz with `.venv/bin/python -m twba_tensorflow.convert {path.parent}`")
    if not there:
        raise UserError(f"{path}: no checkpoint to resume: name a run's folder or a training.npz (`.venv/bin/python -m "
                        "twba_tensorflow.convert` makes one from TensorFlow's checkpoints), or leave the flag out to start a "
                        "run")
    return path


if __name__ == "__main__":
    main()
