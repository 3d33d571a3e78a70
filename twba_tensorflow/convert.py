"""Convert a TensorFlow checkpoint to training.npz for PyTorch's trainer: python -m twba_tensorflow.convert."""
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
        description="Convert a TensorFlow checkpoint to training.npz, with all variables including Adam's. PyTorch's "
        "trainer continues from it with --resume. (TensorFlow's --resume takes a training.npz directly.)")
    parser.add_argument("checkpoint", type=command_line.path,
                        help="a run's folder or a TensorFlow checkpoint, which may be the original's")
    parser.add_argument("--output", type=command_line.path, metavar="DIR", help="the folder for training.npz and recipe.json "
                        "(default: the checkpoint's)")
    command_line.add_initial_epoch(parser)
    args = parser.parse_args(argv)
    with interrupts.one_line_for_mistakes("stopped"):
        convert(args.checkpoint, args.output, args.initial_epoch)


def convert(source: Path, output: Optional[Path] = None, initial_epoch: int = 0) -> None:
    """Write training.npz (and the recipe) into the folder `output`, by default the checkpoint's.

    initial_epoch: finished epochs of a checkpoint that does not tell. Raises UserError if `source` is not a TensorFlow
    checkpoint, or if the folder holds another run.
    """
    quieten_tensorflow()
    from twba_tensorflow import checkpoint
    prefix = run_folder.locate(source)
    if prefix.suffix == ".npz":
        raise UserError(f"{prefix}: is not a TensorFlow checkpoint: name one")
    epoch = run_folder.epoch_of(prefix)
    epoch = initial_epoch if epoch is None else epoch
    path = (output or prefix.parent) / run_folder.TRAINING_NAME
    recipe = card.load_recipe(prefix)
    _check_place(path, prefix, epoch)
    with claimed(path.parent):
        if recipe:
            recipe.save(path.parent)  # first: without it training.npz would continue with the paper's recipe
        if path.parent.resolve() != prefix.parent.resolve():
            provenance.carry(prefix.parent, path.parent, epoch)
        architecture = recipe.architecture if recipe else PAPER
        npz.save_training(path, checkpoint.read_training(prefix, architecture), epoch)
    print(f"{path}: written")


def _check_place(path: Path, prefix: Path, epoch: int) -> None:
    """Raise UserError if training.npz would join another run or overwrite one of a later epoch."""
    if path.parent.resolve() != prefix.parent.resolve() and run_folder.newest(path.parent):
        raise UserError(f"{path.parent}: holds a run already: name another folder with --output")
    if path.exists() and npz.read_epoch(path) > epoch:
        raise UserError(f"{path}: is already at epoch {npz.read_epoch(path)}, but {prefix.name} is at {epoch}: name another "
                        "folder with --output")


if __name__ == "__main__":
    main()
