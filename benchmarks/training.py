"""Training speed on TensorFlow 1.15: this project's graph, the published code's, and plain PyTorch, in turns."""
import argparse
import statistics
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from twba_nets.system import interrupts

if __name__ == "__main__":
    interrupts.exit_at_once()

from twba_nets.network import quantisers
from twba_nets.runs import card
from twba_nets.system.files import write_json
from workers import PYTORCH, TENSORFLOW, add_flags, ask, start

SIDES = {"ours": TENSORFLOW, "published": TENSORFLOW, "pytorch": PYTORCH, "pytorch_memory": PYTORCH}
KINDS = ("train", "evaluate")


def main(argv=None):
    parser = argparse.ArgumentParser(
        description="Time training and evaluation at batch 200 (binary activations): this project's TensorFlow 1.15 "
        "graph, the published code's graph (group by group), and the same network in plain PyTorch (eager, groups=), "
        "without and with this project's settings of the memory allocator. Each side runs in its own process, in turns; "
        "results are medians over the turns, and ratios within each turn. The output also has the time from the command to "
        "the end of the first step, the peak memory, and TensorFlow's time by operation (over all threads, so the sum "
        "exceeds the step if operations overlap).")
    add_flags(parser, seconds=5)
    parser.add_argument("--variant", choices=quantisers.WEIGHTS, default="twba", help="weights (default: twba)")
    parser.add_argument("--tensorflow", type=Path, default=TENSORFLOW, metavar="PYTHON", help="the Python of another environment "
                        "for the TensorFlow sides, such as one with another build")
    args = parser.parse_args(argv)
    with interrupts.one_line_for_mistakes("stopped"):
        figures = measure(args)
        print(table(figures))
        if args.json:
            write_json(args.json, figures)


def measure(args):
    """All figures as a dictionary for JSON."""
    workers, starts = {}, {}
    try:
        for side, python in SIDES.items():  # one after the other: each start is timed
            python = args.tensorflow if python == TENSORFLOW else python
            started = time.monotonic()
            workers[side] = start(python, "training_worker.py", side, args.variant, args.threads)
            starts[side] = dict(ask(side, workers[side], "start"), first_step_seconds=time.monotonic() - started)
        turns = [{side: {kind: ask(side, worker, kind, args.seconds) for kind in KINDS}
                  for side, worker in workers.items()} for _ in range(args.rounds)]
        ends = {side: ask(side, worker, "end") for side, worker in workers.items()}
    finally:
        for worker in workers.values():
            worker.kill()
    return {"machine": card.cpu_name(), "threads": args.threads, "commit": card.commit(), "variant": args.variant,
            "rounds": args.rounds, "sides": {side: dict(starts[side], **ends[side], **_speeds(side, turns))
                                             for side in SIDES}}


def _speeds(side, turns):
    """By kind: images/s over the turns (min, median, max), and the median of ours relative to it in the same turn."""
    speeds = {}
    for kind in KINDS:
        own, ours = ([statistics.median(turn[name][kind]) for turn in turns] for name in (side, "ours"))
        speeds[kind] = {"images_per_second": dict(zip(("min", "median", "max"),
                                                      (min(own), statistics.median(own), max(own)))),
                        "ours_is_faster_by": statistics.median(a / b for a, b in zip(ours, own))}
    return speeds


def table(figures):
    """The figures as text."""
    lines = ["{machine}, {threads} threads each, commit {commit}, {variant}, medians of {rounds} turns\n".format(**figures),
             f"{'':15} {'train':>10} {'ours is':>8} {'evaluate':>12} {'ours is':>8} {'first step':>14} {'peak':>12}"]
    for side, row in figures["sides"].items():
        cells = ""
        for kind, width in zip(KINDS, (8, 10)):
            cells += f" {row[kind]['images_per_second']['median']:{width}.1f}/s {row[kind]['ours_is_faster_by']:7.2f}x"
        lines.append(f"{side:15}{cells} {row['first_step_seconds']:12.1f} s {row['peak_megabytes']:9.0f} MB   {row['version']}")
    for side, row in figures["sides"].items():
        for kind, operations in row["milliseconds_by_operation"].items():
            if operations:
                lines.append(f"\n{side}, ms a batch by operation, {kind}: " + ", ".join(
                    f"{name} {time:.0f}" for name, time in operations.items()))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
