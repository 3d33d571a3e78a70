"""What the trainer needs of the machine."""
import os

import pytest

from twba_nets.system import streams
from twba_nets.system.errors import UserError
from twba_torch import device


@pytest.mark.parametrize("command", ["g++", "g++ -m64", "env g++", "env LANG=C g++ -isystem '/a b'", ""])
def test_compilers_of_several_words(command, monkeypatch):
    """torch.compile gets the compiler alone: it would look for a program of the whole command's name."""
    monkeypatch.setenv("CXX", command)
    device.check_cpu(exact=False, compiled=True)
    assert os.environ["CXX"] == "g++"


@pytest.mark.parametrize("command, text", [
    ("no-such-compiler -m64", "^no-such-compiler: not found"), ("-m64", "^-m64: not found"), ("g++ '", "^CXX=g.. ': not a comm")])
def test_no_compiler(command, text, monkeypatch):
    monkeypatch.setenv("CXX", command)
    with pytest.raises(UserError, match=text):
        device.check_cpu(exact=False, compiled=True)
    device.check_cpu(exact=False, compiled=False)


def test_no_compiler_for_a_gpu(monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(device.shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="gcc or clang.*--no-compile"):
        device.check_gpu(compiled=True)
    device.check_gpu(compiled=False)
    monkeypatch.setattr(device.shutil, "which", lambda name: name == "clang" or None)
    device.check_gpu(compiled=True)


@pytest.mark.parametrize("set_, launched, chief", [
    ({}, False, True), ({"RANK": "1"}, False, True), ({"WORLD_SIZE": "1"}, False, True),
    ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "x"}, True, True),
    ({"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "x"}, True, False)])
def test_one_of_several_processes(set_, launched, chief, monkeypatch):
    """A launcher sets all three. A shell may have one of them for another reason."""
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in set_.items():
        monkeypatch.setenv(name, value)
    assert (streams.is_launched(), streams.is_chief()) == (launched, chief)
