"""Make a TensorFlow checkpoint into training.npz, from which PyTorch's trainer goes on: python -m twba_tensorflow.convert."""
from twba_nets.system import interrupts

if __name__ == "__main__":
    interrupts.exit_at_once()  # the imports below take seconds

import argparse
from pathlib import Path
from typing import Optional, Sequence

from twba_nets import command_line
from twba_nets.network.architecture import PAPER
from twba_nets.runs import card, npz, provenance, run_folder
from twba_nets.system.errors import UserError
from twba_nets.system.files import claimed
from twba_tensorflow import quieten_tensorflow


def main(argv: Optional[Sequence[str]] = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m twba_tensorflow.convert",
        description="Make a TensorFlow checkpoint into training.npz: all variables, Adam's included. PyTorch's "
        "trainer goes on from it with --resume. (TensorFlow's --resume takes a training.npz as it is.)")
    parser.add_argument("checkpoint", type=Path,
                        help="a run's folder or a TensorFlow checkpoint, the original's included")
    parser.add_argument("--output", type=command_line.path, metavar="DIR", help="the folder for training.npz and recipe.json "
                        "(default: the checkpoint's)")
    command_line.add_initial_epoch(parser)
    args = parser.parse_args(argv)
    with interrupts.one_line_for_mistakes("stopped"):
        convert(args.checkpoint, args.output, args.initial_epoch)


def convert(source: Path, output: Optional[Path] = None, initial_epoch: int = 0) -> None:
    """Write training.npz (and the recipe) into the folder `output`. Raises UserError if `source` is no checkpoint.

    output: by default the checkpoint's folder. initial_epoch: how many epochs a checkpoint without an epoch has behind it.
    """
    quieten_tensorflow()
    from twba_tensorflow import checkpoint
    prefix = run_folder.locate(source)
    if prefix.suffix == ".npz":
        raise UserError(f"{prefix}: is no TensorFlow checkpoint")
    epoch = run_folder.epoch_of(prefix)
    epoch = initial_epoch if epoch is None else epoch
    path = (output or prefix.parent) / run_folder.TRAINING_NAME
    recipe = card.load_recipe(prefix)
    _check_place(path, prefix, epoch)
    with claimed(path.parent):
        if recipe:
            recipe.save(path.parent)  # first: a training.npz without it would go on by the paper's recipe
        if path.parent.resolve() != prefix.parent.resolve():
            provenance.carry(prefix.parent, path.parent, epoch)
        architecture = recipe.architecture if recipe else PAPER
        npz.save_training(path, checkpoint.read_training(prefix, architecture), epoch)
    print(f"{path}: written")


def _check_place(path: Path, prefix: Path, epoch: int) -> None:
    """Raise UserError where training.npz would take the place of another run's, or of a later epoch's."""
    if path.parent.resolve() != prefix.parent.resolve() and run_folder.newest(path.parent):
        raise UserError(f"{path.parent}: holds a run already: name another folder with --output")
    if path.exists() and npz.read_epoch(path) > epoch:
        raise UserError(f"{path}: is at epoch {npz.read_epoch(path)} already, and {prefix.name} at {epoch}: name another folder "
                        "with --output")


if __name__ == "__main__":
    main()
