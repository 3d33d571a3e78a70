"""Accuracy and spikes on the test images by the compiled engine: twba-nets evaluate, or python -m twba_chip.evaluate."""
from twba_nets import interrupts

if __name__ == "__main__":
    interrupts.exit_at_once()  # the imports below take seconds

import argparse
from typing import Sequence

from twba_chip import engine
from twba_chip.exported import open_network, trained_on
from twba_nets import command_line, datasets, spike_statistics


def main(argv: Sequence[str] = None) -> None:
    parser = argparse.ArgumentParser(
        prog="twba-nets evaluate",
        description="Evaluate a network on the test images, each exactly once, and count its spikes in the eight counted "
        "maps, by the compiled integer engine. CIFAR-10's 10,000 images take three seconds on two cores.")
    command_line.add_network(parser, "--model", default="twba")
    command_line.add_evaluation_flags(parser)
    args = parser.parse_args(argv)
    with interrupts.one_line_for_mistakes("stopped"):
        _evaluate(args)


def _evaluate(args: argparse.Namespace) -> None:
    if args.json:
        command_line.check_figures(args.json)
    arrays, meta = open_network(args.model)
    data = datasets.load(args.dataset or trained_on(meta), args.data_dir)
    result = engine.evaluate(arrays, data.x_test[:args.limit], data.y_test[:args.limit], args.threads)
    summary = spike_statistics.summarise(result, args.batch_size)
    spike_statistics.report(summary, args.model, meta["variant"], "binary", data.name, args.json)


if __name__ == "__main__":
    main()
