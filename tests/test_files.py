"""Files are written whole or not at all, and nobody else's file is written."""
import errno
import os
import stat
import subprocess
import sys
import threading

import pytest

from twba_nets import command_line
from twba_nets.system import files
from twba_nets.system.errors import UserError


def write(path, text="after"):
    with files.atomic_write(path, "w") as file:
        file.write(text)


def test_text_is_utf_8_in_every_locale(tmp_path):
    """As of to-page, whose page says that it is."""
    code = "import sys, pathlib, helpers, test_files; test_files.write(pathlib.Path(sys.argv[1]), chr(215))"
    narrow = dict(os.environ, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "file")], check=True, env=narrow, cwd=os.path.dirname(__file__))
    assert (tmp_path / "file").read_bytes() == "×".encode()


def test_no_link_is_followed_to_write(tmp_path, monkeypatch):
    """Not even if somebody knows the temporary file's name in advance."""
    (tmp_path / "victim").write_text("before")
    (tmp_path / ".file.tmp").symlink_to(tmp_path / "victim")
    write(tmp_path / "file")
    monkeypatch.setattr(files.secrets, "token_hex", lambda size: "known")
    (tmp_path / ".file.known.tmp").symlink_to(tmp_path / "victim")
    with pytest.raises(UserError, match="file: .*File exists"):
        write(tmp_path / "file", "later")
    assert (tmp_path / "victim").read_text() == "before" and (tmp_path / "file").read_text() == "after"


@pytest.mark.parametrize("target", ["victim", "none", "link"])
def test_a_link_is_replaced_and_not_followed(tmp_path, target):
    """As those of DVC or git-annex, which stand for a file of a cache."""
    (tmp_path / "victim").write_text("before")
    (tmp_path / "link").symlink_to(tmp_path / target)
    write(tmp_path / "link")
    assert not (tmp_path / "link").is_symlink() and (tmp_path / "link").read_text() == "after"
    assert (tmp_path / "victim").read_text() == "before" and len(list(tmp_path.iterdir())) == 2


def test_the_systems_links_stay(tmp_path, monkeypatch):
    """As /dev/stdout, where that is a file."""
    monkeypatch.setattr(files, "DEVICES", tmp_path)
    (tmp_path / "victim").write_text("before")
    (tmp_path / "stdout").symlink_to(tmp_path / "victim")
    with pytest.raises(UserError, match="stdout: .*name a file"):
        write(tmp_path / "stdout")
    assert (tmp_path / "stdout").is_symlink() and (tmp_path / "victim").read_text() == "before"


def test_a_pipe_is_written_to(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")  # as /dev/stdout is one
    for name in ("pipe", "link"):
        read = []
        reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text()))
        reader.start()
        write(tmp_path / name)
        reader.join()
        assert read == ["after"]
    assert stat.S_ISFIFO((tmp_path / "pipe").lstat().st_mode) and len(list(tmp_path.iterdir())) == 2


def test_a_device_stays_one(tmp_path):
    try:
        os.mknod(tmp_path / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        write(tmp_path / "null")
    except (PermissionError, UserError):
        pytest.skip("making a device needs root, and a file system that allows it")
    assert stat.S_ISCHR((tmp_path / "null").lstat().st_mode) and len(list(tmp_path.iterdir())) == 1


def test_a_folder_is_not_written(tmp_path):
    with pytest.raises(UserError, match="Is a directory"):
        write(tmp_path)


@pytest.mark.parametrize("mask, mode", [(0o022, 0o644), (0o077, 0o600), (0, 0o666)])
def test_the_files_mode_is_the_umasks(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        write(tmp_path / "file")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


def test_the_folder_is_synced_after_the_replacement(tmp_path, monkeypatch):
    calls = []
    replace, fsync = os.replace, os.fsync

    def synced(descriptor):
        calls.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "replace", lambda *names: calls.append("replace") or replace(*names))
    monkeypatch.setattr(os, "fsync", synced)
    write(tmp_path / "file")
    assert calls[0].endswith(".tmp") and calls[1:] == ["replace", str(tmp_path)]


def test_a_file_system_that_cannot_sync_folders(tmp_path, monkeypatch):
    fsync = os.fsync

    def refuse(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    write(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "after"


def test_a_run_begins_without_what_killed_ones_left(tmp_path):
    leftovers = [".model.npz.0123456789abcdef.tmp", ".log.csv.ffffffffffffffff.tmp", ".training.npz.tmp"]
    for name in leftovers + [".profile.tmp", ".package.json.tmp", "model.npz.tmp", "model.npz"]:
        (tmp_path / name).write_text("")
    with files.claimed(tmp_path):
        assert {path.name for path in tmp_path.iterdir()} == {".profile.tmp", ".package.json.tmp", "model.npz.tmp", "model.npz"}


def test_what_a_kill_leaves_is_such_a_leftover(tmp_path):
    with files.atomic_write(tmp_path / "model.npz"):
        left, = tmp_path.iterdir()
    left.write_text("half")
    with files.claimed(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == ["model.npz"]


@pytest.mark.parametrize("content", [b"[" * 100000, b'{"a":' * 100000, b"\xff\xfe", b"{", b""])
def test_json_that_is_none(tmp_path, content):
    (tmp_path / "file.json").write_bytes(content)
    with pytest.raises(ValueError):
        files.read_json(tmp_path / "file.json")


def test_what_is_read_is_not_overwritten(tmp_path):
    (tmp_path / "file").write_text("before")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.link(tmp_path / "file", tmp_path / "same")
    for name in ("file", "link", "same"):
        with pytest.raises(UserError, match=f"{name}: .*input.*name another"):
            command_line.check_out(tmp_path / name, tmp_path / "none", tmp_path / "file")
    command_line.check_out(tmp_path / "new", tmp_path / "file")


@pytest.mark.parametrize("name", ["model.npz", "training.npz", "recipe.json", "new.json"])
def test_what_will_be_read_is_not_written(tmp_path, name):
    (tmp_path / "new.npz").write_text("")  # new.json would be its card
    with pytest.raises(UserError, match=f"{name}: would be read"):
        command_line.check_out(tmp_path / name)
