"""A busy machine: processes that spin beside the timed one."""
import contextlib
import os
import subprocess
import sys
from typing import Iterator

# it ends with the process that started it, even after a kill
SPIN = """
import os, sys
print("spinning", flush=True)
while os.getppid() == int(sys.argv[1]):
    for _ in range(1000000):
        pass
"""


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keep this many processes spinning until the block ends.

    Each has its own session, like another user's: Linux may share its cores between sessions, not between processes.
    """
    spinning = []
    try:
        for _ in range(processes):
            spinning.append(subprocess.Popen([sys.executable, "-c", SPIN, str(os.getpid())], stdout=subprocess.PIPE,
                                             start_new_session=True))
        for process in spinning:
            process.stdout.readline()
        yield
    finally:
        for process in spinning:
            process.kill()
            process.communicate()
