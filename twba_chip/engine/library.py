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
from twba_nets.system.errors import UserError, compiler_message
from twba_nets.system.files import sync

FOLDER = Path(__file__).parent
SOURCES, HEADERS = (sorted(FOLDER.glob(pattern)) for pattern in ("*.c", "*.h"))
ELSEWHERE = "set XDG_CACHE_HOME to a writable folder that you own and whose files may be executed"
ARM = platform.machine() in ("aarch64", "arm64")  # its names on Linux and on macOS
NATIVE = ["-mcpu=native"] if ARM else ["-march=native", "-mprefer-vector-width=512"]
FLAGS = ["-O3", "-fno-math-errno", *NATIVE, "-shared", "-fPIC"]
OPENMP = ["-fopenmp"]

_runs_in = None  # id of the process that started OpenMP's threads


def build(*more: Path) -> Path:
    """Path of the library of the engine's C files and of those in `more`, compiled if it is not in the cache.

    Raises UserError if there is no C compiler, if it fails, or if the cache is not writable.
    """
    try:
        return _build(FLAGS + OPENMP, more)
    except UserError:  # a compiler without OpenMP, such as Apple's clang: one thread
        return _build(FLAGS, more)


def load(*more: Path) -> ctypes.CDLL:
    """Build the library, if necessary, and load it. Raises UserError if either fails."""
    path = build(*more)
    # how long idle OpenMP threads spin before they sleep; on a busy machine OpenMP's default wastes other programs' time
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
    """Raise RuntimeError in a forked child of a process that has run the engine: it would wait for its parent's threads."""
    global _runs_in
    _runs_in = _runs_in or os.getpid()
    if _runs_in != os.getpid():
        raise RuntimeError("this process was forked after its parent ran the engine, and lacks the parent's OpenMP threads: "
                           "start it with multiprocessing's method spawn, or run the engine in children only")


def _build(flags: List[str], more: Sequence[Path]) -> Path:
    command, sources = (os.environ.get("CC") or "cc", flags), SOURCES + list(more)
    machine = (_processor(), platform.machine(), platform.libc_ver())
    what = b"".join(file.read_bytes() for file in HEADERS + sources) + repr((command, machine)).encode()
    folder, name = _cache(), "-".join(["engine"] + [file.stem for file in more] + [hashlib.sha256(what).hexdigest()[:16]])
    return _kept(folder, name) or _compile(*command, sources, folder, name)


def _processor() -> str:
    """The processor's instruction sets, on which the compiled code depends."""
    try:
        return next(line for line in open("/proc/cpuinfo") if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return platform.processor()


def _places() -> List[Path]:
    """$XDG_CACHE_HOME/twba_nets, else ~/.cache/twba_nets; for a user without a home, as in a container, a temporary folder.
    Relative paths are ignored, as the XDG Base Directory Specification demands.
    """
    if os.path.isabs(os.environ.get("XDG_CACHE_HOME", "")):
        return [Path(os.environ["XDG_CACHE_HOME"], "twba_nets")]
    homes = [os.environ.get("HOME", "")]
    with contextlib.suppress(KeyError):  # a user without a name
        homes.append(pwd.getpwuid(os.geteuid()).pw_dir)
    folders = [Path(home, ".cache", "twba_nets") for home in homes if os.path.isabs(home)]
    return folders[:1] + [Path(tempfile.gettempdir(), f"twba_nets-{os.geteuid()}")]


def _cache() -> Path:
    """The folder of compiled libraries. Only the user may write to it, because its files are executed."""
    for folder in _places():
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = os.lstat(folder)
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
                raise UserError(f"{folder}: is a link or belongs to another user, who could replace the compiled engine: remove "
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
    """The library in the cache, or None. Files that are damaged, or that others own or may write, are ignored."""
    for path in folder.glob(f"{name}-*.so"):
        status = os.lstat(path)
        own = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022
        with contextlib.suppress(OSError):  # an unreadable one
            if own and path.name == _file_name(name, path):
                return path
    return None


def _file_name(name: str, library: Path) -> str:
    """The name of a library in the cache. It contains the file's digest, so that damage is noticed before loading."""
    return f"{name}-{hashlib.sha256(library.read_bytes()).hexdigest()[:32]}.so"


def _compile(compiler: str, flags: List[str], sources: List[Path], folder: Path, name: str) -> Path:
    """Compile the sources into the folder. Returns the library's path. Raises UserError if that fails."""
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
        raise UserError(f"{compiler}: no such C compiler, which the engine needs: install gcc, or name a compiler in CC")
    if done.returncode or not built.is_file():
        raise UserError(f"{compiler}: cannot compile the engine ({compiler_message(done.stdout)}): use gcc or "
                        "clang, or do without the engine")
