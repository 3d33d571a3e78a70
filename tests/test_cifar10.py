"""Finding, downloading, unpacking and checking CIFAR-10, on files made here; and the real data where it is at hand."""
import bz2
import functools
import gzip
import hashlib
import http.server
import io
import lzma
import pickle
import resource
import shutil
import struct
import subprocess
import sys
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from helpers import REPOSITORY, user_error
from twba_nets.datasets import cifar10
from twba_nets.datasets.cifar10 import FILES
from twba_nets.system.errors import UserError


def batch(number):
    """A batch of 10,000 flat images, 1,000 of each class, as the original archive's files hold it."""
    data = np.zeros((10000, 3072), np.uint8)
    data[:, 0] = np.arange(10000) % 251
    data[:, 1024] = number  # the first green value
    title = "testing batch 1 of 1" if number == 6 else f"training batch {number} of 5"
    return {"data": data, "labels": [i % 10 for i in range(10000)], "batch_label": title, "filenames": []}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A folder with a well-formed cifar-10-batches-py."""
    folder = tmp_path_factory.mktemp("cifar") / cifar10.FOLDER
    folder.mkdir()
    for i, name in enumerate(FILES, 1):
        write(folder / name, batch(i))
    return folder


def write(path, content, protocol=2):
    path.write_bytes(pickle.dumps(content, protocol=protocol))


def as_python_2_wrote_it(content):
    """The pickle of a batch with Python 2's texts, which are bytes, as in the official files."""
    def text(value):
        return b"U" + bytes([len(value)]) + value.encode()

    values = content["data"].tobytes()
    dtype = (b"cnumpy\ndtype\n(" + text("u1") + b"K\x00K\x01tR(K\x03" + text("|") + b"NNN" + b"J\xff\xff\xff\xff" * 2 +
             b"K\x00tb")
    array = (b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85" + text("b") + b"tR(K\x01(M" +
             struct.pack("<HcH", len(values) // 3072, b"M", 3072) + b"t" + dtype +
             b"\x89T" + struct.pack("<i", len(values)) + values + b"tb")
    labels = b"](" + b"".join(b"K" + bytes([label]) for label in content["labels"]) + b"e"
    return (b"\x80\x02}(" + text("batch_label") + text(content["batch_label"]) + text("labels") + labels +
            text("data") + array + text("filenames") + b"]u.")


def by_protocol_5(content, numpy_name="numpy._core.numeric", order="C", opcode=b"\x96"):
    """The pickle of a batch by protocol 5, the default of Python from 3.14 on, which Python 3.7 cannot write.

    opcode: BYTEARRAY8 as of an array that can be written, or BINBYTES8.
    """
    def text(value):
        return b"\x8c" + bytes([len(value)]) + value.encode() + b"\x94"

    values = content["data"].tobytes(order)
    shape = b"".join(b"J" + struct.pack("<i", length) for length in content["data"].shape)
    array = (text(numpy_name) + text("_frombuffer") + b"\x93\x94(" + opcode + struct.pack("<Q", len(values)) + values + b"\x94"
             + text("numpy") + text("dtype") + b"\x93\x94" + text("u1") + b"\x89\x88\x87\x94R\x94(K\x03" + text("|")
             + b"NNN" + b"J\xff\xff\xff\xff" * 2 + b"K\x00t\x94b" + shape + b"\x86\x94" + text(order) + b"t\x94R\x94")
    labels = b"]\x94(" + b"".join(b"K" + bytes([label]) for label in content["labels"]) + b"e"
    body = (b"}\x94(" + text("data") + array + text("labels") + labels + text("batch_label") + text(content["batch_label"])
            + b"u.")
    return b"\x80\x05\x95" + struct.pack("<Q", len(body)) + body


@pytest.fixture
def folder(good, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(str(good), str(tmp_path / cifar10.FOLDER)) and tmp_path


def test_layout(good):
    data = cifar10.load(good.parent)
    assert data.x_train.shape == (50000, 32, 32, 3) and data.x_test.shape == (10000, 32, 32, 3)
    assert data.y_train.dtype == np.int32
    # planar RGB becomes NHWC: first red and first green value of training image 251 * 3 + 7 of batch 2
    assert tuple(data.x_train[10000 + 760, 0, 0]) == (760 % 251, 2, 0)
    assert cifar10.load(good).y_test.tolist() == [i % 10 for i in range(10000)]  # the folder itself


def test_environment_variable(good, monkeypatch):
    monkeypatch.setenv("CIFAR10_DIR", str(good.parent))
    assert len(cifar10.load().x_test) == 10000


def test_missing_folder(tmp_path):
    message = user_error(cifar10.load, tmp_path / "nowhere")
    assert "nowhere" in message and "--data-dir" in message


def test_missing_file(folder):
    (folder / cifar10.FOLDER / "data_batch_4").unlink()
    assert "data_batch_4: not there" in user_error(cifar10.load, folder)


def test_truncated_file(folder):
    path = folder / cifar10.FOLDER / "data_batch_3"
    path.write_bytes(path.read_bytes()[:1000000])
    assert "data_batch_3: " in user_error(cifar10.load, folder)


def test_other_shape(folder):
    content = batch(1)
    content["data"] = content["data"][:9999]
    write(folder / cifar10.FOLDER / "data_batch_1", content)
    assert "data_batch_1: holds images of shape (9999, 3072)" in user_error(cifar10.load, folder)


@pytest.mark.parametrize("label", [10, -1, 0.5])
def test_bad_label(folder, label):
    content = batch(5)
    content["labels"][17] = label
    write(folder / cifar10.FOLDER / "data_batch_5", content)
    assert "data_batch_5: its labels" in user_error(cifar10.load, folder)


def test_unbalanced_test_set(folder):
    content = batch(6)
    content["labels"][0] = 1
    write(folder / cifar10.FOLDER / "test_batch", content)
    assert "test_batch: the classes have [999, 1001" in user_error(cifar10.load, folder)


def test_swapped_files(folder):
    paths = [folder / cifar10.FOLDER / name for name in ("data_batch_1", "test_batch")]
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(paths, reversed(contents)):
        path.write_bytes(content)
    assert "data_batch_1: is 'testing batch 1 of 1'" in user_error(cifar10.load, folder)


def test_a_file_twice(folder):
    content = batch(2)
    content["batch_label"] = "training batch 4 of 5"
    write(folder / cifar10.FOLDER / "data_batch_4", content)
    line = user_error(cifar10.load, folder)
    assert "data_batch_4: " in line and "data_batch_2" in line


def test_other_data_than_the_official_ones(good, capsys):
    """They are loaded, with one line on stderr, once."""
    cifar10.load(good)
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith(f"warning: {good}: the md5 is not the official one")
    assert all(name in error for name in FILES) and "are wrong" in error


def test_the_official_data(folder, monkeypatch, capsys):
    """Nothing is said where every digest is the official one; labels shifted by one within a file are noticed."""
    digests = {name: hashlib.md5((folder / cifar10.FOLDER / name).read_bytes()).hexdigest() for name in FILES}
    monkeypatch.setattr(cifar10, "OFFICIAL_MD5", digests)
    cifar10.load(folder)
    assert capsys.readouterr().err == ""
    content = batch(3)
    write(folder / cifar10.FOLDER / "data_batch_3", dict(content, labels=content["labels"][1:] + content["labels"][:1]))
    cifar10.load(folder)
    assert "data_batch_3;" in capsys.readouterr().err


def read_batch(path):
    images, labels, _ = cifar10.read_batch(path)
    assert images.dtype == np.uint8 and labels.dtype == np.int32
    return images.transpose(0, 3, 1, 2).reshape(-1, 3072), labels.tolist()


@pytest.mark.parametrize("pickled", [
    as_python_2_wrote_it, functools.partial(pickle.dumps, protocol=3), functools.partial(pickle.dumps, protocol=4),
    lambda content: pickle.dumps(content, protocol=4).replace(b"\x15numpy.core.", b"\x16numpy._core."),
    lambda content: pickle.dumps(dict(content, labels=np.array(content["labels"], np.uint8)), protocol=2),
    lambda content: pickle.dumps(dict(content, data=np.asfortranarray(content["data"])), protocol=2), by_protocol_5,
    functools.partial(by_protocol_5, numpy_name="numpy.core.numeric"), functools.partial(by_protocol_5, order="F"),
    functools.partial(by_protocol_5, opcode=b"\x8e")],
    ids=["python 2", "protocol 3", "protocol 4", "numpy 2", "labels as an array", "Fortran's order", "protocol 5",
         "protocol 5, numpy 1", "protocol 5, Fortran's order", "protocol 5, read-only"])
def test_files_of_other_writers(pickled, tmp_path):
    content, path = batch(4), tmp_path / "data_batch_4"
    content["data"][0] = np.arange(3072) % 256  # every byte
    path.write_bytes(pickled(content))
    data, labels = read_batch(path)
    np.testing.assert_array_equal(data, content["data"])
    assert labels == content["labels"]


class Evil:
    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments) + ((state,) if state else ())

    def __reduce__(self):
        return self.reduced


def with_global(module, name, arguments=b")"):
    return b"\x80\x02c%s\n%s\n%sR." % (module, name, arguments)


MANY = 300000
ATTACKS = {
    "runs code": pickle.dumps(Evil(print, "this pickle ran code"), 2),
    "objects at addresses of its choosing": pickle.dumps(
        {"data": np.zeros(9, np.uint8),
         "labels": Evil(np.dtype, "O8", 0, 1, state=(3, "|", None, None, None, 8, 8, 63))}, 2),
    "a state for uint8": pickle.dumps(Evil(np.dtype, "u1", 0, 1, state=(3, "|", ("u1", (9,)), None, None, 9, 1, 0)), 2),
    "bytes as objects": pickle.dumps(Evil(
        np.core.multiarray._reconstruct, np.ndarray, (0,), b"b", state=(1, (1,), np.dtype("O"), False, b"A" * 8)), 2),
    "an array of objects": pickle.dumps({"data": np.array([{}, 1]), "labels": []}, 2),
    "an array over an array": pickle.dumps(Evil(np.ndarray, (1 << 30,), np.dtype("u1"), np.zeros(1, np.uint8)), 2),
    "another codec": with_global(b"_codecs", b"encode", b"X\x01\x00\x00\x00aX\x03\x00\x00\x00zip\x86"),
    "too few bytes": pickle.dumps(Evil(
        np.core.multiarray._reconstruct, np.ndarray, (0,), b"b", state=(1, (9, 9), np.dtype("u1"), False, b"A")), 2),
    "a state for a function": b"\x80\x02c_codecs\nencode\nN}X\x0c\x00\x00\x00__defaults__)s\x86b.",
    "a huge index": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "many objects": b"\x80\x04\x95" + struct.pack("<q", 50 << 20) + b"}" * (50 << 20),
    "a huge length": b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.",
    "a huge number": pickle.dumps({"data": 1 << 8 * MANY, "labels": []}, 2),
    "a deep tuple as a key": b"\x80\x02}()" + b"\x85" * MANY + b"Nu.",
    "a deep title": b"\x80\x02}(X\x04\x00\x00\x00dataX\x0b\x00\x00\x00batch_label" + b"(" * MANY + b"t" * MANY + b"u.",
    "deep lists as labels": b"\x80\x02}(X\x06\x00\x00\x00labels" + b"]" * MANY + b"a" * (MANY - 1) + b"u.",
    "a name of two lines": b"\x80\x04\x8c\x03a\nb\x8c\x01c\x93.",
    "a buffer of objects": with_global(b"numpy.core.numeric", b"_frombuffer", b"\x96" + struct.pack("<Q", 8) + b"A" * 8
                                       + b"X\x01\x00\x00\x00OK\x01\x85X\x01\x00\x00\x00Ct"),
    "a buffer that is too short": by_protocol_5(dict(batch(1), data=np.zeros((9, 9), np.uint8))).replace(b"J\x09", b"J\x99"),
    "a huge buffer": b"\x80\x05\x96" + b"\xff" * 7 + b"\x7f.",
    "a foreign name": with_global(b"numpy", b"fromfile"),
    "no dictionary": pickle.dumps([1, 2], 2),
    "nothing": b"",
    "a pickle of protocol 0": pickle.dumps({"data": np.zeros(9, np.uint8)}, 0),
}
READ = """
import pathlib, sys
from twba_nets.system import errors
from twba_nets.datasets import cifar10
try:
    cifar10.read_batch(pathlib.Path(sys.argv[1]))
except errors.UserError as error:
    print(error)
"""


@pytest.mark.parametrize("attack", sorted(ATTACKS))
def test_a_pickle_that_attacks(attack, tmp_path):
    """A separate process with 2 GB of memory prints one line and does not crash."""
    path = tmp_path / "data_batch_2"
    path.write_bytes(ATTACKS[attack])
    read = subprocess.run([sys.executable, "-c", READ, path], cwd=REPOSITORY, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, universal_newlines=True,
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30)))
    assert (read.returncode, read.stderr) == (0, "")
    assert read.stdout.startswith(f"{path}: not a readable CIFAR file (") and "ran code" not in read.stdout
    assert read.stdout.count("\n") == 1 and len(read.stdout) < 500


@pytest.mark.parametrize("title", ["x" * MANY, [[]], 7], ids=["long", "a list", "a number"])
def test_a_foreign_title(title, tmp_path):
    write(tmp_path / "data_batch_1", dict(batch(1), batch_label=title))
    with pytest.raises(UserError, match="data_batch_1: is .*, not 'training batch 1 of 5'") as info:
        cifar10.read_batch(tmp_path / "data_batch_1")
    assert len(str(info.value)) < 500


def test_labels_that_are_no_list_of_integers(tmp_path):
    """Nested lists that share their parts: as an array they would have 2 ** 32 numbers."""
    labels = [1, 1]
    for _ in range(31):
        labels = [labels, labels]
    for bad in (labels, [True] * 10000, ["1"] * 10000, "1" * 10000, None, {}):
        write(tmp_path / "data_batch_1", dict(batch(1), labels=bad))
        with pytest.raises(UserError, match="data_batch_1: its labels"):
            cifar10.read_batch(tmp_path / "data_batch_1")


def test_a_batch_file_that_is_far_too_large(tmp_path):
    with open(tmp_path / "data_batch_1", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UserError, match="data_batch_1: .*more than"):
        cifar10.read_batch(tmp_path / "data_batch_1")


@pytest.fixture(scope="module")
def archive(good, tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / cifar10.ARCHIVE
    with tarfile.open(path, "w:gz") as tar:
        tar.add(str(good), cifar10.FOLDER)
        info = tarfile.TarInfo("../escaped")
        tar.addfile(info, io.BytesIO())
    return path


@pytest.mark.slow
@pytest.mark.parametrize("named", ["folder", "file"])
def test_archive(archive, tmp_path, named):
    shutil.copy(archive, tmp_path)
    for _ in range(2):  # the second time the folder is there
        data = cifar10.load(tmp_path if named == "folder" else tmp_path / cifar10.ARCHIVE)
        assert len(data.x_train) == 50000
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([cifar10.ARCHIVE, cifar10.FOLDER])
    assert sorted(p.name for p in (tmp_path / cifar10.FOLDER).iterdir()) == sorted(FILES)
    assert not (tmp_path.parent / "escaped").exists()


def test_two_processes_at_once(archive, tmp_path, monkeypatch):
    """One of them downloads and unpacks; the other one waits for it."""
    monkeypatch.setattr(cifar10, "DEFAULT_DIR", tmp_path)
    calls, unpack = [], cifar10.unpack

    def slowly(*arguments):
        calls.append(arguments)
        time.sleep(0.2)

    monkeypatch.setattr(cifar10, "download", lambda place: slowly(place) or shutil.copy(str(archive), str(place)))
    monkeypatch.setattr(cifar10, "unpack", lambda *arguments: slowly(*arguments) or unpack(*arguments))
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(cifar10.find, [None, None])) == [tmp_path / cifar10.FOLDER] * 2
    assert len(calls) == 2


def test_truncated_archive(archive, tmp_path):
    (tmp_path / cifar10.ARCHIVE).write_bytes(archive.read_bytes()[:100000])
    assert "cannot be unpacked" in user_error(cifar10.load, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [cifar10.ARCHIVE]


@pytest.mark.parametrize("place", [".", "cifar-10-batches-py-target"])
def test_a_batch_file_or_the_cache_of_keras(good, tmp_path, place):
    """Users may name these instead of the folder."""
    folder = tmp_path / place / cifar10.FOLDER
    folder.parent.mkdir(exist_ok=True)
    folder.symlink_to(good)
    assert cifar10.find(tmp_path).resolve() == good
    for named in (folder, folder.parent, folder / "data_batch_1", folder / "test_batch"):
        assert cifar10.find(named) == folder


@pytest.mark.parametrize("name", ["cifar-10-batches-py.tar.gz", "cifar-10-batches-py-target_archive"])
def test_the_archive_in_the_cache_of_keras(archive, tmp_path, name):
    (tmp_path / name).symlink_to(archive)
    assert sorted(path.name for path in cifar10.find(tmp_path).iterdir()) == sorted(FILES)


def pack(path, members, opener=gzip.open, prefix=""):
    """A tar of these members, name -> bytes or TarInfo, by this compressor."""
    with opener(path, "wb") as stream, tarfile.open(fileobj=stream, mode="w|") as tar:
        for name, content in members.items():
            info = content
            if isinstance(content, bytes):
                info = tarfile.TarInfo(name)
                info.size = len(content)
            info.name = f"{prefix}{cifar10.FOLDER}/{name}"
            tar.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)


@pytest.mark.slow
@pytest.mark.parametrize("opener, prefix", [(bz2.open, ""), (lzma.open, "./")], ids=["bz2", "xz"])
def test_archives_of_other_packers(good, tmp_path, opener, prefix):
    pack(tmp_path / cifar10.ARCHIVE, {name: (good / name).read_bytes() for name in FILES}, opener, prefix)
    assert sorted(path.name for path in cifar10.find(tmp_path).iterdir()) == sorted(FILES)


@pytest.mark.parametrize("opener, prefix", [(open, "./"), (gzip.open, "./"), (bz2.open, ""), (lzma.open, "")])
def test_however_an_archive_is_packed_and_named(tmp_path, monkeypatch, opener, prefix):
    """The first time its file is named, then its folder. Small files in place of the batches."""
    monkeypatch.setattr(cifar10, "read", lambda folder: None)  # which checks them
    members = {name: name.encode() for name in FILES}
    pack(tmp_path / cifar10.ARCHIVE, members, opener, prefix)
    for named in (tmp_path / cifar10.ARCHIVE, tmp_path):
        assert cifar10.find(named) == tmp_path / cifar10.FOLDER
    assert {path.name: path.read_bytes() for path in (tmp_path / cifar10.FOLDER).iterdir()} == members


def link(name, target):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


def damaged(path, opener):
    pack(path, {"data_batch_1": np.random.RandomState(0).bytes(1 << 20)}, opener)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def huge(name, size):
    info = tarfile.TarInfo(name)
    info.size = size
    return info


BAD_ARCHIVES = {
    "links in a circle": lambda path: pack(path, {"data_batch_1": link("data_batch_1", "data_batch_2"),
                                                  "data_batch_2": link("data_batch_2", "data_batch_1")}),
    "a link out of it": lambda path: pack(path, {"test_batch": link("test_batch", "/etc/passwd")}),
    "damaged gzip": lambda path: damaged(path, gzip.open),
    "damaged bz2": lambda path: damaged(path, bz2.open),
    "damaged xz": lambda path: damaged(path, lzma.open),
    "no tar": lambda path: path.write_bytes(b"<html>not found</html>"),
    "empty": lambda path: path.write_bytes(b""),
    "another archive": lambda path: pack(path, {"batches.meta": b"x"}),
    "a large member": lambda path: pack(path, {"data_batch_1": huge("data_batch_1", 1 << 40)}),
    "a negative size": lambda path: pack(path, {"readme.html": huge("readme.html", -512)}),
    "many members": lambda path: pack(path, {str(number): b"" for number in range(1000)}),
}


@pytest.mark.parametrize("kind", sorted(BAD_ARCHIVES))
def test_bad_archives(kind, tmp_path):
    BAD_ARCHIVES[kind](tmp_path / cifar10.ARCHIVE)
    assert f"{tmp_path / cifar10.ARCHIVE}: cannot be unpacked into " in user_error(cifar10.load, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [cifar10.ARCHIVE]


def test_an_archive_that_is_huge_once_decompressed(tmp_path, monkeypatch):
    """At most the bound is read, whether the data are in an unused member or in a header."""
    monkeypatch.setattr(cifar10, "MAX_ARCHIVE_BYTES", 1 << 22)
    for name, kind in (("readme.html", tarfile.REGTYPE), ("readme.html", tarfile.GNUTYPE_LONGNAME)):
        info = huge(name, 1 << 24)
        info.type = kind
        with gzip.open(tmp_path / cifar10.ARCHIVE, "wb") as stream:
            stream.write(info.tobuf() + bytes(1 << 24))
        assert "far more than CIFAR-10" in user_error(cifar10.load, tmp_path)


def test_a_corrected_archive(good, tmp_path):
    """An archive with bad files leaves nothing that hides the corrected one."""
    members = {name: (good / name).read_bytes() for name in FILES}
    pack(tmp_path / cifar10.ARCHIVE, dict(members, data_batch_3=b"damaged"), open)
    message = user_error(cifar10.load, tmp_path)
    assert message.startswith(f"{tmp_path / cifar10.ARCHIVE}: data_batch_3: not a readable CIFAR file")
    assert [p.name for p in tmp_path.iterdir()] == [cifar10.ARCHIVE]
    pack(tmp_path / cifar10.ARCHIVE, members, open)
    assert cifar10.find(tmp_path) == tmp_path / cifar10.FOLDER


CONTENT = bytes(range(256)) * 4000


class Server(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT with byte ranges; breaks off after `breaks.pop()` bytes while there are any."""
    breaks, ranges = [], []

    def do_GET(self):
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        self.ranges.append(start)
        if start >= len(CONTENT):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start:][:self.breaks.pop() if self.breaks else None])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def url(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    Server.breaks, Server.ranges = [], []
    server = http.server.HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/archive"
    server.shutdown()
    server.server_close()


def test_download_goes_on_where_it_broke_off(url, tmp_path):
    Server.breaks[:] = [300000]
    path = tmp_path / "archive"
    download = functools.partial(cifar10.download, path, url, hashlib.md5(CONTENT).hexdigest())
    with pytest.raises(UserError, match="run again to continue"):
        download()
    assert not path.exists()
    download()
    assert path.read_bytes() == CONTENT
    assert Server.ranges == [0, 300000]
    assert list(tmp_path.iterdir()) == [path]


def test_download_complete_but_not_yet_renamed(url, tmp_path):
    (tmp_path / "archive.part").write_bytes(CONTENT)
    cifar10.download(tmp_path / "archive", url, hashlib.md5(CONTENT).hexdigest())
    assert (tmp_path / "archive").read_bytes() == CONTENT


def test_download_with_the_wrong_digest(url, tmp_path):
    with pytest.raises(UserError, match="md5 is .*, not 0000"):
        cifar10.download(tmp_path / "archive", url, "0000")
    assert list(tmp_path.iterdir()) == []


def test_download_without_a_network(tmp_path):
    with pytest.raises(UserError, match="--data-dir"):
        cifar10.download(tmp_path / "archive", "http://127.0.0.1:9/archive", "0000")


def test_the_real_data(cifar10_dir):
    data = cifar10.load(cifar10_dir)
    assert np.bincount(data.y_train).tolist() == [5000] * 10
    # the published per-channel mean of the training images, in any order
    np.testing.assert_allclose(data.x_train.mean((0, 1, 2)) / 255, [0.4914, 0.4822, 0.4465], atol=5e-5)
