"""Command-line flags of the scripts."""
import argparse
import math
import os
from pathlib import Path
from typing import Iterable, Tuple, Union

from twba_nets import datasets
from twba_nets.network import architecture, quantisers
from twba_nets.runs import provenance, recipe as recipes
from twba_nets.runs.about import About
from twba_nets.system import places
from twba_nets.datasets.cifar10 import ENVIRONMENT_VARIABLE
from twba_nets.datasets.dataset import Dataset
from twba_nets.system.errors import UserError
from twba_nets.system.files import read_json
from twba_nets.runs.recipe import Recipe
from twba_nets.runs.run_folder import MODEL_NAME, TRAINING_NAME

MOST = 2 ** 31 - 1  # the largest whole number a flag takes, such as the seed: a product of two fits into 64 bits
MOST_THREADS = 1024


def released_model(variant: str) -> Path:
    """The released checkpoint of a variant."""
    return places.released(variant) / MODEL_NAME


def default_run(variant: str) -> Path:
    """The default folder of a run."""
    return places.HOME / "runs" / variant


def training_parser(recipe: Recipe, resume: Union[bool, str]) -> argparse.ArgumentParser:
    """Flags of cifar10_*_example.py."""
    parser = argparse.ArgumentParser(
        description=f"Train {recipe.variant.upper()}-Net on CIFAR-10. The default is the paper's recipe; --resume keeps the "
        "recipe of the run. Every epoch writes a checkpoint to the output folder "
        "(model_cifar10_advanced.ckpt-EPOCH and model.npz), recipe.json, log.csv, TensorBoard summaries and "
        "learning_curve.png.")
    add_training_flags(parser, recipe)
    parser.set_defaults(output=default_run(recipe.variant))
    parser.add_argument("--resume", nargs="?", const=True, default=resume, type=resume_value, metavar="CHECKPOINT",
                        help="continue from the newest checkpoint in the output folder, or from this checkpoint, "
                        f"which may be the original's model_cifar10_advanced.ckpt (default: {resume})")
    add_initial_epoch(parser)
    add_graph(parser)
    return parser


def add_training_flags(parser: argparse.ArgumentParser, recipe: Recipe) -> None:
    """Flags of both frameworks' trainers. A flag that is absent is None, so a resumed run keeps its recipe."""
    add_data_flags(parser, "cifar10, cifar100, or digits: scikit-learn's 1,797 handwritten digits with their own recipe, "
                   f"for a first try without a download (default: {recipe.dataset})")
    add_threads(parser)
    parser.add_argument("--no-mirror", dest="mirror", action="store_false", default=None,
                        help="do not mirror training images, for data where left and right matter, such as digits")
    parser.add_argument("--output", type=path, metavar="DIR", help="the run's folder (default: runs/twba or runs/bwba)")
    parser.add_argument("--network", type=network_file, dest="architecture", metavar="FILE",
                        help="a TOML file with the network's table (default: the paper's, networks/paper.toml)")
    add_activation(parser, "binary: {0, 1}, as in the paper. three-level: {0, 0.5, 1}, as in the published binary.py "
                   f"(default: {recipe.activation})")
    parser.add_argument("--epochs", type=positive, metavar="N",
                        help=f"train up to N epochs in total (default: {recipe.epochs})")
    parser.add_argument("--batch-size", type=images_of_a_batch, metavar="N",
                        help=f"images per step (default: {recipe.batch_size})")
    parser.add_argument("--limit-train", type=positive, metavar="N",
                        help="for a first look: train only on the first N training images, at least one batch. A resumed "
                        "run keeps this limit and the next two; to drop them, start another run (--initial-weights)")
    parser.add_argument("--limit-test", type=positive, metavar="N",
                        help="for a first look: test only on the first N test images")
    parser.add_argument("--hold-out", type=positive, metavar="N",
                        help="hold out the last N training images and test on them instead of the test images, to choose "
                        "between recipes")
    steps = " ".join(f"{epoch}:{rate:g}" for epoch, rate in recipe.learning_rate_steps)
    rate = parser.add_mutually_exclusive_group()
    rate.add_argument("--learning-rate", type=above_zero, metavar="RATE",
                      help="a constant rate from now on (the original's way: resume with a lower one)")
    rate.add_argument("--learning-rate-steps", type=_learning_rate_step, nargs="+", metavar="EPOCH:RATE",
                      help=f"the rate from each epoch on, counted from 0 (default: {steps})")
    rate.add_argument("--linear-decay", type=above_zero, metavar="RATE", help="the rate falls linearly from RATE now to 0 "
                      "after the last epoch; give it again when you change --epochs")
    parser.add_argument("--initial-weights", type=model, metavar="CHECKPOINT",
                        help="start a new run from the weights and batch norm of this checkpoint, or of a released network "
                        "(twba); Adam and the epochs start from zero. A model.npz has quantised weights only; training then "
                        "starts from these, times 0.25. The variant must be the same. The activation may differ: a network "
                        "with two levels learns faster from one with three")
    parser.add_argument("--seed", type=natural, metavar="N",
                        help=f"seed of initial weights, order and augmentation (default: {recipe.seed})")


def add_activation(parser: argparse.ArgumentParser, help_text: str) -> None:
    """The flag --activation."""
    parser.add_argument("--activation", type=quantisers.canonical, choices=quantisers.ACTIVATIONS, help=help_text)


def add_initial_epoch(parser: argparse.ArgumentParser) -> None:
    """The flag --initial-epoch."""
    parser.add_argument("--initial-epoch", type=natural, default=0, metavar="N",
                        help="finished epochs of a checkpoint whose name does not give them, such as the original's "
                        "(default: 0)")


def check_out(out: Path, *inputs: Path) -> None:
    """Raise UserError if writing `out` would overwrite an input, or if `out` would be read as a checkpoint, card or recipe."""
    if out.exists() and any(path.exists() and out.samefile(path) for path in inputs):
        raise UserError(f"{out}: is itself an input: name another file to write")
    if out.name in (MODEL_NAME, TRAINING_NAME, recipes.FILE_NAME, provenance.FILE_NAME) or (
            out.suffix == ".json" and out.with_suffix(".npz").exists()):
        raise UserError(f"{out}: would be read as a checkpoint, its card or its recipe: name another file")


def check_kind(out: Path, magic: bytes, at: int = 0) -> None:
    """Raise UserError if writing `out` would overwrite a file of another kind. magic: the right kind's bytes from `at` on."""
    if out.is_file() and out.stat().st_size:
        with open(out, "rb") as file:
            file.seek(at)
            if file.read(len(magic)) != magic:
                raise UserError(f"{out}: holds something else: name another file")


def check_figures(path: Path) -> None:
    """Raise UserError if figures (--json) cannot be written there, would overwrite another file, or would be read as a card."""
    check_out(path)
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(f"--json {path}: cannot be written: name a file in an existing folder")
    if path.is_file() and path.stat().st_size:
        try:
            figures = "batch_sums" in read_json(path)
        except (ValueError, TypeError):
            figures = False
        if not figures:
            raise UserError(f"--json {path}: does not hold an evaluation's figures: name another file")


def path(text: str) -> Path:
    """A path of the command line."""
    if not text:  # such as an unset shell variable
        raise argparse.ArgumentTypeError("the path is empty")
    return Path(text)


def data_path(text: str) -> Path:
    """A path of the command line, made absolute: it holds from every folder and cannot equal a data set's name."""
    return Path(os.path.abspath(path(text)))


def network_file(text: str) -> architecture.Architecture:
    """The network in a TOML file."""
    try:
        return architecture.read(path(text))
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error))


def add_graph(parser: argparse._ActionsContainer) -> None:
    """The flag --graph of TensorFlow's scripts."""
    parser.add_argument("--graph", choices=("fast", "published"), default="fast", help="published: the network as the "
                        "published code builds it, group by group, in TensorLayer's layers; it takes 2.6 times as long to "
                        "train and 3 times as long to evaluate. fast: the same numbers in fewer operations. Both share "
                        "their checkpoints (default: fast)")


def add_allow_pickle(parser: argparse.ArgumentParser) -> None:
    """The flag --allow-pickle."""
    parser.add_argument("--allow-pickle", action="store_true", help="read the original's pickled model.npz; loading a "
                        "pickle can run any code, so use it only with a file that you trust")


def spikes_parser(variant: str) -> argparse.ArgumentParser:
    """Flags of cifar10_*_spikes.py."""
    parser = argparse.ArgumentParser(
        description=f"Evaluate a {variant.upper()}-Net on the test images, each exactly once, and count its spikes: one sum "
        "for each batch of 200, as the original prints it, then a table of the counted maps. These are all maps of spikes "
        "except the last, which the original computes off chip: eight in the paper's network.")
    parser.add_argument("--checkpoint", type=model, default=variant, metavar="PATH",
                        help=f"a released model ({', '.join(places.RELEASED)}), a run's folder, a TensorFlow checkpoint or an "
                        "npz (default: %(default)s)")
    add_allow_pickle(parser)
    add_activation(parser, "default: as in the card or recipe beside the checkpoint; required if there is neither, as for "
                   "the original's")
    add_evaluation_flags(parser)
    how = parser.add_mutually_exclusive_group()
    add_graph(how)
    how.add_argument("--engine", action="store_true", help="compute with the compiled integer engine instead of "
                     "TensorFlow: several times as fast, binary activations only, needs a C compiler")
    return parser


def add_evaluation_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of every evaluation on test images."""
    add_data_flags(parser)
    add_threads(parser)
    parser.add_argument("--limit", type=positive, metavar="N", help="evaluate only the first N test images")
    parser.add_argument("--batch-size", type=images_of_a_batch, default=200, metavar="N",
                        help="images per batch (default: 200)")
    parser.add_argument("--json", type=path, metavar="FILE", help="also write all figures to this file")


def load_data(args: argparse.Namespace, about: About, network: Union[str, Path], limit: int = None) -> Dataset:
    """The data that --data or --dataset names, else those that the network was trained on.

    network: its name, for the error. limit: keep only the first test images.
    """
    source = args.data or args.dataset or about.data
    if not source:
        raise UserError(f"{network}: does not say what it was trained on: name its data with --data or --dataset")
    data = datasets.load(source, about.architecture.picture_shape, about.architecture.classes, args.data_dir)
    datasets.require_same_classes(source, data.class_names, str(network), about.class_names)
    datasets.warn_of_empty_classes(str(source), "test", data.y_test, data.class_names)
    datasets.warn_if_sorted(str(source), data.y_test, data.y_test[:limit])
    return data._replace(x_test=data.x_test[:limit], y_test=data.y_test[:limit])


def add_network(parser: argparse.ArgumentParser, names: Iterable[str] = ("twba", "bwba", "twba-paper"),
                kinds: str = "a run's folder, a model.npz or an exported file", **options) -> None:
    """The first argument of the commands without a framework: a network. names: the released ones to list in --help."""
    parser.add_argument("network", type=model, help=f"a released network ({', '.join(names)}), {kinds}"
                        + (" (default: %(default)s)" if "default" in options else ""), **options)


def model(text: str) -> Union[str, Path]:
    """A released model's name (str), or a path of the command line (Path)."""
    return text if text in places.RELEASED else path(text)


def stopped(folder: Path, saved: str) -> str:
    """The line that a trainer prints after Ctrl-C: `saved`, which says how to resume, if there is a checkpoint."""
    found = [path for name in ("*.ckpt*.index", TRAINING_NAME) for path in folder.glob(name)]
    return "stopped; " + (saved if found else "no epoch is saved yet: begin again")


def add_data_flags(parser: argparse.ArgumentParser, which: str = "default: what the model was trained on") -> None:
    """The flags that name a data set. which: the help text of --dataset."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--dataset", choices=sorted(datasets.NAMES), help=which)
    what.add_argument("--data", type=data_path, metavar="PATH", help="your own data: an npz with x_train, x_test (uint8 "
                      "[N, S, S, C]), y_train, y_test (integers [N]) and optionally class_names; or a folder with pictures in "
                      "train/CLASS/ and test/CLASS/, which are scaled to the network's size")
    parser.add_argument("--data-dir", type=path, metavar="DIR",
                        help="a folder with cifar-10-batches-py/ or the archive cifar-10-python.tar.gz (default: "
                        f"${ENVIRONMENT_VARIABLE}, else data/, into which it is downloaded); for cifar100 a folder with "
                        "cifar-100-python/ (default: $CIFAR100_DIR, else data/)")


def add_threads(parser: argparse.ArgumentParser) -> None:
    """The flag --threads."""
    parser.add_argument("--threads", type=threads, default=0, metavar="N", help="CPU cores to use (default: all)")


def resume_value(text: str) -> Union[bool, str]:
    """The value of --resume: True, False or a checkpoint."""
    if not text:
        raise argparse.ArgumentTypeError("the checkpoint is empty: leave it out for the newest in the output folder")
    return {"true": True, "false": False}.get(text.lower(), text)


def natural(text: str, least: int = 0, most: int = MOST) -> int:
    """A whole number of the command line from `least` to `most`."""
    if not text.isdecimal() or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least} to {most}")
    return int(text)


def positive(text: str) -> int:
    return natural(text, least=1)


def images_of_a_batch(text: str) -> int:
    return natural(text, least=1, most=recipes.MOST_IMAGES)


def threads(text: str) -> int:
    return natural(text, most=MOST_THREADS)


def above_zero(text: str) -> float:
    """A number of the command line, above 0 and within float32's range."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 1e-37 < value < 1e38:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 within float32's range")
    return value


def _learning_rate_step(text: str) -> Tuple[int, float]:
    epoch, colon, rate = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"{text!r} is not EPOCH:RATE, as in 200:0.001")
    return natural(epoch), above_zero(rate)
