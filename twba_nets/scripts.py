"""What the example scripts do. TensorFlow is imported only once the arguments are in order."""
import contextlib
import dataclasses
import os
import signal
import sys
import warnings

from twba_nets import command_line, datasets, recipe as recipes, spikes
from twba_nets.errors import UserError
from twba_nets.files import write_json

PUBLISHED_NOTE = ("note: with published (three-level) activations the sums add halves: "
                  "they are sums of activations, not spike counts")


def train(recipe, resume=False, argv=None):
    """Train by a recipe, as the command line (argv) amends it; the body of cifar10_*_example.py.

    resume: what --resume says where the command line does not: False, True (go on from the newest checkpoint in
    the output folder) or a checkpoint to go on from.
    """
    args = command_line.training_parser(recipe, resume).parse_args(argv)
    with _one_line_for_mistakes("stopped; every finished epoch is saved: go on with --resume"):
        _train(recipe, args)


def count_spikes(variant, argv=None):
    """Evaluate a checkpoint and count its spikes; the body of cifar10_*_spikes.py."""
    args = command_line.spikes_parser(variant).parse_args(argv)
    with _one_line_for_mistakes("stopped"):
        _count_spikes(variant, args)


def _train(recipe, args):
    from twba_nets.training import train as run
    folder = args.output
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
    from twba_nets.evaluation import evaluate
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
    recipe = dataclasses.replace(recipe, dataset=args.dataset or recipe.dataset)
    data = datasets.load(recipe.dataset, args.data_dir)
    result = evaluate(values, recipe, data.x_test[:args.limit], data.y_test[:args.limit], args.batch_size, args.threads)
    _report(spikes.summarise(result, args.batch_size), recipe, path, args.json)


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
def _one_line_for_mistakes(stopped):
    """One line on stderr and a non-zero exit for what the user can mend; `stopped` is what Ctrl-C gets."""
    _quieten_libraries()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `docker stop` ends a run as Ctrl-C does
    try:
        yield
    except (UserError, OSError) as error:
        sys.exit("error: %s" % error)
    except KeyboardInterrupt:
        print("\n" + stopped, file=sys.stderr)
        sys.exit(130)


def _quieten_libraries():
    """Keep pages of deprecation notes, and errors about the GPU that a CPU machine lacks, off the user's screen."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf
    tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)
    with warnings.catch_warnings(record=True):  # what TensorLayer imports insists on warning about its own future
        import tensorlayer  # noqa: F401
