"""Accuracy and spikes on the test images: twba-nets evaluate, or python -m twba_chip.evaluate."""
from twba_nets import interrupts

if __name__ == "__main__":
    interrupts.exit_at_once()  # the imports below take seconds

import argparse
import functools
from typing import Sequence

from twba_chip import engine, exported
from twba_nets import command_line, datasets, places, spike_statistics


def main(argv: Sequence[str] = None) -> None:
    parser = argparse.ArgumentParser(
        prog="twba-nets evaluate",
        description="Evaluate a network on the test images, each exactly once, and count its spikes in the eight counted "
        "maps: by the compiled integer engine, CIFAR-10's 10,000 images in three seconds on two cores; networks of published "
        "(three-level) activations by PyTorch, in half a minute.")
    command_line.add_network(parser, places.RELEASED, nargs="?", default="twba")
    command_line.add_evaluation_flags(parser)
    args = parser.parse_args(argv)
    with interrupts.one_line_for_mistakes("stopped"):
        _evaluate(args)


def _evaluate(args: argparse.Namespace) -> None:
    if args.json:
        command_line.check_figures(args.json)
    network = exported.open_any(args.network)
    variant, activation, dataset = exported.about(network)
    if activation == "binary":
        by, evaluate = "the engine", functools.partial(engine.evaluate, exported.fold(network).arrays)
    else:
        by, evaluate = "PyTorch", functools.partial(exported.pytorch(network).evaluate, network)
    data = datasets.load(args.dataset or dataset, args.data_dir)
    result = evaluate(data.x_test[:args.limit], data.y_test[:args.limit], args.threads)
    summary = spike_statistics.summarise(result, args.batch_size)
    spike_statistics.report(summary, args.network, variant, activation, data.name, by, args.json)


if __name__ == "__main__":
    main()
