"""The flags of the example scripts. No framework is imported here, so that --help is there at once."""
import argparse
from pathlib import Path

from twba_nets import architecture, recipe as recipes
from twba_nets.cifar10 import ENVIRONMENT_VARIABLE

REPOSITORY = Path(__file__).resolve().parents[1]


def default_run(variant):
    """The folder of a run that was given no other."""
    return REPOSITORY / "runs" / variant


def training_parser(recipe, resume):
    """Flags of cifar10_*_example.py. A flag that is not given is None, so that a resumed run keeps its own recipe."""
    parser = argparse.ArgumentParser(
        description="Train %s-Net on CIFAR-10. Without a flag the paper's recipe is used, with --resume the "
        "recipe of the run that goes on. The output folder gets a checkpoint after every epoch "
        "(model_cifar10_advanced.ckpt-EPOCH and model.npz), recipe.json, log.csv, TensorBoard summaries and "
        "learning_curve.png." % recipe.variant.upper())
    _add_data_flags(parser)
    parser.add_argument("--dataset", choices=sorted(recipes.RECIPES),
                        help="cifar10, or digits: scikit-learn's 1,797 handwritten digits with a recipe of their own, "
                        "to try everything out without a download (default: %s)" % recipe.dataset)
    parser.add_argument("--output", type=Path, default=default_run(recipe.variant), metavar="DIR",
                        help="the run's folder (default: %s)" % default_run(recipe.variant).relative_to(REPOSITORY))
    parser.add_argument("--resume", nargs="?", const=True, default=resume, type=_resume_value, metavar="CHECKPOINT",
                        help="go on from the newest checkpoint in the output folder, or from the checkpoint named "
                        "here, the original's model_cifar10_advanced.ckpt included (default: %s)" % resume)
    parser.add_argument("--initial-epoch", type=_natural, default=0, metavar="N",
                        help="how many epochs the checkpoint has behind it, where its name does not say (the "
                        "original's); default 0")
    parser.add_argument("--activation", choices=architecture.ACTIVATIONS,
                        help="binary: {0, 1}, as the paper says. published: the three levels {0, 0.5, 1} that the "
                        "published binary.py computes (default: %s)" % recipe.activation)
    parser.add_argument("--epochs", type=_positive, metavar="N", help="train until N epochs are done (default: %d)"
                        % recipe.epochs)
    parser.add_argument("--batch-size", type=_positive, metavar="N", help="images a step (default: %d)"
                        % recipe.batch_size)
    rate = parser.add_mutually_exclusive_group()
    rate.add_argument("--learning-rate", type=float, metavar="RATE",
                      help="this constant rate from now on (the original's way: resume with a lower one)")
    rate.add_argument("--learning-rate-steps", type=_learning_rate_step, nargs="+", metavar="EPOCH:RATE",
                      help="the rate in force from each epoch, counted from 0 (default: %s)"
                      % " ".join("%d:%g" % step for step in recipe.learning_rate_steps))
    parser.add_argument("--seed", type=_natural, metavar="N", help="decides initial weights, order and augmentation "
                        "(default: %d)" % recipe.seed)
    return parser


def spikes_parser(variant):
    """Flags of cifar10_*_spikes.py."""
    parser = argparse.ArgumentParser(
        description="Evaluate a %s-Net on the test images, each exactly once, and count its spikes: one sum for each "
        "batch of 200, as the original prints it, then a table over the eight counted maps. The first convolution and "
        "the last 1x1 convolution are computed off chip and not counted." % variant.upper())
    _add_data_flags(parser)
    parser.add_argument("--checkpoint", type=Path, default=default_run(variant), metavar="PATH",
                        help="a run's folder, a TensorFlow checkpoint or an npz (default: %s)"
                        % default_run(variant).relative_to(REPOSITORY))
    parser.add_argument("--allow-pickle", action="store_true", help="read the original's pickled model.npz; loading a "
                        "pickle can run any code, so only do this with a file that you trust")
    parser.add_argument("--dataset", choices=sorted(recipes.RECIPES),
                        help="default: what the checkpoint was trained on")
    parser.add_argument("--activation", choices=architecture.ACTIVATIONS,
                        help="default: what the checkpoint was trained with, binary where nothing beside it says so")
    parser.add_argument("--limit", type=_positive, metavar="N", help="only the first N test images")
    parser.add_argument("--batch-size", type=_positive, default=200, metavar="N", help="images a batch (default: 200)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures to this file")
    return parser


def _add_data_flags(parser):
    parser.add_argument("--data-dir", type=Path, metavar="DIR",
                        help="a folder with cifar-10-batches-py/ or the archive cifar-10-python.tar.gz (default: $%s, "
                        "else data/, where the archive is downloaded to)" % ENVIRONMENT_VARIABLE)
    parser.add_argument("--threads", type=_natural, default=0, metavar="N", help="CPU cores to use (default: all)")


def _resume_value(text):
    return {"true": True, "false": False}.get(text.lower(), text)


def _natural(text):
    if not text.isdigit():
        raise argparse.ArgumentTypeError("%r is not a number from 0 on" % text)
    return int(text)


def _positive(text):
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError("%r is not a number from 1 on" % text)
    return int(text)


def _learning_rate_step(text):
    try:
        epoch, rate = text.split(":")
        return int(epoch), float(rate)
    except ValueError:
        raise argparse.ArgumentTypeError("%r is not EPOCH:RATE, as in 200:0.001" % text)
