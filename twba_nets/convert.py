"""Make a TensorFlow checkpoint into training.npz, from which PyTorch's trainer goes on: python -m twba_nets.convert."""
import argparse
from pathlib import Path

from twba_nets import command_line, npz, recipe as recipes
from twba_nets.errors import UserError
from twba_nets.files import make_folder


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m twba_nets.convert",
        description="Make a TensorFlow checkpoint into training.npz: all 596 variables, Adam's included. PyTorch's "
        "trainer goes on from it with --resume. (TensorFlow's --resume takes a training.npz as it is.)")
    parser.add_argument("checkpoint", type=Path,
                        help="a run's folder or a TensorFlow checkpoint, the original's included")
    parser.add_argument("--output", type=Path, metavar="DIR", help="the folder for training.npz and recipe.json "
                        "(default: the checkpoint's)")
    command_line.add_initial_epoch(parser)
    args = parser.parse_args(argv)
    with command_line.one_line_for_mistakes("stopped"):
        convert(args.checkpoint, args.output, args.initial_epoch)


def convert(source, output=None, initial_epoch=0):
    """Write training.npz (and the recipe) into the folder `output`. Raises UserError if `source` is no checkpoint."""
    command_line.quieten_tensorflow()
    from twba_nets import checkpoint
    prefix = checkpoint.locate(source)
    if prefix.suffix == ".npz":
        raise UserError("%s: is no TensorFlow checkpoint" % prefix)
    epoch = checkpoint.epoch_of(prefix)
    path = (output or prefix.parent) / npz.TRAINING_NAME
    make_folder(path.parent)
    npz.save_training(path, checkpoint.read_training(prefix), initial_epoch if epoch is None else epoch)
    recipe = recipes.load(prefix)
    if recipe:
        recipe.save(path.parent)
    print("%s: written" % path)


if __name__ == "__main__":
    main()
