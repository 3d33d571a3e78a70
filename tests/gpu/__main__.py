"""Test a GPU's results, then measure its training speed: python tests/gpu, or make test-gpu. --help lists the flags.

It needs only PyTorch, NumPy and tqdm, and no download. With --device cpu it rehearses the same on a CPU.
"""
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

from twba_nets.system import interrupts

if __name__ == "__main__":
    interrupts.exit_at_once("setup-torch")  # the imports below take seconds

import argparse
import os
import tempfile
import time
import traceback

import torch

from gpu import checks, speed
from gpu.subject import Subject
from twba_nets import command_line
from twba_nets.system.files import write_json
from twba_torch import device as devices


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python tests/gpu", description="Test the results of PyTorch's trainer on a GPU, in float64 against the CPU and "
        "in the trainer's own precision, then measure its speed. Takes three minutes. Without a GPU it tests nothing.")
    parser.add_argument("--device", help="cuda or cuda:N (default: cuda), or cpu for a rehearsal on few images")
    parser.add_argument("--no-compile", action="store_true", help="do without torch.compile, which takes minutes on a CPU")
    parser.add_argument("--json", type=command_line.path, metavar="FILE", help="also write a GPU's figures to this file")
    args = parser.parse_args(argv)
    if args.device is None and not torch.cuda.is_available():
        print(f"no GPU here: nothing is tested (PyTorch {torch.__version__}; --device cpu rehearses)")
        return
    with interrupts.one_line_for_mistakes("stopped"), tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder + "/compiled"  # empty: the first compilation is a cold one
        with devices.prepared(args.device or "cuda") as device:
            subject = Subject(device, not args.no_compile, Path(folder))
            failed = run(subject)
            if not failed:
                figures = speed.measure(subject)
                speed.report(figures)
                if args.json and subject.on_gpu:
                    write_json(args.json, figures)
    sys.exit(1 if failed else 0)


def run(subject):
    """Run all checks and print a line for each. Returns how many failed."""
    failed = skipped = 0
    found = [(name, check) for name, check in vars(checks).items() if name.startswith("check_")]
    for name, check in found:
        started = time.monotonic()
        try:
            left_out = check(subject)
            skipped += bool(left_out)
            result = f"left out: {left_out}" if left_out else "passed"
        except Exception:
            traceback.print_exc()
            failed, result = failed + 1, "FAILED"
        print(f"{name[len('check_'):].replace('_', ' ')}: {result} ({time.monotonic() - started:.1f} s)", flush=True)
    print(f"{len(found) - failed - skipped} passed, {failed} failed, {skipped} skipped", flush=True)
    return failed


if __name__ == "__main__":
    main()
