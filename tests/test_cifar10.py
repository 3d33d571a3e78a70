"""Finding, downloading, unpacking and checking CIFAR-10, on files made here; and the real data where it is at hand."""
import functools
import hashlib
import http.server
import io
import pickle
import shutil
import tarfile
import threading

import numpy as np
import pytest

from twba_nets import cifar10
from twba_nets.errors import UserError

FILES = cifar10.TRAIN_FILES + (cifar10.TEST_FILE,)


def batch(number):
    """A batch of 10,000 flat images, 1,000 of each class, as the original archive's files hold it."""
    data = np.zeros((10000, 3072), np.uint8)
    data[:, 0] = np.arange(10000) % 251
    data[:, 1024] = number  # the first green value
    title = "testing batch 1 of 1" if number == 6 else "training batch %d of 5" % number
    return {"data": data, "labels": [i % 10 for i in range(10000)], "batch_label": title, "filenames": []}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A folder with a well-formed cifar-10-batches-py."""
    folder = tmp_path_factory.mktemp("cifar") / cifar10.FOLDER
    folder.mkdir()
    for i, name in enumerate(FILES, 1):
        write(folder / name, batch(i))
    return folder


def write(path, content):
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.fixture
def folder(good, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(str(good), str(tmp_path / cifar10.FOLDER)) and tmp_path


def complaint(folder):
    """The text of the UserError; one line."""
    with pytest.raises(UserError) as info:
        cifar10.load(folder)
    assert "\n" not in str(info.value)
    return str(info.value)


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
    message = complaint(tmp_path / "nowhere")
    assert "nowhere" in message and "--data-dir" in message


def test_missing_file(folder):
    (folder / cifar10.FOLDER / "data_batch_4").unlink()
    assert "data_batch_4: not there" in complaint(folder)


def test_truncated_file(folder):
    path = folder / cifar10.FOLDER / "data_batch_3"
    path.write_bytes(path.read_bytes()[:1000000])
    assert "data_batch_3: not a readable CIFAR-10 batch" in complaint(folder)


def test_other_shape(folder):
    content = batch(1)
    content["data"] = content["data"][:9999]
    write(folder / cifar10.FOLDER / "data_batch_1", content)
    assert "data_batch_1: holds images of shape (9999, 3072)" in complaint(folder)


@pytest.mark.parametrize("label", [10, -1, 0.5])
def test_bad_label(folder, label):
    content = batch(5)
    content["labels"][17] = label
    write(folder / cifar10.FOLDER / "data_batch_5", content)
    assert "data_batch_5: its labels are not" in complaint(folder)


def test_unbalanced_test_set(folder):
    content = batch(6)
    content["labels"][0] = 1
    write(folder / cifar10.FOLDER / "test_batch", content)
    assert "test_batch: the classes have [999, 1001" in complaint(folder)


def test_swapped_files(folder):
    paths = [folder / cifar10.FOLDER / name for name in ("data_batch_1", "test_batch")]
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(paths, reversed(contents)):
        path.write_bytes(content)
    assert "data_batch_1: is 'testing batch 1 of 1'" in complaint(folder)


def test_a_file_twice(folder):
    content = batch(2)
    content["batch_label"] = "training batch 4 of 5"
    write(folder / cifar10.FOLDER / "data_batch_4", content)
    assert "data_batch_4: holds the same images as data_batch_2" in complaint(folder)


class Evil:
    def __reduce__(self):
        return print, ("this pickle ran code",)


def test_a_pickle_that_would_run_code(folder, capsys):
    write(folder / cifar10.FOLDER / "data_batch_2", dict(batch(2), filenames=Evil()))
    assert "data_batch_2: not a readable CIFAR-10 batch" in complaint(folder)
    assert "ran code" not in capsys.readouterr().out


@pytest.fixture(scope="module")
def archive(good, tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / cifar10.ARCHIVE
    with tarfile.open(str(path), "w:gz") as tar:
        tar.add(str(good), cifar10.FOLDER)
        info = tarfile.TarInfo("../escaped")
        tar.addfile(info, io.BytesIO())
    return path


@pytest.mark.parametrize("named", ["folder", "file"])
def test_archive(archive, tmp_path, named):
    shutil.copy(str(archive), str(tmp_path))
    for _ in range(2):  # the second time the folder is there
        data = cifar10.load(tmp_path if named == "folder" else tmp_path / cifar10.ARCHIVE)
        assert len(data.x_train) == 50000
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([cifar10.ARCHIVE, cifar10.FOLDER])
    assert sorted(p.name for p in (tmp_path / cifar10.FOLDER).iterdir()) == sorted(FILES)
    assert not (tmp_path.parent / "escaped").exists()


def test_truncated_archive(archive, tmp_path):
    (tmp_path / cifar10.ARCHIVE).write_bytes(archive.read_bytes()[:100000])
    assert "cannot be unpacked" in complaint(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [cifar10.ARCHIVE]


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
def url():
    Server.breaks, Server.ranges = [], []
    server = http.server.HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield "http://127.0.0.1:%d/archive" % server.server_port
    server.shutdown()
    server.server_close()


def test_download_goes_on_where_it_broke_off(url, tmp_path):
    Server.breaks[:] = [300000]
    path = tmp_path / "archive"
    download = functools.partial(cifar10.download, path, url, hashlib.md5(CONTENT).hexdigest())
    with pytest.raises(UserError, match="run again to go on"):
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
