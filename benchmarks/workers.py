"""Processes that are timed in turns: each in an environment of its own, answering a line with a line of JSON."""
import json
import subprocess
from pathlib import Path

from twba_nets import command_line
from twba_nets.system.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[1]
TENSORFLOW, PYTORCH, PEERS = (REPOSITORY / name / "bin" / "python" for name in (".venv", ".venv-torch", ".venv-bench"))


def add_flags(parser, seconds):
    """The flags that the benchmarks share. seconds: the default."""
    parser.add_argument("--rounds", type=command_line.positive, default=7, metavar="N", help="turns (default: 7)")
    parser.add_argument("--seconds", type=command_line.above_zero, default=seconds, metavar="S",
                        help=f"of each side in a turn (default: {seconds})")
    parser.add_argument("--threads", type=command_line.positive, default=2, metavar="N", help="of each (default: 2)")
    parser.add_argument("--json", type=command_line.path, metavar="FILE", help="also write all figures to this file")


def start(python, script, *arguments):
    """Start benchmarks/SCRIPT. It ends when its input does; Ctrl-C at a terminal does not reach it.

    Raises UserError where its environment is not there.
    """
    if not python.exists():
        raise UserError(f"{python}: not there: `./setup.sh` and `./setup.sh torch` prepare environments")
    command = [python, "-W", "ignore", REPOSITORY / "benchmarks" / script] + list(arguments)
    return subprocess.Popen([str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            universal_newlines=True, start_new_session=True)


def ask(name, worker, *words):
    """The worker's answer to a line of these words. Raises UserError if it has stopped."""
    try:
        worker.stdin.write(" ".join(map(str, words)) + "\n")
        worker.stdin.flush()
    except BrokenPipeError:
        pass
    return answer(name, worker)


def answer(name, worker):
    """The next thing that the worker says. Raises UserError if it has stopped."""
    line = worker.stdout.readline()
    if not line:
        raise UserError(f"{name} stopped: what it printed stands above")
    return json.loads(line)
