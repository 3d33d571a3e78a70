"""The bodies of the example scripts. They import TensorFlow only after parsing the arguments."""
import argparse
from typing import Optional, Sequence, Union

import numpy as np

from twba_nets import command_line
from twba_nets.runs import run_folder, spike_statistics
from twba_nets.system import interrupts, places
from twba_nets.system.errors import UserError
from twba_nets.runs.model import Model, open_model
from twba_nets.runs.recipe import Recipe
from twba_nets.runs.spike_statistics import Result
from twba_tensorflow import quieten_tensorflow


def train(recipe: Recipe, resume: Union[bool, str] = False, argv: Optional[Sequence[str]] = None) -> None:
    """Train with a recipe, modified by the command line (argv); the body of cifar10_*_example.py.

    resume: the default of --resume: False, True (continue from the newest checkpoint in the output folder) or a
    checkpoint to continue from.
    """
    args = command_line.training_parser(recipe, resume).parse_args(argv)
    saved = "every finished epoch is saved: continue with --resume"
    with interrupts.one_line_for_mistakes(lambda: command_line.stopped(args.output, saved)):
        quieten_tensorflow()
        _train(recipe, args)


def count_spikes(variant: str, argv: Optional[Sequence[str]] = None) -> None:
    """Evaluate a checkpoint and count its spikes; the body of cifar10_*_spikes.py."""
    args = command_line.spikes_parser(variant).parse_args(argv)
    with interrupts.one_line_for_mistakes("stopped"):
        quieten_tensorflow()
        _count_spikes(variant, args)


def _train(recipe: Recipe, args: argparse.Namespace) -> None:
    from twba_nets.runs.training_run import TrainingRun
    from twba_tensorflow import checkpoint, training
    checkpoint.require_plain(args.output)
    run = TrainingRun(recipe, args, checkpoint.read_latent)
    newest = run.found.newest
    if newest and newest.suffix == ".npz" and run_folder.epoch_of(newest) > run.first_epoch:  # it would stay the newest
        raise UserError(f"{run.start}: PyTorch took this run to epoch {run_folder.epoch_of(newest)} ({newest.name}): continue "
                        "that with --resume, or name another folder with --output")
    if run.is_done:
        run.end_without_training(lambda recipe: training.complete(recipe, run.folder, run.start))
        return
    if run.recipe.teacher or run.recipe.precise_batch_norm:
        raise UserError(f"{run.start}: only PyTorch's trainer has its recipe: continue with python -m twba_torch.train")
    data = run.load_data()
    with run.claimed():
        run.begin()
        training.train(run.recipe, data, run.folder, run.start, run.first_epoch, args.threads, run.initial, args.graph)
    print(f"done: checkpoint, log and learning curve are in {run.folder}")


def _count_spikes(variant: str, args: argparse.Namespace) -> None:
    from twba_tensorflow import checkpoint
    if args.json:
        command_line.check_figures(args.json)
    model = open_model(places.model(args.checkpoint), variant, args.activation, args.allow_pickle, checkpoint.read)
    data = command_line.load_data(args, model.about, model.path, args.limit)
    result = _evaluate(model, data.x_test, data.y_test, args)
    summary = spike_statistics.summarise(result, model.about.architecture, args.batch_size)
    by = "the engine" if args.engine else "TensorFlow"
    spike_statistics.report(summary, model.path, variant, model.about.activation, data.name, by, args.json, with_sums=True)


def _evaluate(model: Model, x: np.ndarray, y: np.ndarray, args: argparse.Namespace) -> Result:
    if args.engine:
        from twba_chip import engine
        from twba_chip.spiking import opening as exported
        from twba_tensorflow.training import quantised
        exported.require_binary(model)
        model = model._replace(values=quantised(model.values, model.about.variant))
        return engine.evaluate(exported.fold(model), x, y, args.threads)
    from twba_tensorflow.evaluation import evaluate
    return evaluate(model.values, model.about, x, y, args.batch_size, args.threads, args.graph)
