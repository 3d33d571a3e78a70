"""Programs interrupted during an import: a stand-in for the imported package sleeps until the signal comes."""
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
SLOW = """
import pathlib, time
pathlib.Path(__file__).with_name("started").touch()
time.sleep(600)
"""


def interrupt_import(arguments, package, signal_number, folder):
    """(exit status, stderr) of Python with these arguments, interrupted while it imports the package."""
    (folder / (package + ".py")).write_text(SLOW)
    process = subprocess.Popen([sys.executable, "-W", "ignore"] + arguments, cwd=str(REPOSITORY),
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
                               env=dict(os.environ, PYTHONPATH=str(folder)),
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    while not (folder / "started").exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal_number)
    _, error = process.communicate(timeout=300)
    return process.returncode, error
