"""What the example scripts do. TensorFlow is imported only once the arguments are in order."""
import dataclasses

from twba_nets import card, command_line, datasets, interrupts, npz, recipe as recipes, spike_statistics
from twba_nets.errors import UserError
from twba_nets.files import claimed, read_json, write_json
from twba_tensorflow import quieten_tensorflow

PUBLISHED_NOTE = ("note: with published (three-level) activations the sums add halves: "
                  "they are sums of activations, not spike counts")


def train(recipe, resume=False, argv=None):
    """Train by a recipe, as the command line (argv) amends it; the body of cifar10_*_example.py.

    resume: what --resume says where the command line does not: False, True (go on from the newest checkpoint in
    the output folder) or a checkpoint to go on from.
    """
    args = command_line.training_parser(recipe, resume).parse_args(argv)
    saved = "every finished epoch is saved: go on with --resume"
    with interrupts.one_line_for_mistakes(lambda: command_line.stopped(args.output, saved)):
        quieten_tensorflow()
        _train(recipe, args)


def count_spikes(variant, argv=None):
    """Evaluate a checkpoint and count its spikes; the body of cifar10_*_spikes.py."""
    args = command_line.spikes_parser(variant).parse_args(argv)
    with interrupts.one_line_for_mistakes("stopped"):
        quieten_tensorflow()
        _count_spikes(variant, args)


def _train(recipe, args):
    from twba_nets import journal
    from twba_tensorflow import checkpoint, training
    folder = args.output
    checkpoint.require_plain(folder)
    seen = _look(args)
    start = seen[0]
    first_epoch = _first_epoch(start, args.initial_epoch)
    weights = checkpoint.locate(args.initial_weights) if args.initial_weights else None
    initial = checkpoint.read_latent(weights) if weights else None
    recipe = command_line.choose_recipe(recipe, start, args, first_epoch, weights)
    journal.read_log(folder)  # a damaged one is better found now
    if first_epoch >= recipe.epochs:
        _complete(args, seen, first_epoch)
        print("%s: %d of %d epochs are done; to train longer, give a higher --epochs"
              % (start, first_epoch, recipe.epochs))
        return
    data = datasets.load(recipe.dataset, args.data_dir)
    with claimed(folder):
        _require_unchanged(seen, args)
        recipe.save(folder)
        print("%s: %s on %s, %s activations, epochs %d to %d, batch size %d, seed %d"
              % (folder, recipe.variant.upper(), recipe.dataset, recipe.activation, first_epoch + 1, recipe.epochs,
                 recipe.batch_size, recipe.seed), flush=True)
        training.train(recipe, data, folder, start, first_epoch, args.threads, initial, args.graph)
    print("done: checkpoint, log and learning curve are in %s" % folder)


def _complete(args, seen, first_epoch):
    """Make up for what a kill during the run's last save left undone. Flags change no run that is trained."""
    from twba_nets import journal
    from twba_tensorflow import training
    start, _, newest = seen
    recipe = card.load_recipe(start)
    if not recipe or recipe.epochs != first_epoch or newest is None or start.resolve() != newest.resolve():
        return
    if not journal.is_cut_short(args.output, first_epoch):
        return
    with claimed(args.output):
        _require_unchanged(seen, args)
        training.complete(recipe, args.output, start, args.graph)
    print("%s: completed: model.npz, its card and the learning curve" % args.output)


def _look(args):
    """(the checkpoint to go on from or None, its epoch, the output folder's newest checkpoint or None)."""
    from twba_tensorflow import checkpoint
    start = _starting_point(args.output, args.resume)
    return start, start and checkpoint.epoch_of(start), checkpoint.newest(args.output)


def _require_unchanged(seen, args):
    """To be called once the folder is claimed: until then another process may have trained into it."""
    if _look(args) != seen:
        raise UserError("%s: another process has trained into this folder just now: start again" % args.output)


def _starting_point(folder, resume):
    """The checkpoint's prefix to go on from, or None for a fresh start."""
    from twba_tensorflow import checkpoint
    newest = checkpoint.newest(folder)
    if resume is True:
        if newest is None:
            raise UserError("%s: no checkpoint to resume from: leave --resume out to begin" % folder)
        return newest
    start = checkpoint.locate(resume) if resume else None
    if newest and not (start and start.parent.resolve() == folder.resolve()):
        raise UserError("%s: holds a run already (%s): go on with --resume, or name another folder with --output"
                        % (folder, newest.name))
    if not newest and (folder / npz.MODEL_NAME).exists():
        raise UserError("%s: holds a model already (%s): name another folder with --output" % (folder, npz.MODEL_NAME))
    return start


def _first_epoch(start, initial_epoch):
    from twba_tensorflow import checkpoint
    if start is None:
        return 0
    epoch = checkpoint.epoch_of(start)
    if epoch is None:
        epoch = initial_epoch
        print("note: %s holds no epoch, as the original's checkpoints: going on from epoch %d (--initial-epoch)"
              % (start, epoch))
    return epoch


def _count_spikes(variant, args):
    from twba_tensorflow import checkpoint
    if args.json:
        _check_json_file(args.json)
    path = checkpoint.locate(args.checkpoint)
    recipe = card.load_recipe(path)
    if recipe:
        command_line.require_same(recipe, path, variant=variant, activation=args.activation)
    values = checkpoint.read(path, args.allow_pickle)
    npz.check_variant(values, variant, path)
    if not recipe:
        command_line.require_activation(path, args.activation)
        recipe = dataclasses.replace(recipes.paper(variant), activation=args.activation)
    recipe = dataclasses.replace(recipe, dataset=args.dataset or recipe.dataset)
    data = datasets.load(recipe.dataset, args.data_dir)
    result = _evaluate(values, recipe, path, data.x_test[:args.limit], data.y_test[:args.limit], args)
    _report(spike_statistics.summarise(result, args.batch_size), recipe, path, args.json)


def _check_json_file(path):
    """Raise UserError where figures cannot be written, would take the place of another file, or be read as a card."""
    command_line.check_out(path)
    if path.is_dir() or not path.parent.is_dir():
        raise UserError("--json %s: no file can be written there: name a file in a folder that is there" % path)
    if path.is_file() and path.stat().st_size:
        try:
            figures = "batch_sums" in read_json(path)
        except (ValueError, TypeError):
            figures = False
        if not figures:
            raise UserError("--json %s: holds something else than an evaluation's figures: name another file" % path)


def _evaluate(values, recipe, path, x, y, args):
    if args.engine:
        from twba_chip import engine
        from twba_tensorflow import export
        export.require_binary(recipe.activation, path)
        return engine.evaluate(export.fold(values, recipe.variant), x, y, args.threads)
    from twba_tensorflow.evaluation import evaluate
    return evaluate(values, recipe, x, y, args.batch_size, args.threads, args.graph)


def _report(summary, recipe, path, json_file):
    if json_file:
        write_json(json_file, dict(summary, checkpoint=str(path), variant=recipe.variant,
                                   activation=recipe.activation, dataset=recipe.dataset))
    for total in summary["batch_sums"]:
        print("%.10g" % total)
    print("\n%s: %s, %s activations, %d test images of %s"
          % (path, recipe.variant.upper(), recipe.activation, summary["images"], recipe.dataset))
    print("test loss %.6f, test accuracy %.2f%%\n" % (summary["loss"], 100 * summary["accuracy"]))
    print(spike_statistics.table(summary))
    if recipe.activation == "published":
        print(PUBLISHED_NOTE)
