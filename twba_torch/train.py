"""Train a TWBA-Net or BWBA-Net with PyTorch: python -m twba_torch.train --variant twba. --help lists all flags."""
from twba_nets import interrupts

if __name__ == "__main__":
    interrupts.exit_at_once()  # the imports below take seconds

import argparse
import contextlib
import os
import re
from pathlib import Path

import torch

from twba_nets import architecture, card, command_line, datasets, npz, recipe as recipes
from twba_nets.errors import UserError
from twba_nets.files import claimed
from twba_nets.journal import is_cut_short, read_log
from twba_torch import device as devices, training, variables

PRECISIONS = {
    "exact": "int8 (CPU) or float16 (GPU) forward passes of the hidden stages, which lose no bit; backward, gradients are "
             "rounded to bfloat16",
    "float32": "all in float32",
    "float64": "all in float64, to compare with TensorFlow",
}


def parse(argv):
    """The flags that both frameworks share, and PyTorch's own."""
    parser = argparse.ArgumentParser(
        prog="python -m twba_torch.train",
        description="Train a TWBA-Net or BWBA-Net on a GPU or CPU; in several processes by `torchrun "
        "--nproc-per-node N -m twba_torch.train ...`. Without further flags the paper's recipe is used, with --resume "
        "the recipe of the run that goes on. The output folder gets training.npz (all variables, Adam's included), "
        "model.npz with its card model.json, recipe.json, log.csv and learning_curve.png.")
    parser.add_argument("--variant", choices=architecture.VARIANTS, required=True,
                        help="twba: ternary weights; bwba: binary weights")
    command_line.add_training_flags(parser, recipes.paper("twba"))
    parser.add_argument("--resume", nargs="?", const=True, default=False, type=command_line.resume_value,
                        metavar="CHECKPOINT",
                        help="go on from the output folder's training.npz, or from the one named here; of TensorFlow's "
                        "checkpoints one is made by python -m twba_tensorflow.convert")
    parser.add_argument("--minutes", type=command_line.above_zero, metavar="N",
                        help="stop after the epoch in which N minutes are over, all saved: for runs in pieces")
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: a GPU if there is one)")
    parser.add_argument("--precision", choices=list(PRECISIONS), default="exact",
                        help="; ".join("%s: %s" % item for item in PRECISIONS.items()) + " (default: exact)")
    parser.add_argument("--no-compile", action="store_true", help="do not fuse operations by torch.compile, which on "
                        "a CPU takes g++ and a minute")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse(argv)
    args.output = args.output or command_line.default_run(args.variant)
    saved = "go on from the last checkpoint with --resume"
    with interrupts.one_line_for_mistakes(lambda: command_line.stopped(args.output, saved)):
        run(args)


def run(args):
    """Train as the command line says."""
    folder = args.output
    start, first_epoch = _starting_point(folder, args.resume)
    weights = _training_file(args.initial_weights)
    if weights:
        _epoch_of(weights)
    recipe = command_line.choose_recipe(recipes.paper(args.variant), start, args, first_epoch, weights)
    read_log(folder)  # a damaged one is better found now
    torch.set_default_dtype(torch.float64 if args.precision == "float64" else torch.float32)
    if first_epoch >= recipe.epochs:
        _complete(args, start, first_epoch)
        print("%s: %d of %d epochs are done; to train longer, give a higher --epochs"
              % (start, first_epoch, recipe.epochs))
        return
    data = datasets.load(recipe.dataset, args.data_dir)
    with devices.prepared(args.device, args.threads) as device:
        if device.type == "cpu":
            devices.check_cpu(args.precision == "exact", not args.no_compile)
        _train(args, recipe, data, device, start, first_epoch, weights)


def _train(args, recipe, data, device, start, first_epoch, weights):
    folder = args.output
    trainer = training.Trainer(recipe, data, device, args.precision == "exact", not args.no_compile)
    if start:
        variables.assign(npz.read_training(start), trainer.network, trainer.adam)
    elif weights:
        variables.assign(npz.read_training(weights), trainer.network)
    chief = trainer.rank == 0
    with _claimed(args, start, first_epoch) if chief else contextlib.nullcontext():
        if chief:
            recipe.save(folder)
            print("%s: %s on %s, %s activations, epochs %d to %d, batch size %d, seed %d, %s, %s"
                  % (folder, recipe.variant.upper(), recipe.dataset, recipe.activation, first_epoch + 1, recipe.epochs,
                     recipe.batch_size, recipe.seed, device, args.precision), flush=True)
        done = training.train(trainer, folder, first_epoch, args.minutes)
    if chief:
        print("%s: %d of %d epochs are done%s" % (folder, done, recipe.epochs, "" if done == recipe.epochs else
                                                  ": go on with --resume"))


def _training_file(named):
    """The training.npz that is named by itself or by its folder; None if none is named."""
    path = Path(named) if named else None
    return path / npz.TRAINING_NAME if path and path.is_dir() else path


def _complete(args, start, first_epoch):
    """Make up for what a kill during the run's last save left undone. Flags change no run that is trained."""
    recipe = card.load_recipe(start)
    ours = start.resolve() == (args.output / npz.TRAINING_NAME).resolve() and os.environ.get("RANK", "0") == "0"
    if ours and recipe and recipe.epochs == first_epoch and is_cut_short(args.output, first_epoch):
        with _claimed(args, start, first_epoch):
            training.complete(recipe, args.output, start, devices.find(args.device))
        print("%s: completed: model.npz, its card and the learning curve" % args.output)


@contextlib.contextmanager
def _claimed(args, start, first_epoch):
    """The output folder's claim. Until it is made another process may have trained into the folder."""
    with claimed(args.output):
        if _starting_point(args.output, args.resume) != (start, first_epoch):
            raise UserError("%s: another process has trained into this folder just now: start again" % args.output)
        yield


def _starting_point(folder, resume):
    """(the training.npz to go on from, or None; how many epochs it has behind it)."""
    newest = folder / npz.TRAINING_NAME
    start = newest if resume is True else _training_file(resume)
    here = start and start.parent.resolve() == folder.resolve()
    if (newest.exists() or _tensorflow_epoch(folder)) and not here:
        raise UserError("%s: holds a run already: go on with --resume, or name another folder with --output" % folder)
    if not here and (folder / npz.MODEL_NAME).exists():
        raise UserError("%s: holds a model already (%s): name another folder with --output" % (folder, npz.MODEL_NAME))
    return (start, _epoch_of(start)) if start else (None, 0)


def _epoch_of(path):
    """How many epochs a training.npz has behind it. Raises UserError if there is none, or if TensorFlow went further."""
    there = path.suffix == ".npz" and path.exists()
    epoch, tensorflow = npz.read_epoch(path) if there else -1, _tensorflow_epoch(path.parent)
    if tensorflow > max(epoch, 0):
        raise UserError("%s: TensorFlow took this run to epoch %d: make its checkpoint into a training.npz by "
                        "`.venv/bin/python -m twba_tensorflow.convert %s`" % (path, tensorflow, path.parent))
    if not there:
        raise UserError("%s: no checkpoint to go on from: name a run's folder or a training.npz (of TensorFlow's "
                        "checkpoints `.venv/bin/python -m twba_tensorflow.convert` makes one), or leave the flag out to "
                        "begin" % path)
    return epoch


def _tensorflow_epoch(folder):
    """The epoch of the newest of TensorFlow's checkpoints in a folder; 0 if there is none."""
    names = [re.search(r"\.ckpt-(\d+)\.index$", path.name) for path in folder.glob("*.index")]
    return max((int(name.group(1)) for name in names if name), default=0)


if __name__ == "__main__":
    main()
