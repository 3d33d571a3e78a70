"""Accuracy and spikes on the test images: twba-nets evaluate, or python -m twba_chip.evaluate."""
from twba_nets.system import interrupts

if __name__ == "__main__":
    interrupts.exit_at_once()  # the imports below take seconds

import argparse
import functools
from typing import Callable, Sequence

from twba_chip import engine
from twba_chip.spiking import opening as exported
from twba_chip.spiking.file import SpikingNetwork
from twba_nets import command_line
from twba_nets.network import quantisers
from twba_nets.runs import spike_statistics
from twba_nets.system import places


def main(argv: Sequence[str] = None) -> None:
    parser = argparse.ArgumentParser(
        prog="twba-nets evaluate",
        description="Evaluate a network on the test images, each exactly once, and count the spikes of all its maps of spikes "
        "but the last. The compiled integer engine takes three seconds on two cores for CIFAR-10's 10,000 images. Networks "
        "with three-level activations run in PyTorch, in half a minute.")
    command_line.add_network(parser, places.RELEASED, nargs="?", default="twba")
    command_line.add_evaluation_flags(parser)
    args = parser.parse_args(argv)
    with interrupts.one_line_for_mistakes("stopped"):
        _evaluate(args)


def _evaluate(args: argparse.Namespace) -> None:
    if args.json:
        command_line.check_figures(args.json)
    network = exported.open_any(args.network)
    about = exported.about(network)
    evaluate: Callable
    if isinstance(network, SpikingNetwork) or quantisers.is_binary(about.activation):
        by, evaluate = "the engine", functools.partial(engine.evaluate, exported.fold(network))
    else:
        by, evaluate = "PyTorch", functools.partial(exported.pytorch(network).evaluate, network)
    data = command_line.load_data(args, about, args.network, args.limit)
    result = evaluate(data.x_test, data.y_test, args.threads)
    summary = spike_statistics.summarise(result, about.architecture, args.batch_size)
    spike_statistics.report(summary, args.network, about.variant, about.activation, data.name, by, args.json)


if __name__ == "__main__":
    main()
