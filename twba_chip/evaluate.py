"""Accuracy and spikes on the test images by the compiled engine: twba-nets evaluate, or python -m twba_chip.evaluate."""
from twba_nets import interrupts

if __name__ == "__main__":
    interrupts.exit_at_once()  # the imports below take seconds

import argparse
from typing import Sequence

from twba_chip import engine
from twba_chip.exported import open_network, trained_on
from twba_nets import command_line, datasets, spike_statistics
from twba_nets.files import write_json


def main(argv: Sequence[str] = None) -> None:
    parser = argparse.ArgumentParser(
        prog="twba-nets evaluate",
        description="Evaluate a network on the test images, each exactly once, and count its spikes in the eight counted "
        "maps, by the compiled integer engine. CIFAR-10's 10,000 images take two seconds on two cores.")
    command_line.add_model(parser)
    command_line.add_evaluation_flags(parser)
    args = parser.parse_args(argv)
    with interrupts.one_line_for_mistakes("stopped"):
        _evaluate(args)


def _evaluate(args: argparse.Namespace) -> None:
    if args.json:
        command_line.check_out(args.json)
    arrays, meta = open_network(args.model)
    data = datasets.load(args.dataset or trained_on(meta), args.data_dir)
    result = engine.evaluate(arrays, data.x_test[:args.limit], data.y_test[:args.limit], args.threads)
    summary = spike_statistics.summarise(result, batch_size=200)
    if args.json:
        write_json(args.json, dict(summary, model=str(args.model), variant=meta["variant"], dataset=data.name))
    print(f"{args.model}: {meta['variant'].upper()}, binary activations, {summary['images']} test images of {data.name}")
    print(f"test loss {summary['loss']:.6f}, test accuracy {summary['accuracy']:.2%}\n")
    print(spike_statistics.table(summary))


if __name__ == "__main__":
    main()
