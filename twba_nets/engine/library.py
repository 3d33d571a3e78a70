"""The engine's C, compiled for this machine at first use and kept in the user's cache."""
import ctypes
import hashlib
import os
import platform
import subprocess
import tempfile
from pathlib import Path

from twba_nets import architecture as arch
from twba_nets.errors import UserError

FOLDER = Path(__file__).parent
SOURCE = FOLDER / "engine.c"
FLAGS = ["-O3", "-fno-math-errno", "-march=native", "-mprefer-vector-width=512", "-fopenmp", "-shared", "-fPIC"]


class Stage(ctypes.Structure):
    """network.h's struct of this name."""
    _fields_ = ([(name, ctypes.c_int32) for name in (
        "groups", "filters", "kernel", "positions", "channels", "words", "input_row", "output_row", "position_bytes",
        "image_bytes")] + [(name, ctypes.c_void_p) for name in (
            "input", "output", "from", "to", "offsets", "thresholds", "bytes", "plus", "minus", "seen", "input_planes",
            "output_planes", "neurons", "synapses", "weights", "scale", "offset")] + [("seconds", ctypes.c_double)])


class Network(ctypes.Structure):
    """network.h's struct of this name."""
    _fields_ = [("stages", Stage * len(arch.STAGES)), ("many", ctypes.c_int32), ("part", ctypes.c_int32)] + [
        (name, ctypes.c_void_p) for name in ("classes", "scale", "offset")]


def load(source=SOURCE):
    """engine.c (or another file that includes it) compiled. Raises UserError where there is no compiler."""
    compiler = os.environ.get("CC", "cc")
    files = sorted(FOLDER.glob("*.[ch]")) + [source]
    what = b"".join(file.read_bytes() for file in files) + repr((FLAGS, compiler, _processor())).encode()
    path = _cache() / ("%s-%s.so" % (source.stem, hashlib.sha256(what).hexdigest()[:16]))
    if not path.exists():
        _compile(compiler, source, path)
    # how often OpenMP's threads look before they sleep: on a busy machine its own default burns what the others need
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    library = ctypes.CDLL(str(path))
    library.run.argtypes = [ctypes.POINTER(Network), ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
    library.show.argtypes = [ctypes.POINTER(Network)]
    library.run.restype = library.show.restype = library.set_threads.restype = None
    return library


def _processor():
    """What the compiled code depends on: the instruction set."""
    try:
        return next(line for line in open("/proc/cpuinfo") if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return platform.processor()


def _cache():
    folder = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "twba_nets"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError("%s: the compiled engine cannot be kept there (%s): set XDG_CACHE_HOME to a folder that can be "
                        "written" % (folder, error.strerror))
    return folder


def _compile(compiler, source, path):
    with tempfile.TemporaryDirectory(dir=str(path.parent)) as folder:
        built = Path(folder) / path.name
        try:
            done = subprocess.run([compiler] + FLAGS + ["-o", str(built), str(source)], stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, universal_newlines=True)
        except OSError:
            raise UserError("%s: no such C compiler, and the engine needs one: install gcc, or name one in CC" % compiler)
        if done.returncode:
            raise UserError("%s: cannot compile %s (%s): use gcc, or leave the engine out"
                            % (compiler, source.name, (done.stdout.splitlines() or ["no message"])[0]))
        os.replace(str(built), str(path))  # another process may be compiling too
