"""Make a TensorFlow checkpoint into training.npz, from which PyTorch's trainer goes on: python -m twba_tensorflow.convert."""
from twba_nets import interrupts

if __name__ == "__main__":
    interrupts.exit_at_once()  # the imports below take seconds

import argparse
from pathlib import Path

from twba_nets import card, command_line, npz
from twba_nets.errors import UserError
from twba_nets.files import claimed
from twba_tensorflow import quieten_tensorflow


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m twba_tensorflow.convert",
        description="Make a TensorFlow checkpoint into training.npz: all 596 variables, Adam's included. PyTorch's "
        "trainer goes on from it with --resume. (TensorFlow's --resume takes a training.npz as it is.)")
    parser.add_argument("checkpoint", type=Path,
                        help="a run's folder or a TensorFlow checkpoint, the original's included")
    parser.add_argument("--output", type=command_line.path, metavar="DIR", help="the folder for training.npz and recipe.json "
                        "(default: the checkpoint's)")
    command_line.add_initial_epoch(parser)
    args = parser.parse_args(argv)
    with interrupts.one_line_for_mistakes("stopped"):
        convert(args.checkpoint, args.output, args.initial_epoch)


def convert(source, output=None, initial_epoch=0):
    """Write training.npz (and the recipe) into the folder `output`. Raises UserError if `source` is no checkpoint."""
    quieten_tensorflow()
    from twba_tensorflow import checkpoint
    prefix = checkpoint.locate(source)
    if prefix.suffix == ".npz":
        raise UserError("%s: is no TensorFlow checkpoint" % prefix)
    epoch = checkpoint.epoch_of(prefix)
    path = (output or prefix.parent) / npz.TRAINING_NAME
    epoch = initial_epoch if epoch is None else epoch
    recipe = card.load_recipe(prefix)
    _check_place(path, prefix, epoch)
    with claimed(path.parent):
        if recipe:
            recipe.save(path.parent)  # first: a training.npz without it would go on by the paper's recipe
        npz.save_training(path, checkpoint.read_training(prefix), epoch)
    print("%s: written" % path)


def _check_place(path, prefix, epoch):
    """Raise UserError where training.npz would take the place of another run's, or of a later epoch's."""
    from twba_tensorflow import checkpoint
    if path.parent.resolve() != prefix.parent.resolve() and checkpoint.newest(path.parent):
        raise UserError("%s: holds a run already: name another folder with --output" % path.parent)
    if path.exists() and npz.read_epoch(path) > epoch:
        raise UserError("%s: is at epoch %d already, and %s at %d: name another folder with --output"
                        % (path, npz.read_epoch(path), prefix.name, epoch))


if __name__ == "__main__":
    main()
