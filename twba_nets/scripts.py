"""The command lines of the example scripts. TensorFlow is imported only once arguments and data are in order."""
import argparse
import contextlib
import dataclasses
import os
import signal
import sys
import warnings
from pathlib import Path

from twba_nets import architecture, datasets, recipe as recipes, spikes
from twba_nets.cifar10 import ENVIRONMENT_VARIABLE
from twba_nets.errors import UserError
from twba_nets.files import write_json

RUNS = Path(__file__).resolve().parents[1] / "runs"
PUBLISHED_NOTE = ("note: with published (three-level) activations the sums add halves: "
                     "they are sums of activations, not spike counts")


def train(recipe, resume=False, argv=None):
    """Train by a recipe, as the command line (argv) amends it; the body of cifar10_*_example.py.

    resume: what --resume says where the command line does not: False, True (go on from the newest checkpoint in
    the output folder) or a checkpoint to go on from.
    """
    args = _training_parser(recipe, resume).parse_args(argv)
    with _exit_on_user_error():
        _train(recipe, args)


def count_spikes(variant, argv=None):
    """Evaluate a checkpoint and count its spikes; the body of cifar10_*_spikes.py."""
    args = _spikes_parser(variant).parse_args(argv)
    with _exit_on_user_error():
        _count_spikes(variant, args)


def _training_parser(recipe, resume):
    parser = argparse.ArgumentParser(
        description="Train %s-Net on CIFAR-10. Without a flag the paper's recipe is used, with --resume the "
        "recipe of the run that goes on. The output folder gets a checkpoint after every epoch "
        "(model_cifar10_advanced.ckpt-EPOCH and model.npz), recipe.json, log.csv, TensorBoard summaries and "
        "learning_curve.png." % recipe.variant.upper())
    _add_data_flags(parser)
    parser.add_argument("--dataset", choices=sorted(recipes.RECIPES),
                        help="cifar10, or digits: scikit-learn's 1,797 handwritten digits with a recipe of their own, "
                        "to try everything out without a download (default: %s)" % recipe.dataset)
    parser.add_argument("--output", type=Path, metavar="DIR", help="the run's folder (default: %s)"
                        % (RUNS.relative_to(RUNS.parent) / recipe.variant))
    parser.add_argument("--resume", nargs="?", const=True, default=resume, type=_resume_value, metavar="CHECKPOINT",
                        help="go on from the newest checkpoint in the output folder, or from the checkpoint named "
                        "here, the original's model_cifar10_advanced.ckpt included (default: %s)" % resume)
    parser.add_argument("--initial-epoch", type=_natural, default=0, metavar="N", help="how many epochs the checkpoint has behind it, "
                        "where its name does not say (the original's); default 0")
    parser.add_argument("--activation", choices=architecture.ACTIVATIONS,
                        help="binary: {0, 1}, as the paper says. published: the three levels {0, 0.5, 1} that the "
                        "published binary.py computes (default: %s)" % recipe.activation)
    parser.add_argument("--epochs", type=_positive, metavar="N", help="train until N epochs are done (default: %d)"
                        % recipe.epochs)
    parser.add_argument("--batch-size", type=_positive, metavar="N", help="images a step (default: %d)" % recipe.batch_size)
    rate = parser.add_mutually_exclusive_group()
    rate.add_argument("--learning-rate", type=float, metavar="RATE",
                      help="this constant rate from now on (the original's way: resume with a lower one)")
    rate.add_argument("--learning-rate-steps", type=_learning_rate_step, nargs="+", metavar="EPOCH:RATE",
                      help="the rate in force from each epoch, counted from 0 (default: %s)"
                      % " ".join("%d:%g" % step for step in recipe.learning_rate_steps))
    parser.add_argument("--seed", type=_natural, metavar="N", help="decides initial weights, order and augmentation "
                        "(default: %d)" % recipe.seed)
    return parser


def _spikes_parser(variant):
    parser = argparse.ArgumentParser(
        description="Evaluate a %s-Net on the test images, each exactly once, and count its spikes: one sum for each "
        "batch of 200, as the original prints it, then a table over the eight counted maps. The first convolution and "
        "the last 1x1 convolution are computed off chip and not counted." % variant.upper())
    _add_data_flags(parser)
    parser.add_argument("--checkpoint", type=Path, default=RUNS / variant, metavar="PATH",
                        help="a run's folder, a TensorFlow checkpoint or an npz (default: %s)"
                        % (RUNS.relative_to(RUNS.parent) / variant))
    parser.add_argument("--allow-pickle", action="store_true", help="read the original's pickled model.npz; loading a "
                        "pickle can run any code, so only do this with a file that you trust")
    parser.add_argument("--dataset", choices=sorted(recipes.RECIPES), help="default: what the checkpoint was trained on")
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


def _train(recipe, args):
    from twba_nets.training import train as run
    folder = args.output or RUNS / recipe.variant
    start = _starting_point(folder, args.resume)
    first_epoch = _first_epoch(start, args.initial_epoch)
    recipe = _choose_recipe(recipe, start, args, first_epoch)
    if first_epoch >= recipe.epochs:
        print("%s: %d of %d epochs are done; to train longer, give a higher --epochs"
              % (folder, first_epoch, recipe.epochs))
        return
    data = datasets.load(recipe.dataset, args.data_dir)
    folder.mkdir(parents=True, exist_ok=True)
    recipe.save(folder)
    print("%s: %s on %s, %s activations, epochs %d to %d, batch size %d, seed %d"
          % (folder, recipe.variant.upper(), recipe.dataset, recipe.activation, first_epoch + 1, recipe.epochs,
             recipe.batch_size, recipe.seed), flush=True)
    run(recipe, data, folder, start, first_epoch, args.threads)
    print("done: checkpoint, log and learning curve are in %s" % folder)


def _starting_point(folder, resume):
    """The checkpoint's prefix to go on from, or None for a fresh start."""
    from twba_nets import checkpoint
    newest = checkpoint.newest(folder)
    if resume is True:
        if newest is None:
            raise UserError("%s: no checkpoint to resume from: leave --resume out to begin" % folder)
        return newest
    start = checkpoint.locate(resume) if resume else None
    if newest and not (start and start.parent.resolve() == folder.resolve()):
        raise UserError("%s: holds a run already (%s): go on with --resume, or name another folder with --output"
                        % (folder, newest.name))
    return start


def _first_epoch(start, initial_epoch):
    from twba_nets import checkpoint
    if start is None:
        return 0
    epoch = checkpoint.epoch_of(start)
    if epoch is None:
        epoch = initial_epoch
        print("note: %s holds no epoch, as the original's checkpoints: going on from epoch %d (--initial-epoch)"
              % (start, epoch))
    return epoch


def _choose_recipe(recipe, start, args, first_epoch):
    """The recipe of the run that goes on, else the data set's, else the script's; with the command line's changes."""
    variant, stored = recipe.variant, recipes.load(start.parent) if start else None
    if stored:
        _require_same(stored, start, variant=variant, activation=args.activation, dataset=args.dataset, seed=args.seed)
        recipe = stored
    elif args.dataset:
        recipe = recipes.RECIPES[args.dataset](variant)
    names = ("activation", "epochs", "batch_size", "learning_rate_steps", "seed")
    recipe = dataclasses.replace(
        recipe, **{name: getattr(args, name) for name in names if getattr(args, name) is not None})
    if args.learning_rate is not None:
        recipe = recipe.with_learning_rate(args.learning_rate, first_epoch)
    return recipe


def _require_same(stored, path, **asked):
    """What a checkpoint was trained with (its recipe) cannot be asked to be something else."""
    for name, value in asked.items():
        found = getattr(stored, name)
        if value is not None and value != found:
            raise UserError("%s: its %s is %s, not %s: use the script and flags that fit it, or another file or folder"
                            % (path, name, found, value))


def _count_spikes(variant, args):
    from twba_nets import checkpoint
    path = checkpoint.locate(args.checkpoint)
    recipe = recipes.load(path.parent)
    if recipe:
        _require_same(recipe, path, variant=variant, activation=args.activation)
    else:
        recipe = dataclasses.replace(recipes.paper(variant), activation=args.activation or "binary")
        print("note: no recipe.json beside %s: taken for a %s checkpoint with %s activations"
              % (path, variant, recipe.activation))
    values = checkpoint.read(path, args.allow_pickle)
    checkpoint.check_variant(values, variant, path)
    data = datasets.load(args.dataset or recipe.dataset, args.data_dir)
    result = evaluate(values, recipe, data.x_test[:args.limit], data.y_test[:args.limit], args.batch_size, args.threads)
    _report(spikes.summarise(result, args.batch_size), recipe, path, args.json)


def evaluate(values, recipe, x, y, batch_size, threads=0):
    """Evaluate a model's variables (name -> array) on images. Returns an evaluation.Result."""
    import tensorflow as tf
    from twba_nets import checkpoint
    from twba_nets.evaluation import Evaluator
    from twba_nets.training import session_config
    with tf.Graph().as_default(), tf.Session(config=session_config(threads)) as session:
        evaluator = Evaluator(x, y, batch_size, recipe.variant, recipe.activation)
        checkpoint.assign(session, values)
        return evaluator.run(session)


def _report(summary, recipe, path, json_file):
    for total in summary["batch_sums"]:
        print("%.10g" % total)
    print("\n%s: %s, %s activations, %d test images of %s"
          % (path, recipe.variant.upper(), recipe.activation, summary["images"], recipe.dataset))
    print("test loss %.6f, test accuracy %.2f%%\n" % (summary["loss"], 100 * summary["accuracy"]))
    print(spikes.table(summary))
    if recipe.activation == "published":
        print(PUBLISHED_NOTE)
    if json_file:
        write_json(json_file, dict(summary, checkpoint=str(path), variant=recipe.variant,
                                   activation=recipe.activation, dataset=recipe.dataset))


@contextlib.contextmanager
def _exit_on_user_error():
    """One line on stderr and a non-zero exit for what the user can mend."""
    _quieten_libraries()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `docker stop` ends a run as Ctrl-C does
    try:
        yield
    except (UserError, OSError) as error:
        sys.exit("error: %s" % error)
    except KeyboardInterrupt:
        print("\nstopped; what was saved is intact: go on with --resume", file=sys.stderr)
        sys.exit(130)


def _quieten_libraries():
    """Keep pages of deprecation notes, and errors about the GPU that a CPU machine lacks, off the user's screen."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf
    tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)
    with warnings.catch_warnings(record=True):  # what TensorLayer imports insists on warning about its own future
        import tensorlayer  # noqa: F401
