"""What a package says of itself, in one voice; and what setup.sh says where something is missing."""
import os
import re
import shutil
import subprocess
import sys

import pytest

import twba_nets
from helpers import REPOSITORY
from twba_nets.system import places


def test_one_version():
    citation = (REPOSITORY / "CITATION.cff").read_text()
    assert f"\nversion: {twba_nets.__version__}\n" in citation
    newest = re.search(r"^## (\S+)$", (REPOSITORY / "CHANGELOG.md").read_text(), re.M).group(1)
    assert newest == twba_nets.__version__


def test_networks_and_released_models_are_in_the_wheel():
    text = (REPOSITORY / "pyproject.toml").read_text()
    assert '"networks" = "twba_nets/networks"' in text
    for folder in places.RELEASED.values():
        for name in ("model.npz", "model.json"):
            assert (REPOSITORY / folder / name).is_file()
            assert f'"{folder}/{name}" = "twba_nets/released/{folder}/{name}"' in text


def test_the_cpus_build_of_pytorch_stands_beside_cudas():
    lines = [line for line in (REPOSITORY / "README.md").read_text().splitlines() if "`pip install '.[torch]'`" in line]
    assert lines and all(f"`pip install torch --index-url {places.CPU_WHEELS}`" in line for line in lines)


def test_installed_it_knows_its_place(tmp_path):
    """Without the checkout around it: released models within the package, data and runs where the user works."""
    package = tmp_path / "site-packages" / "twba_nets"
    package.parent.mkdir()
    package.symlink_to(tmp_path / "copy")
    shutil.copytree(str(REPOSITORY / "twba_nets"), str(tmp_path / "copy"))
    (tmp_path / "copy" / "released").mkdir()
    (package.parent / "pyproject.toml").write_text("another's")  # some packages leave theirs there
    code = ("import sys; sys.path.insert(0, '.'); from twba_nets.runs import card; from twba_nets.system import places;"
            "print(places.IS_CHECKOUT, places.HOME, places.NETWORKS, places.released('twba-published'), card.commit())")
    done = subprocess.run([sys.executable, "-c", code], cwd=str(package.parent), stdout=subprocess.PIPE,
                          universal_newlines=True, env=dict(os.environ, PYTHONPATH=""))
    assert done.stdout.split() == ["False", ".", str(tmp_path / "copy" / "networks"),
                                   str(tmp_path / "copy" / "released" / "TWBA" / "published"), "None"]


def set_up(folder, *arguments, **stubs):
    """(status, stderr) of setup.sh in a folder of its own, where these programs do as they are told here."""
    (folder / "bin").mkdir()
    (folder / "setup.sh").write_text((REPOSITORY / "setup.sh").read_text())
    for name, script in stubs.items():
        path = folder / "bin" / name.replace("_", ".")
        path.write_text("#!/bin/sh\n" + script)
        path.chmod(0o755)
    for name in "bash sh dirname cat cksum mktemp uname".split():
        if not (folder / "bin" / name).exists():
            (folder / "bin" / name).symlink_to(subprocess.check_output(["which", name], universal_newlines=True).strip())
    done = subprocess.run(["bash", "setup.sh", *arguments], cwd=str(folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          universal_newlines=True, env={"PATH": str(folder / "bin"), "HOME": str(folder)})
    return done.returncode, done.stderr


VERSION = r"""case "$*" in *version_info\[:2\]\ !=*) case "$*" in *"'%s'"*) exit 0;; *) exit 1;; esac;; esac
"""
WITHOUT_VENV = r"""case "$*" in *ensurepip*) exit 1;; *--version*) echo Python %s;; *print*) echo %s;; esac
"""


def python(version):
    """A Python of that version that lacks venv."""
    return VERSION % version + WITHOUT_VENV % (version, version)


def test_without_any_python(tmp_path):
    status, error = set_up(tmp_path, uname="echo Linux x86_64")
    assert status == 1 and "`pyenv install 3.7`" in error
    assert "apt install build-essential libssl-dev" in error and "Docker" in error


def test_without_venv(tmp_path):
    status, error = set_up(tmp_path, uname="echo Linux x86_64", python3=python("3.11"))
    assert status == 1 and error.endswith("lacks venv or ensurepip: install them (Debian, Ubuntu: apt install python3.11-venv)\n")


@pytest.mark.parametrize("machine", ["Linux aarch64", "Darwin arm64"])
def test_tensorflow_on_another_machine(tmp_path, machine):
    status, error = set_up(tmp_path, uname=f"echo {machine}", python3=python("3.12"))
    assert status == 1 and error.startswith("setup.sh: TensorFlow 1.15") and error.endswith("(make setup-torch)\n")


def test_pytorch_on_an_old_python(tmp_path):
    status, error = set_up(tmp_path, "torch", python3=python("3.9"))
    assert status == 1 and error.startswith("setup.sh: PyTorch needs CPython 3.10 to 3.13: install one")


IMPORT_ALL = """
import contextlib, importlib, pkgutil, sys
import twba_chip, twba_nets
for package in (twba_chip, twba_nets):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            with contextlib.suppress(ModuleNotFoundError):  # the extras nir and onnx
                importlib.import_module(module.name)
print([name for name in ("tensorflow", "torch") if name in sys.modules])
"""


def test_what_all_share_imports_no_framework():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", IMPORT_ALL], cwd=str(REPOSITORY), stdout=subprocess.PIPE,
                          universal_newlines=True)
    assert done.stdout == "[]\n"
