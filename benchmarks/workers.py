"""Processes that are timed in turns. Each has its own environment and answers a line with a line of JSON."""
import argparse
import json
import subprocess
from pathlib import Path

from twba_nets import command_line
from twba_nets.system.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[1]
TENSORFLOW, PYTORCH, PEERS = (REPOSITORY / name / "bin" / "python" for name in (".venv", ".venv-torch", ".venv-bench"))


def add_flags(parser, seconds):
    """Add the flags that the benchmarks share. seconds: the default."""
    parser.add_argument("--rounds", type=command_line.positive, default=7, metavar="N", help="turns (default: 7)")
    parser.add_argument("--seconds", type=command_line.above_zero, default=seconds, metavar="S",
                        help=f"seconds per side and turn (default: {seconds})")
    parser.add_argument("--threads", type=command_line.positive, default=2, metavar="N", help="threads per side (default: 2)")
    add_json(parser)


def add_json(parser):
    parser.add_argument("--json", type=_file, metavar="FILE", help="also write all figures to this file")


def _file(text):
    """A path whose folder exists: it is told before the measurements."""
    path = command_line.path(text)
    if not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: its folder does not exist: make it first")
    return path


def start(python, script, *arguments):
    """Start benchmarks/SCRIPT. It ends when its input does; Ctrl-C at a terminal does not reach it.

    Raises UserError if its environment does not exist.
    """
    if not python.exists():
        raise UserError(f"{python}: not there: `./setup.sh` and `./setup.sh torch` prepare environments")
    command = [python, "-W", "ignore", REPOSITORY / "benchmarks" / script] + list(arguments)
    return subprocess.Popen([str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            universal_newlines=True, start_new_session=True)


def ask(name, worker, *words):
    """Send a line of these words; returns the worker's answer. Raises UserError if it has stopped."""
    try:
        worker.stdin.write(" ".join(map(str, words)) + "\n")
        worker.stdin.flush()
    except BrokenPipeError:
        pass
    return answer(name, worker)


def answer(name, worker):
    """The worker's next answer. Raises UserError if it has stopped."""
    line = worker.stdout.readline()
    if not line:
        raise UserError(f"{name} stopped: see its output above")
    return json.loads(line)
