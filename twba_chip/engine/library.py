"""The engine's C, compiled for this machine at first use and kept in the user's cache."""
import contextlib
import ctypes
import hashlib
import os
import platform
import shlex
import stat
import subprocess
import tempfile
from pathlib import Path

from twba_nets import architecture as arch
from twba_nets.errors import UserError
from twba_nets.files import sync

FOLDER = Path(__file__).parent
SOURCE = FOLDER / "engine.c"
ELSEWHERE = "set XDG_CACHE_HOME to a folder of your own that can be written and whose files may be executed"
FLAGS = ["-O3", "-fno-math-errno", "-march=native", "-mprefer-vector-width=512", "-fopenmp", "-shared", "-fPIC"]

_runs_in = None  # the process that started OpenMP's threads


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
    """engine.c (or another file that includes it) compiled. Raises UserError where that or loading it fails."""
    compiler = os.environ.get("CC") or "cc"
    files = sorted(FOLDER.glob("*.[ch]")) + [source]
    what = b"".join(file.read_bytes() for file in files) + repr((FLAGS, compiler, _processor())).encode()
    folder, name = _cache(), "%s-%s" % (source.stem, hashlib.sha256(what).hexdigest()[:16])
    path = _kept(folder, name) or _compile(compiler, source, folder, name)
    # how often OpenMP's threads look before they sleep: on a busy machine its own default burns what the others need
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        library = ctypes.CDLL(str(path))
        library.run.argtypes = [ctypes.POINTER(Network), ctypes.c_void_p, ctypes.c_int] + 2 * [ctypes.c_void_p]
        library.show.argtypes = [ctypes.POINTER(Network)]
        library.run.restype = library.show.restype = library.set_threads.restype = None
    except (OSError, AttributeError) as error:
        raise UserError("%s: cannot be loaded (%s): remove it, name gcc in CC, or %s" % (path, error, ELSEWHERE))
    return library


def check_process():
    """Raise RuntimeError in a child of a process that has run the engine: it would wait for its parent's threads."""
    global _runs_in
    _runs_in = _runs_in or os.getpid()
    if _runs_in != os.getpid():
        raise RuntimeError("this process was forked from one that had run the engine, whose OpenMP threads it lacks: "
                           "start it by multiprocessing's method spawn, or run the engine in children only")


def _processor():
    """What the compiled code depends on: the instruction set."""
    try:
        return next(line for line in open("/proc/cpuinfo") if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return platform.processor()


def _cache():
    """The folder of compiled libraries, which nobody else can write to: what lies there is run."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "twba_nets"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = os.lstat(str(folder))
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise UserError("%s: a link or another user's, so that others may replace the compiled engine: remove it, "
                            "or %s" % (folder, ELSEWHERE))
        if status.st_mode & 0o077:
            folder.chmod(0o700)
    except OSError as error:
        raise _unwritable(folder, error)
    return folder


def _unwritable(folder, error):
    return UserError("%s: the compiled engine cannot be kept there (%s): %s" % (folder, error.strerror, ELSEWHERE))


def _kept(folder, name):
    """The library that was compiled before, or None. A file that is not the user's own, or not whole, is none."""
    for path in folder.glob(name + "-*.so"):
        status = os.lstat(str(path))
        own = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022
        with contextlib.suppress(OSError):  # one that cannot be read
            if own and path.name == _file_name(name, path):
                return path
    return None


def _file_name(name, library):
    """The name that a library is kept under holds its digest, so that damage is found out before it is loaded."""
    return "%s-%s.so" % (name, hashlib.sha256(library.read_bytes()).hexdigest()[:32])


def _compile(compiler, source, folder, name):
    """Compile the source into the folder. Returns the library's path."""
    try:
        with tempfile.TemporaryDirectory(dir=str(folder)) as temporary:
            built = Path(temporary) / "built.so"
            _call(compiler, source, built)
            built.chmod(0o700)  # whatever the umask
            path = folder / _file_name(name, built)
            sync(built)
            os.replace(str(built), str(path))  # another process may be compiling too
            sync(folder)
    except OSError as error:
        raise _unwritable(folder, error)
    return path


def _call(compiler, source, built):
    try:
        done = subprocess.run(shlex.split(compiler) + FLAGS + ["-o", str(built), str(source)], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, universal_newlines=True, errors="replace")
    except (OSError, ValueError):
        raise UserError("%s: no such C compiler, and the engine needs one: install gcc, or name one in CC" % compiler)
    if done.returncode or not built.is_file():
        raise UserError("%s: cannot compile %s (%s): use gcc, or leave the engine out"
                        % (compiler, source.name, (done.stdout.splitlines() or ["no message"])[0]))
