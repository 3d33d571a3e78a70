"""CIFAR-10: finding, downloading, unpacking and checking it.

Source of the data: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""
import bz2
import contextlib
import fcntl
import gzip
import hashlib
import http.client
import io
import lzma
import os
import pickle
import posixpath
import shutil
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, BinaryIO, Callable, ClassVar, Dict, Iterator, List, Tuple, Union

import numpy as np
from tqdm import tqdm

from twba_nets.system import places, streams
from twba_nets.datasets.dataset import CIFAR10, Dataset
from twba_nets.system.errors import UserError, reads

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
MD5 = "c58f30108f718f92721af3b95e74349a"
ARCHIVE = "cifar-10-python.tar.gz"
FOLDER = "cifar-10-batches-py"
TRAIN_FILES = tuple(f"data_batch_{i}" for i in range(1, 6))
TEST_FILE = "test_batch"
FILES = TRAIN_FILES + (TEST_FILE,)
OFFICIAL_MD5 = dict(zip(FILES, (
    "c99cafc152244af753f735de768cd75f", "d4bba439e000b95fd0a9bffe97cbabec", "54ebc095f3ab1f0389bbae665268c751",
    "634d18415352ddfa80567beed471001a", "482c414d41f54cd18b22e5b47cb7c3cb", "40351d587109b95175f43aff81a1287e")))
# names of the data within a folder: the official ones, then those of Keras's cache
FOLDERS = (FOLDER, FOLDER + "-target/" + FOLDER)
ARCHIVES = (ARCHIVE, FOLDER + ".tar.gz", FOLDER + "-target_archive", FOLDER + "-target.tar.gz")
ENVIRONMENT_VARIABLE = "CIFAR10_DIR"
DEFAULT_DIR = places.HOME / "data"
BATCH_IMAGES, CLASSES = 10000, 10
MAX_BATCH_BYTES = 1 << 26  # twice the official files'; a pickle of Python 3 may take two bytes per pixel
MAX_STEPS = 1000000  # reads of a pickle; a batch takes a tenth
MAX_ARCHIVE_BYTES, MAX_MEMBERS = len(FILES) * MAX_BATCH_BYTES + (1 << 20), 100  # uncompressed; the official one has 9
REMEDY = "replace it with the official file, or remove the folder to unpack or download it again, or pass --data-dir"


@reads
def load(data_dir: Union[str, Path] = None) -> Dataset:
    """CIFAR-10 as a Dataset of 50,000 training and 10,000 test images.

    data_dir: a folder with cifar-10-batches-py/ or the archive, or one of these directly. Default: $CIFAR10_DIR, else data/
    (places.HOME), into which the official archive is downloaded. Raises UserError if a file is missing or damaged.
    """
    folder = find(data_dir or os.environ.get(ENVIRONMENT_VARIABLE))
    data, digests = read(folder)
    others = [name for name in FILES if digests[name] != OFFICIAL_MD5[name]]
    if others:
        streams.tell_once(f"warning: {folder}: the md5 is not the official one: {', '.join(others)}; the results are wrong "
                          f"unless the files repack the same images and labels: get the official archive from {URL}")
    return data


def read(folder: Path) -> Tuple[Dataset, Dict[str, str]]:
    """Read and check the six batch files. Returns the Dataset and the files' md5, name -> hexadecimal digits.

    Raises UserError if a file is missing or damaged.
    """
    batches, digests = [], {}
    for name in FILES:
        images, labels, digests[name] = read_batch(folder / name)
        batches.append((images, labels))
    check_distinct(folder, batches)
    x_test, y_test = batches.pop()
    x_train, y_train = (np.concatenate(arrays) for arrays in zip(*batches))
    check_balance(folder / TEST_FILE, y_test)
    check_balance(folder, y_train)
    return Dataset("cifar10", x_train, y_train, x_test, y_test, flip=True, class_names=CIFAR10), digests


def find(data_dir: Union[str, Path, None]) -> Path:
    """The folder of the batch files; unpacks or downloads them first if needed. Raises UserError if they are not found."""
    if data_dir is None:
        DEFAULT_DIR.mkdir(exist_ok=True)
        with _alone(DEFAULT_DIR):
            if not (DEFAULT_DIR / FOLDER).is_dir() and not (DEFAULT_DIR / ARCHIVE).is_file():
                download(DEFAULT_DIR / ARCHIVE)
        data_dir = DEFAULT_DIR
    data_dir = Path(data_dir)
    named = data_dir.is_file()
    place = data_dir.parent if named else data_dir
    if any((place / name).is_file() for name in FILES):  # the folder itself, or one of its files
        return place
    for folder in FOLDERS[:1] if named else FOLDERS:
        if (place / folder).is_dir():
            return place / folder
    for archive in [data_dir] if named else [place / name for name in ARCHIVES]:
        if archive.is_file():
            with _alone(place):
                if not (place / FOLDER).is_dir():
                    unpack(archive, place / FOLDER)
            return place / FOLDER
    raise UserError(f"{data_dir}: has neither {FOLDER}/ nor {ARCHIVE}: name the folder that holds CIFAR-10 with "
                    f"--data-dir or {ENVIRONMENT_VARIABLE}, or leave both out to download it")


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Lock a folder: of several processes one downloads or unpacks, and the others wait until it is done."""
    descriptor = os.open(str(folder), os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def download(archive: Path, url: str = URL, md5: str = MD5) -> None:
    """Download the official archive, continuing an interrupted download, and verify its md5. Raises UserError if it fails."""
    partial = archive.with_name(archive.name + ".part")
    try:
        _fetch(url, partial)
    except (http.client.HTTPException, OSError, EOFError) as error:
        raise UserError(f"{partial}: the download from {url} broke off ({error}): run again to continue, or put the archive "
                        "there by hand, or pass --data-dir")
    digest = hashlib.md5()
    with open(partial, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    if digest.hexdigest() != md5:
        partial.unlink()
        raise UserError(f"{partial}: the download's md5 is {digest.hexdigest()}, not {md5}; it was removed: run again to "
                        "download it again")
    os.replace(partial, archive)


def _fetch(url: str, partial: Path) -> None:
    """Append the missing part of `url` to the file `partial`, with a progress bar."""
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing is missing; the md5 will tell
            return
        raise
    with contextlib.closing(response):
        resumed = response.getcode() == 206
        have = have if resumed else 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        with open(partial, "ab" if resumed else "wb") as file, \
                tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=ARCHIVE, disable=sys.stderr is None) as bar:
            for block in iter(lambda: response.read(1 << 16), b""):
                file.write(block)
                have += len(block)
                bar.update(len(block))
    if total is not None and have != total:
        raise EOFError(f"{have} of {total} bytes came")


def unpack(archive: Path, folder: Path) -> None:
    """Unpack only the batch files of an archive; `folder` appears once they are complete and checked. Raises UserError."""
    temporary = None
    try:
        temporary = Path(tempfile.mkdtemp(prefix=FOLDER, dir=archive.parent))
        with open(archive, "rb") as file:
            _extract(_Bounded(_decompressed(file), MAX_ARCHIVE_BYTES), temporary)
        read(temporary)
        temporary.chmod(0o755)  # mkdtemp makes it private
        os.replace(temporary, folder)
    except UserError as error:
        text = str(error).replace(f"{temporary}/", "")
        raise UserError(f"{archive}: {text}")
    except Exception as error:  # a damaged archive can raise anything
        raise UserError(f"{archive}: cannot be unpacked into {folder} ({error}): replace the archive with the official one, "
                        "or unpack it elsewhere and pass --data-dir")
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _decompressed(file: io.BufferedReader) -> BinaryIO:
    """The tar in a file that may be compressed."""
    magic = file.peek(6)
    for prefix, module in ((b"\x1f\x8b", gzip), (b"BZh", bz2), (b"\xfd7zXZ", lzma)):
        if magic.startswith(prefix):
            return module.open(file)
    return file


class _Bounded:
    """A stream that raises ValueError after `limit` bytes: a small file may be huge once decompressed."""

    def __init__(self, stream, limit):
        self.stream, self.left = stream, limit

    def read(self, size):
        block = self.stream.read(min(size, self.left + 1))
        self.left -= len(block)
        if self.left < 0:
            raise ValueError("it holds far more than CIFAR-10")
        return block


def _extract(stream: _Bounded, folder: Path) -> None:
    """Write the batch files of a tar to the folder."""
    missing = set(FILES)
    with tarfile.open(fileobj=stream, mode="r|", bufsize=1 << 20) as tar:  # type: ignore[call-overload]  # read() will do
        for number, member in enumerate(tar):
            if number >= MAX_MEMBERS:
                raise ValueError(f"it holds more than {MAX_MEMBERS} files")
            place, name = posixpath.split(posixpath.normpath(member.name))
            if place != FOLDER or name not in FILES:
                continue
            if not member.isreg() or member.issparse() or member.size > MAX_BATCH_BYTES:
                raise ValueError(f"{name} is not a plain file of at most {MAX_BATCH_BYTES} bytes")
            with open(folder / name, "wb") as target:
                shutil.copyfileobj(tar.extractfile(member), target)
            missing.discard(name)
    if missing:
        raise ValueError(f"it lacks {FOLDER}/{min(missing)}")
    while stream.read(1 << 20):  # the checksum is at the end of the compressed stream
        pass


class _FewSteps(io.BytesIO):
    """A pickle that raises UnpicklingError if reading it takes far more steps than a batch file does."""

    steps = 0

    def read(self, size=-1):
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise pickle.UnpicklingError("it holds far more objects than a batch")
        return super().read(size)


class _BatchUnpickler(pickle._Unpickler):  # the one in Python: no index or length in the file can exhaust the memory
    """Reads the pickles of CIFAR-10's batches: a dictionary of lists, strings, numbers and uint8 arrays.

    NumPy's own classes accept any state from the file, even addresses of objects. So they are replaced by stand-ins that
    check the state, and only the opcodes of such a dictionary are allowed.
    """

    OPCODES = b"".join((
        pickle.STOP, pickle.MARK, pickle.MEMOIZE, pickle.BINPUT, pickle.LONG_BINPUT,
        pickle.BINGET, pickle.LONG_BINGET, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.BININT, pickle.BININT1,
        pickle.BININT2, pickle.BINFLOAT, pickle.BINSTRING, pickle.SHORT_BINSTRING, pickle.BINUNICODE,
        pickle.SHORT_BINUNICODE, pickle.BINUNICODE8, pickle.BINBYTES, pickle.SHORT_BINBYTES, pickle.BINBYTES8,
        pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.EMPTY_LIST, pickle.APPEND,
        pickle.APPENDS, pickle.EMPTY_DICT, pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.REDUCE))
    dispatch: ClassVar[Dict[int, Callable[[Any], None]]] = {code: pickle._Unpickler.dispatch[code] for code in OPCODES}
    dispatch[0x96] = dispatch[pickle.BINBYTES8[0]]  # protocol 5's BYTEARRAY8, unknown to Python 3.7: read as bytes

    def load_proto(self):
        self.read(1)  # the protocol's number; Python 3.7 rejects 5, and the opcodes suffice

    def load_frame(self):
        self.read(8)  # its length: frames are read opcode by opcode like the rest

    def load_setitems(self):
        items = self.pop_mark()
        if not all(isinstance(key, str) for key in items[::2]):  # hashing a deep tuple overflows C's stack
            raise pickle.UnpicklingError("a key is not a string")
        self.stack[-1].update(zip(items[::2], items[1::2]))

    def load_build(self):
        state = self.stack.pop()
        self.stack[-1].restore(*state)

    dispatch.update({pickle.PROTO[0]: load_proto, pickle.FRAME[0]: load_frame, pickle.SETITEMS[0]: load_setitems,
                     pickle.BUILD[0]: load_build})

    def find_class(self, module, name):
        try:
            return STAND_INS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {f'{module}.{name}'!r:.80}")


class _Array:
    """Stands in for numpy.ndarray. array: uint8."""

    @classmethod
    def reconstruct(cls, subtype, shape, letter):
        """Called by NumPy's pickles: an empty array, which restore() fills."""
        return cls()

    @classmethod
    def from_buffer(cls, values, dtype, shape, order):
        """Called by NumPy's pickles of protocol 5. order: "C" or "F"."""
        array = cls()
        array.restore(1, shape, dtype, order == "F", values)
        return array

    def restore(self, version, shape, dtype, is_fortran, values):
        if not isinstance(dtype, _Uint8):
            raise pickle.UnpicklingError("an array is not uint8")
        values = values.encode("latin1") if isinstance(values, str) else values  # Python 2 wrote str
        self.array = np.frombuffer(values, np.uint8).reshape(shape, order="F" if is_fortran else "C").copy("C")


class _Uint8:
    """Stands in for numpy.dtype; only uint8."""

    def __init__(self, name, align=False, copy=True):
        if name != "u1":
            raise pickle.UnpicklingError("an array is of another type than uint8")

    def restore(self, *state):
        if state != (3, "|", None, None, None, -1, -1, 0):
            raise pickle.UnpicklingError("uint8 with an unknown state")


def _encode(text, encoding):
    """Stands in for codecs.encode, with which Python 3 pickles bytes for Python 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError("bytes in an encoding other than latin1")
    return text.encode("latin1")


STAND_INS = {("numpy", "ndarray"): _Array, ("numpy", "dtype"): _Uint8, ("_codecs", "encode"): _encode,
             ("numpy.core.multiarray", "_reconstruct"): _Array.reconstruct,
             ("numpy._core.multiarray", "_reconstruct"): _Array.reconstruct,
             ("numpy.core.numeric", "_frombuffer"): _Array.from_buffer,
             ("numpy._core.numeric", "_frombuffer"): _Array.from_buffer}


def read_batch(path: Path) -> Tuple[np.ndarray, np.ndarray, str]:
    """Read and check one file of 10,000 images. Returns uint8 [10000, 32, 32, 3], int32 [10000] and the file's md5.

    Raises UserError if it is missing or damaged.
    """
    batch = unpickle(path, MAX_BATCH_BYTES, REMEDY)
    images = images_of(batch, path, BATCH_IMAGES, REMEDY)
    labels = labels_of(batch.get("labels"), path, BATCH_IMAGES, CLASSES, REMEDY)
    _check_title(path, batch.get("batch_label"))
    return images, labels, batch["md5"]


def unpickle(path: Path, most_bytes: int, remedy: str) -> Dict[str, Any]:
    """The dictionary in a CIFAR file, plus `md5`, the file's digest. Raises UserError if it cannot be read."""
    if not path.is_file():
        raise UserError(f"{path}: not there: {remedy}")
    try:
        with open(path, "rb") as file:
            content = file.read(most_bytes + 1)
        if len(content) > most_bytes:
            raise ValueError(f"more than {most_bytes} bytes")
        found = _BatchUnpickler(_FewSteps(content), encoding="latin1").load()
        return dict(found, md5=hashlib.md5(content).hexdigest())
    except Exception as error:  # a damaged pickle can raise anything
        raise UserError(f"{path}: not a readable CIFAR file ({str(error) or type(error).__name__}): {remedy}")


def images_of(found: Dict[str, Any], path: Path, images: int, remedy: str) -> np.ndarray:
    """The images in unpickle's dictionary: uint8 [N, 32, 32, 3]. Raises UserError unless there are N = `images`."""
    data = found.get("data")
    if not isinstance(data, _Array):
        raise UserError(f"{path}: not a readable CIFAR file (it holds no array of images): {remedy}")
    if data.array.shape != (images, 3072):
        raise UserError(f"{path}: holds images of shape {data.array.shape}, not {(images, 3072)}: {remedy}")
    return data.array.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def labels_of(labels: Any, path: Path, images: int, classes: int, remedy: str) -> np.ndarray:
    """Labels as int32 [N]. Raises UserError unless they are N = `images` integers below `classes`."""
    labels = labels.array.tolist() if isinstance(labels, _Array) else labels
    if (not isinstance(labels, list) or len(labels) != images
            or not all(type(label) is int and 0 <= label < classes for label in labels)):
        raise UserError(f"{path}: its labels are not {images:,} integers from 0 to {classes - 1}: {remedy}")
    return np.array(labels, np.int32)


def _check_title(path, title):
    """Raise UserError if a batch's own title names another file: the files were swapped."""
    expected = "testing batch 1 of 1" if path.name == TEST_FILE else f"training batch {path.name[-1]} of 5"
    if title is not None and title != expected:
        title = title if isinstance(title, str) else type(title)
        raise UserError(f"{path}: is {title!r:.80}, not {expected!r}; were files swapped? {REMEDY}")


def check_distinct(folder: Path, batches: List[Tuple[np.ndarray, np.ndarray]]) -> None:
    """Raise UserError if two files hold the same images."""
    seen: Dict[str, str] = {}
    for name, (images, _) in zip(FILES, batches):
        first = seen.setdefault(hashlib.md5(images[:100].tobytes()).hexdigest(), name)
        if first != name:
            raise UserError(f"{folder / name}: holds the same images as {first}: {REMEDY}")


def check_balance(path: Path, labels: np.ndarray) -> None:
    """Raise UserError unless every class has a tenth of the images: 1,000 test images, 5,000 training images."""
    counts = np.bincount(labels, minlength=CLASSES)
    if (counts != len(labels) // CLASSES).any():
        raise UserError(f"{path}: the classes have {counts.tolist()} images, not {len(labels) // CLASSES} each: {REMEDY}")
