"""stdout and stderr end no program: closed, without a reader, or unable to write a character."""
import json
import os
import pty
import subprocess
import sys
from types import SimpleNamespace

import pytest
from helpers import REPOSITORY, process_error

from twba_nets.system import progress, streams

COMMAND = [sys.executable, "-W", "ignore", str(REPOSITORY / "twba_command.py")]
DIGITS = ["--dataset", "digits", "--limit", "3"]


def run(*arguments, **named):
    """A finished process of the command twba-nets; its output is text unless it goes elsewhere."""
    named = dict({"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}, **named)
    return subprocess.run(COMMAND + [str(argument) for argument in arguments], universal_newlines=True, **named)


@pytest.fixture
def unread():
    """The end for writing of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["evaluate", *DIGITS], ["report", "twba", "OUT", *DIGITS, "--robustness-images", "3"]])
def test_a_closed_stderr(arguments, tmp_path):
    arguments = [tmp_path / "report" if argument == "OUT" else argument for argument in arguments]
    closed = run(*arguments, stderr=None, preexec_fn=lambda: os.close(2))
    assert closed.returncode == 0 and closed.stdout == run(*arguments).stdout != ""


def test_a_closed_stderr_of_another_program(monkeypatch, capsys):
    """A daemon may have none, a closed one, or one that only writes. Messages are then dropped, and do not go to stdout."""
    monkeypatch.setattr(progress, "EVERY", 0)
    closed = open(os.devnull, "w")
    closed.close()
    for stderr in (None, closed, SimpleNamespace(write=len)):
        with monkeypatch.context() as without:
            without.setattr(sys, "stderr", stderr)
            streams.tell("warning: of something")
            with streams.optional("something"):
                raise TypeError("of a library")
            with progress.bar(20, "images") as bar:
                bar.update(10)
    assert capsys.readouterr() == ("", "")


def test_a_closed_streams_number_goes_to_no_file(tmp_path):
    """A C library writes to file descriptor 2, so this must not be a checkpoint's."""
    code = ("import os, sys; from twba_nets.system import interrupts; interrupts.exit_at_once(); file = open(sys.argv[1], 'w');"
            "os.write(2, b'a complaint'); file.write('whole')")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "file")], cwd=str(REPOSITORY),
                          preexec_fn=lambda: os.closerange(0, 3))
    assert done.returncode == 0 and (tmp_path / "file").read_text() == "whole"


@pytest.mark.parametrize("arguments", [["--help"], ["evaluate", "--help"], ["evaluate", *DIGITS, "--json", "FILE"]])
def test_a_pipe_that_nobody_reads(arguments, unread, tmp_path):
    figures = tmp_path / "figures.json"
    done = run(*[figures if argument == "FILE" else argument for argument in arguments], stdout=unread)
    assert done.returncode == 0 and "rror" not in done.stderr and "Traceback" not in done.stderr
    if "FILE" in arguments:
        found = json.loads(figures.read_text())
        assert (found["images"], found["dataset"]) == (3, "digits")  # although the network was trained on others


def test_the_reader_goes_away():
    """For example `head -1`: the program continues, and so does another process that writes there."""
    code = ("import os, sys, time; from twba_nets.system import interrupts; interrupts.exit_at_once(); print('one', flush=True);"
            "sys.stdin.read(); print('two', flush=True); os.system('echo three'); print('four'); sys.exit(7)")
    process = subprocess.Popen([sys.executable, "-c", code], cwd=str(REPOSITORY), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"one\n"
    process.stdout.close()
    process.stdin.close()
    assert process.stderr.read() == b"" and process.wait() == 7
    process.stderr.close()


def test_a_terminal_that_is_hung_up(tmp_path):
    """Without the signal, as for a disowned program."""
    controller, terminal = pty.openpty()
    code = ("import sys; from pathlib import Path; from twba_nets.system import interrupts; interrupts.exit_at_once();"
            "print('a'); sys.stdin.read(); print('b'); print('c', file=sys.stderr); Path(sys.argv[1]).touch()")
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "end")], cwd=str(REPOSITORY), stdin=subprocess.PIPE,
                               stdout=terminal, stderr=terminal, start_new_session=True)
    os.close(terminal)
    assert os.read(controller, 1) == b"a"
    os.close(controller)
    process.stdin.close()
    assert process.wait() == 0 and (tmp_path / "end").exists()


@pytest.mark.parametrize("name", ["\u00e9", "\u7f51", "\udcff"])
def test_a_path_that_stdout_cannot_write(name, tmp_path):
    """Escaped, after a file as before; and so in a mistake's line."""
    ascii_ = dict(os.environ, PYTHONIOENCODING="ascii")
    escaped = name.encode("ascii", "backslashreplace").decode()
    done = run("export", "twba", tmp_path / (name + ".npz"), env=ascii_)
    assert done.returncode == 0 and done.stderr == "" and (tmp_path / (name + ".npz")).exists()
    assert done.stdout.startswith(f"{tmp_path}/{escaped}.npz: TWBA")
    done = run("export", tmp_path / name, tmp_path / "out.npz", env=ascii_)
    assert f"{tmp_path}/{escaped}: no such" in process_error(done.returncode, done.stderr)


def test_a_full_disk_under_stdout():
    """That is an error: the figures are lost."""
    with open("/dev/full", "w") as full:
        done = run("evaluate", *DIGITS, stdout=full)
    line = done.stderr.splitlines()[-1]  # scikit-learn insists on those before
    assert done.returncode == 1 and line.startswith("error: ") and "stdout" in line and "Traceback" not in done.stderr


def test_a_full_disk_under_stderr():
    with open("/dev/full", "w") as full:
        done = run("evaluate", "nothing", stderr=full)
        assert done.returncode == 1
        assert run("evaluate", *DIGITS, stderr=full).returncode == 0


def test_what_is_optional_is_a_warning(capsys):
    with streams.optional("a curve: is not drawn"):
        raise TypeError("Descriptors cannot be created directly.\nMore information: ...")
    error = capsys.readouterr().err
    assert error.startswith("warning: a curve: is not drawn") and "TypeError: Descriptors" in error and error.count("\n") == 1
    with pytest.raises(KeyboardInterrupt):
        with streams.optional("a curve"):
            raise KeyboardInterrupt
