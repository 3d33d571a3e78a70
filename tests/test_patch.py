"""patches/install.py on a copy of the installed TensorLayer."""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tensorlayer

from helpers import REPOSITORY, start_process

INSTALL = REPOSITORY / "patches" / "install.py"


@pytest.fixture
def site(tmp_path):
    """A folder with an unpatched TensorLayer 1.11.0: the files that the installer looks at."""
    installed = Path(tensorlayer.__file__).parent
    layers = tmp_path / "tensorlayer" / "layers"
    layers.mkdir(parents=True)
    (tmp_path / "tensorlayer" / "__init__.py").write_text("")
    shutil.copy(installed / "layers" / "__init__.py", layers)
    shutil.copy(installed / "layers" / "binary.py", layers)
    shutil.copytree(str(installed.parent / "tensorlayer-1.11.0.dist-info"),
                    str(tmp_path / "tensorlayer-1.11.0.dist-info"))
    assert run(tmp_path, "--revert")[0] == 0
    assert not (layers / "binary.py").exists()
    return tmp_path


def run(site, *arguments):
    """(exit status, output) of the installer for the TensorLayer in `site`."""
    process = subprocess.run([sys.executable, INSTALL, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             universal_newlines=True, env=dict(os.environ, PYTHONPATH=str(site)))
    return process.returncode, process.stdout


def refused(site, *arguments):
    """The message of a run that must fail in one line."""
    status, output = run(site, *arguments)
    assert status == 1
    assert output.count("\n") == 1
    return output


def test_install_check_revert(site):
    init = site / "tensorlayer" / "layers" / "__init__.py"
    stock = init.read_bytes()
    assert "run python patches/install.py" in refused(site, "--check")
    assert run(site)[0] == 0
    assert run(site, "--check")[0] == 0
    patched = init.read_bytes()
    assert patched.startswith(stock) and b"from .binary import *" in patched[len(stock):]
    before = init.stat().st_mtime_ns
    assert run(site)[0] == 0  # twice changes nothing: another process may import it at this moment
    assert init.read_bytes() == patched and init.stat().st_mtime_ns == before
    assert run(site, "--revert")[0] == 0
    assert init.read_bytes() == stock
    assert sorted(path.name for path in init.parent.iterdir()) == ["__init__.py"]


def test_an_older_version_of_the_patch_is_replaced(site):
    assert run(site)[0] == 0
    layers = site / "tensorlayer" / "layers"
    older = (layers / "binary.py").read_bytes() + b"# older\n"
    digest = subprocess.check_output(["sha256sum"], input=older).split()[0].decode()
    init = (layers / "__init__.py").read_text()
    (layers / "__init__.py").write_text(init[:-65] + digest + "\n")
    (layers / "binary.py").write_bytes(older)
    assert "another version" in refused(site, "--check")
    assert run(site)[0] == 0
    assert run(site, "--check")[0] == 0


def test_refuses_a_changed_init(site):
    init = site / "tensorlayer" / "layers" / "__init__.py"
    init.write_text(init.read_text() + "x = 1\n")
    assert "is not the one of TensorLayer 1.11.0" in refused(site)
    assert init.read_text().endswith("x = 1\n")


def test_refuses_a_foreign_binary_py(site):
    foreign = site / "tensorlayer" / "layers" / "binary.py"
    foreign.write_text("mine = 1\n")
    assert "does not belong to this project" in refused(site)
    assert foreign.read_text() == "mine = 1\n"


def test_refuses_a_patch_that_was_edited(site):
    assert run(site)[0] == 0
    installed = site / "tensorlayer" / "layers" / "binary.py"
    installed.write_text(installed.read_text() + "edited = 1\n")
    assert "was changed after it was installed" in refused(site)
    assert "was changed after it was installed" in refused(site, "--revert")


def test_an_interrupted_install_can_be_repeated(site):
    shutil.copy(str(INSTALL.with_name("binary.py")), str(site / "tensorlayer" / "layers"))
    assert "is not patched" in refused(site, "--check")
    assert run(site)[0] == 0
    assert run(site, "--check")[0] == 0


def test_refuses_another_version(site):
    folder = site / "tensorlayer-1.11.0.dist-info"
    metadata = (folder / "METADATA").read_text().replace("Version: 1.11.0", "Version: 1.11.1")
    shutil.rmtree(folder)
    other = site / "tensorlayer-1.11.1.dist-info"
    other.mkdir()
    (other / "METADATA").write_text(metadata)
    assert "TensorLayer 1.11.1 is installed, but this patch is for 1.11.0" in refused(site)


# as on a TensorLayer that nobody patched: what tensorlayer.layers imports from binary.py has to go as well
UNPATCHED = """
import runpy, sys
import tensorlayer
sys.modules["tensorlayer.layers.binary"] = None
sys.argv = ["x", "--dataset", "digits", "--output", sys.argv[1]]
runpy.run_path("TWBA/cifar10_twba_example.py", run_name="__main__")
"""


def test_scripts_say_how_to_apply_it(tmp_path):
    """A script run on an unpatched TensorLayer names the command, in one line."""
    process = start_process("-c", UNPATCHED, tmp_path / "run", cwd=REPOSITORY)
    _, error = process.communicate()
    assert process.returncode == 1
    assert error.splitlines()[-1] == (
        "error: TensorLayer is not patched with this project's binary.py: run python patches/install.py")
