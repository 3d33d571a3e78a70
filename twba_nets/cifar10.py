"""CIFAR-10: found, downloaded, unpacked and checked. No framework is imported here.

Source of the data: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""
import contextlib
import hashlib
import os
import pickle
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
from tqdm import tqdm

from twba_nets.datasets import Dataset
from twba_nets.errors import UserError

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
MD5 = "c58f30108f718f92721af3b95e74349a"
ARCHIVE = "cifar-10-python.tar.gz"
FOLDER = "cifar-10-batches-py"
TRAIN_FILES = tuple("data_batch_%d" % i for i in range(1, 6))
TEST_FILE = "test_batch"
ENVIRONMENT_VARIABLE = "CIFAR10_DIR"
DEFAULT_DIR = Path(__file__).resolve().parents[1] / "data"
BATCH_IMAGES, CLASSES = 10000, 10
REMEDY = "replace it by the original's, or pass --data-dir"


def load(data_dir=None):
    """CIFAR-10 as a Dataset of 50,000 training and 10,000 test images.

    data_dir: a folder with cifar-10-batches-py/ or with the archive, or either of these themselves;
    by default $CIFAR10_DIR, else data/ in the repository, where the official archive is downloaded to.
    Raises UserError where a file is missing or is not what it should be.
    """
    folder = find(data_dir or os.environ.get(ENVIRONMENT_VARIABLE))
    batches = [read_batch(folder / name) for name in TRAIN_FILES]
    x_test, y_test = read_batch(folder / TEST_FILE)
    x_train, y_train = (np.concatenate(arrays) for arrays in zip(*batches))
    check_distinct(folder, batches + [(x_test, y_test)])
    check_balance(folder / TEST_FILE, y_test)
    check_balance(folder, y_train)
    return Dataset("cifar10", x_train, y_train, x_test, y_test, flip=True)


def find(data_dir):
    """The folder cifar-10-batches-py, unpacked or downloaded first where need be."""
    if data_dir is None:
        DEFAULT_DIR.mkdir(exist_ok=True)
        if not (DEFAULT_DIR / FOLDER).is_dir() and not (DEFAULT_DIR / ARCHIVE).is_file():
            download(DEFAULT_DIR / ARCHIVE)
        data_dir = DEFAULT_DIR
    data_dir = Path(data_dir)
    if (data_dir / TEST_FILE).is_file():
        return data_dir
    archive = data_dir if data_dir.is_file() else data_dir / ARCHIVE
    folder = archive.parent / FOLDER
    if folder.is_dir():
        return folder
    if not archive.is_file():
        raise UserError("%s: neither %s/ nor %s is there: name the folder that holds CIFAR-10 with --data-dir "
                        "or %s, or leave both out to download it" % (data_dir, FOLDER, ARCHIVE, ENVIRONMENT_VARIABLE))
    unpack(archive, folder)
    return folder


def download(archive, url=URL, md5=MD5):
    """Download the official archive, going on where an interrupted download stopped; verified by its md5."""
    partial = archive.with_name(archive.name + ".part")
    try:
        _fetch(url, partial)
    except (urllib.error.URLError, OSError, EOFError) as error:
        raise UserError("%s: the download from %s broke off (%s): run again to go on, or put the archive there by "
                        "hand, or pass --data-dir" % (partial, url, error))
    digest = hashlib.md5()
    with open(str(partial), "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    if digest.hexdigest() != md5:
        partial.unlink()
        raise UserError("%s: the download's md5 is %s, not %s; it was removed: run again to download it afresh"
                        % (partial, digest.hexdigest(), md5))
    os.replace(str(partial), str(archive))


def _fetch(url, partial):
    """Append what is missing of `url` to the file `partial`, with a progress bar."""
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": "bytes=%d-" % have} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing is missing: the md5 decides
            return
        raise
    with contextlib.closing(response):
        resumed = response.getcode() == 206
        have = have if resumed else 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        with open(str(partial), "ab" if resumed else "wb") as file, \
                tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=ARCHIVE) as bar:
            for block in iter(lambda: response.read(1 << 16), b""):
                file.write(block)
                have += len(block)
                bar.update(len(block))
    if total is not None and have != total:
        raise EOFError("%d of %d bytes came" % (have, total))


def unpack(archive, folder):
    """Unpack the data files, and nothing else, of the archive; `folder` appears only once it is complete."""
    temporary = None
    try:
        temporary = Path(tempfile.mkdtemp(prefix=FOLDER, dir=str(archive.parent)))
        with tarfile.open(str(archive)) as tar:
            for name in TRAIN_FILES + (TEST_FILE,):
                source = tar.extractfile("%s/%s" % (FOLDER, name))
                if source is None:
                    raise KeyError("%s is no plain file" % name)
                with open(str(temporary / name), "wb") as target:
                    shutil.copyfileobj(source, target)
        temporary.chmod(0o755)  # mkdtemp makes it private
        os.replace(str(temporary), str(folder))
    except (tarfile.TarError, KeyError, EOFError, OSError) as error:
        raise UserError("%s: cannot be unpacked into %s (%s): replace the archive by the official one, or unpack it "
                        "elsewhere and pass --data-dir" % (archive, folder, error))
    finally:
        if temporary is not None:
            shutil.rmtree(str(temporary), ignore_errors=True)


class _ArrayUnpickler(pickle.Unpickler):
    """Reads the pickles of CIFAR-10, which hold NumPy arrays, and refuses to call anything else."""

    ALLOWED = {("numpy", "ndarray"), ("numpy", "dtype"), ("numpy.core.multiarray", "_reconstruct"),
               ("_codecs", "encode")}

    def find_class(self, module, name):
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError("it asks for %s.%s" % (module, name))
        return super().find_class(module, name)


def read_batch(path):
    """Read and check one file of 10,000 images. Returns uint8 [10000, 32, 32, 3] and int32 [10000]."""
    try:
        with open(str(path), "rb") as file:
            batch = _ArrayUnpickler(file, encoding="latin1").load()
        data, labels = np.asarray(batch["data"]), np.asarray(batch["labels"])
    except FileNotFoundError:
        raise UserError("%s: not there: %s" % (path, REMEDY))
    except Exception as error:  # a damaged pickle can raise anything
        raise UserError("%s: not a readable CIFAR-10 batch (%s): %s" % (path, error, REMEDY))
    if data.shape != (BATCH_IMAGES, 3072) or data.dtype != np.uint8:
        raise UserError("%s: holds images of shape %s and type %s, not (10000, 3072) uint8: %s"
                        % (path, data.shape, data.dtype, REMEDY))
    if labels.shape != (BATCH_IMAGES,) or labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= CLASSES:
        raise UserError("%s: its labels are not 10,000 integers from 0 to 9: %s" % (path, REMEDY))
    _check_title(path, batch.get("batch_label"))
    return data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels.astype(np.int32)


def _check_title(path, title):
    """Each batch says which one it is: a file under another's name is found out."""
    expected = "testing batch 1 of 1" if path.name == TEST_FILE else "training batch %s of 5" % path.name[-1]
    if title is not None and title != expected:
        raise UserError("%s: is %r, not %r; were files swapped? %s" % (path, title, expected, REMEDY))


def check_distinct(folder, batches):
    """No two files may hold the same images."""
    seen = {}
    for name, (images, _) in zip(TRAIN_FILES + (TEST_FILE,), batches):
        first = seen.setdefault(hashlib.md5(images[:100].tobytes()).hexdigest(), name)
        if first != name:
            raise UserError("%s: holds the same images as %s: %s" % (folder / name, first, REMEDY))


def check_balance(path, labels):
    """Every class must have a tenth of the images: 1,000 of the test's, 5,000 of training's."""
    counts = np.bincount(labels, minlength=CLASSES)
    if (counts != len(labels) // CLASSES).any():
        raise UserError("%s: the classes have %s images, not %d each: %s"
                        % (path, counts.tolist(), len(labels) // CLASSES, REMEDY))
