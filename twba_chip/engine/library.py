"""The engine's C, compiled for this machine at first use and kept in the user's cache."""
import contextlib
import ctypes
import hashlib
import os
import platform
import pwd
import shlex
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import List, Optional, Sequence

from twba_chip.engine import structs
from twba_nets.system.errors import UserError
from twba_nets.system.files import sync

FOLDER = Path(__file__).parent
SOURCES, HEADERS = (sorted(FOLDER.glob(pattern)) for pattern in ("*.c", "*.h"))
ELSEWHERE = "set XDG_CACHE_HOME to a folder of your own that can be written and whose files may be executed"
ARM = platform.machine() in ("aarch64", "arm64")  # Linux's name, and macOS's
NATIVE = ["-mcpu=native"] if ARM else ["-march=native", "-mprefer-vector-width=512"]
FLAGS = ["-O3", "-fno-math-errno", *NATIVE, "-shared", "-fPIC"]
OPENMP = ["-fopenmp"]

_runs_in = None  # the process that started OpenMP's threads


def build(*more: Path) -> Path:
    """The library of the engine's C files, and of more where these are given: compiled, unless it was before.

    Raises UserError where that fails.
    """
    try:
        return _build(FLAGS + OPENMP, more)
    except UserError:  # Apple's clang, for one, has no OpenMP: one thread then
        return _build(FLAGS, more)


def load(*more: Path) -> ctypes.CDLL:
    """The same library, loaded. Raises UserError where that fails."""
    path = build(*more)
    # how often OpenMP's threads look before they sleep: on a busy machine its own default burns what the others need
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        library = ctypes.CDLL(str(path))
        network = ctypes.POINTER(structs.Network)
        library.forward.argtypes = [network, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
        library.hidden_by_words.argtypes = [ctypes.POINTER(structs.Stage), ctypes.c_int, ctypes.c_int]
        library.forward.restype, library.hidden_by_words.restype, library.set_threads.restype = ctypes.c_char_p, None, None
    except (OSError, AttributeError) as error:
        raise UserError(f"{path}: cannot be loaded ({error}): remove it, name gcc in CC, or {ELSEWHERE}")
    return library


def check_process() -> None:
    """Raise RuntimeError in a child of a process that has run the engine: it would wait for its parent's threads."""
    global _runs_in
    _runs_in = _runs_in or os.getpid()
    if _runs_in != os.getpid():
        raise RuntimeError("this process was forked from one that had run the engine, whose OpenMP threads it lacks: "
                           "start it by multiprocessing's method spawn, or run the engine in children only")


def _build(flags: List[str], more: Sequence[Path]) -> Path:
    command, sources = (os.environ.get("CC") or "cc", flags), SOURCES + list(more)
    what = b"".join(file.read_bytes() for file in HEADERS + sources) + repr((command, _processor())).encode()
    folder, name = _cache(), "-".join(["engine"] + [file.stem for file in more] + [hashlib.sha256(what).hexdigest()[:16]])
    return _kept(folder, name) or _compile(*command, sources, folder, name)


def _processor() -> str:
    """What the compiled code depends on: the instruction set."""
    try:
        return next(line for line in open("/proc/cpuinfo") if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return platform.processor()


def _places() -> List[Path]:
    """$XDG_CACHE_HOME/twba_nets, else ~/.cache/twba_nets; or, for a user who has no home, as in a container, a folder of his own
    among the temporary ones. Relative paths are passed by, as the XDG Base Directory Specification wants it.
    """
    if os.path.isabs(os.environ.get("XDG_CACHE_HOME", "")):
        return [Path(os.environ["XDG_CACHE_HOME"], "twba_nets")]
    homes = [os.environ.get("HOME", "")]
    with contextlib.suppress(KeyError):  # he has no name either
        homes.append(pwd.getpwuid(os.geteuid()).pw_dir)
    folders = [Path(home, ".cache", "twba_nets") for home in homes if os.path.isabs(home)]
    return folders[:1] + [Path(tempfile.gettempdir(), f"twba_nets-{os.geteuid()}")]


def _cache() -> Path:
    """The folder of compiled libraries, which nobody else can write to: what lies there is run."""
    for folder in _places():
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = os.lstat(folder)
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
                raise UserError(f"{folder}: a link or another user's, so that others may replace the compiled engine: remove "
                                f"it, or {ELSEWHERE}")
            if status.st_mode & 0o077:
                folder.chmod(0o700)
            return folder
        except OSError as error:
            failure = _unwritable(folder, error)
    raise failure


def _unwritable(folder: Path, error: OSError) -> UserError:
    return UserError(f"{folder}: the compiled engine cannot be kept there ({error.strerror}): {ELSEWHERE}")


def _kept(folder: Path, name: str) -> Optional[Path]:
    """The library that was compiled before, or None. A file that is not the user's own, or not whole, is none."""
    for path in folder.glob(f"{name}-*.so"):
        status = os.lstat(path)
        own = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022
        with contextlib.suppress(OSError):  # one that cannot be read
            if own and path.name == _file_name(name, path):
                return path
    return None


def _file_name(name: str, library: Path) -> str:
    """The name that a library is kept under holds its digest, so that damage is found out before it is loaded."""
    return f"{name}-{hashlib.sha256(library.read_bytes()).hexdigest()[:32]}.so"


def _compile(compiler: str, flags: List[str], sources: List[Path], folder: Path, name: str) -> Path:
    """Compile the sources into the folder. Returns the library's path."""
    try:
        with tempfile.TemporaryDirectory(dir=str(folder)) as temporary:
            built = Path(temporary) / "built.so"
            _call(compiler, flags, sources, built)
            built.chmod(0o700)  # whatever the umask
            path = folder / _file_name(name, built)
            sync(built)
            os.replace(str(built), str(path))  # another process may be compiling too
            sync(folder)
    except OSError as error:
        raise _unwritable(folder, error)
    return path


def _call(compiler: str, flags: List[str], sources: List[Path], built: Path) -> None:
    try:
        done = subprocess.run(shlex.split(compiler) + flags + ["-o", str(built)] + [str(source) for source in sources],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True, errors="replace")
    except (OSError, ValueError):
        raise UserError(f"{compiler}: no such C compiler, and the engine needs one: install gcc, or name one in CC")
    if done.returncode or not built.is_file():
        raise UserError(f"{compiler}: cannot compile the engine ({(done.stdout.splitlines() or ['no message'])[0]}): use gcc or "
                        "clang, or leave the engine out")
