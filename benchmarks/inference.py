"""Inference speed: the engine, TensorFlow 1.15, PyTorch and ONNX Runtime in turns, on one machine, from one checkpoint."""
import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from twba_nets import interrupts

if __name__ == "__main__":
    interrupts.exit_at_once()

from twba_nets import architecture as arch, card, command_line
from twba_nets.files import write_json
from workers import PYTORCH, TENSORFLOW, add_flags, ask, start

SIDES = {"engine": TENSORFLOW, "tensorflow": TENSORFLOW, "published": TENSORFLOW, "pytorch": PYTORCH, "pytorch_int8": PYTORCH,
         "onnxruntime": PYTORCH}
BATCHES = (1, 200)


def main(argv=None):
    parser = argparse.ArgumentParser(
        description="Time a released network at batch 1 and 200: the integer engine, TensorFlow 1.15 (the checkpoint "
        "as it is, by this project's graph and by the published code's, group by group), PyTorch (the network written "
        "plainly; and this project's int8 convolutions) and ONNX Runtime (the export). Engine and ONNX Runtime "
        "standardise the images, the others get them ready. Each in a process of its own, in turns; medians over the "
        "turns, and the ratios within each turn. Beside them the engine's roofline: the time of its stages against what the "
        "processor was measured to do with their instructions in registers alone.")
    add_flags(parser, seconds=2)
    parser.add_argument("--variant", choices=arch.VARIANTS, default="twba", help="released checkpoint (default: twba)")
    args = parser.parse_args(argv)
    with interrupts.one_line_for_mistakes("stopped"):
        figures = measure(args)
        print(table(figures))
        if args.json:
            write_json(args.json, figures)


def measure(args):
    """All figures as a dictionary for JSON."""
    model = command_line.released_model(args.variant)
    with tempfile.TemporaryDirectory() as folder:
        export, onnx = Path(folder) / "export.npz", Path(folder) / "network.onnx"
        _run(TENSORFLOW, "-m", "twba_tensorflow.export", model, export)
        _run(PYTORCH, "-m", "twba_chip.export_onnx", export, onnx)
        workers = {side: start(python, "inference_worker.py", side, model, export, onnx, args.threads)
                   for side, python in SIDES.items()}
        try:
            turns = [_turn(workers, args.seconds) for _ in range(args.rounds + 1)][1:]  # the first warms up
        finally:
            for worker in workers.values():
                worker.kill()
    sides = {side: [turn[side] for turn in turns] for side in SIDES}
    return {"machine": card.cpu_name(), "threads": args.threads, "commit": card.commit(), "variant": args.variant,
            "rounds": args.rounds, "sides": {side: _summary(found, sides["engine"]) for side, found in sides.items()},
            "roofline": _roofline(sides["engine"])}


def _run(python, *arguments):
    subprocess.run([str(argument) for argument in (python,) + arguments], check=True, cwd=str(REPOSITORY),
                   stdout=subprocess.DEVNULL)


def _turn(workers, seconds):
    """Each side's answer at each batch size, one side at a time."""
    return {side: {batch: ask(side, worker, batch, seconds) for batch in BATCHES} for side, worker in workers.items()}


def _summary(turns, engine):
    """By batch: images/s of the turns' medians (least, median, most), milliseconds, and how much faster the engine is."""
    summary = {}
    for batch in BATCHES:
        own, fastest = ([statistics.median(turn[batch]["times"]) for turn in side] for side in (turns, engine))
        speeds = sorted(batch / seconds for seconds in own)
        agreeing = [a == b for a, b in zip(turns[0][batch]["predictions"], engine[0][batch]["predictions"])]
        summary[batch] = {
            "images_per_second": dict(zip(("min", "median", "max"), (speeds[0], statistics.median(speeds), speeds[-1]))),
            "milliseconds": 1e3 * statistics.median(own),
            "engine_is_faster_by": statistics.median(mine / theirs for mine, theirs in zip(own, fastest)),
            "predictions_as_the_engines": sum(agreeing) / len(agreeing)}
    return summary


def _roofline(turns):
    """By batch and stage of the engine, and for the hidden stages together: microseconds an image, million operations, and
    the share of what the processor does in the same turn where all operands stay in registers."""
    names = {stage.conv: [stage.conv] for stage in arch.STAGES}
    names["hidden"] = [stage.conv for stage in arch.STAGES if stage.quantised]
    return {batch: {name: _row([[turn[batch]["stages"][part] for part in parts] for turn in turns])
                    for name, parts in names.items()} for batch in BATCHES}


def _row(turns):
    """turns: what the worker says of one or more stages, in each turn."""
    seconds, operations = ([sum(stage[key] for stage in stages) for stages in turns] for key in ("seconds", "operations"))
    limits = [stages[0]["operations_per_second"] for stages in turns]
    return {"microseconds": 1e6 * statistics.median(seconds), "mega_operations": operations[0] / 1e6,
            "share_of_limit": statistics.median(n / s / limit for n, s, limit in zip(operations, seconds, limits))}


def table(figures):
    """The figures as text."""
    lines = ["{machine}, {threads} threads each, commit {commit}, {variant}, medians of {rounds} turns\n".format(**figures),
             f"{'':14} {'batch 1':>22} {'engine is':>10} {'batch 200':>22} {'engine is':>10}"]
    for side, summary in figures["sides"].items():
        cells = ""
        for batch in BATCHES:
            row = summary[batch]
            speed = f"{row['images_per_second']['median']:.1f}/s {row['milliseconds']:.2f} ms"
            cells += f" {speed:>22} {row['engine_is_faster_by']:9.1f}x"
        lines.append(f"{side:14}" + cells)
    lines.append(f"\n{'engine':14}" + "".join(f"{f'batch {batch}: us an image':>26}{'share of limit':>16}" for batch in BATCHES))
    for name in figures["roofline"][BATCHES[0]]:
        rows = [figures["roofline"][batch][name] for batch in BATCHES]
        lines.append(f"{name:14}" + "".join(f"{row['microseconds']:26.1f}{row['share_of_limit']:16.0%}" for row in rows))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
