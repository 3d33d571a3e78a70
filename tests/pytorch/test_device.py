"""What the trainer needs of the machine."""
import os

import pytest

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
