"""A network as C99: compiled without a warning, it gives every spike of the NumPy reference."""
import os
import re
import shutil
import subprocess

import numpy as np
import pytest

from boards import machines
from helpers import RANDOM, SEEDS, command_error, random_architecture, random_network
from twba_chip.formats import c_source, web_page
from twba_nets.network.architecture import Architecture, Row

COMPILERS = ["gcc"] + ["clang"] * bool(shutil.which("clang"))


def pictures(architecture):
    """The surest one, whose input spikes no rounding turns, and some that are upside down or mirrored."""
    network = random_network(architecture=architecture)
    first = c_source.surest_picture(network)
    return np.stack([first, first[::-1], first[:, ::-1]])


def assert_as_the_reference(network, folder, compiler="gcc"):
    images, machine = pictures(network.architecture), machines.HOST._replace(compiler=[compiler])
    program = machines.build(machine, network, folder)
    machines.assert_as_the_reference(network, images, machines.run(machine, program, images))


@pytest.mark.slow
@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("variant", ["twba", "bwba"])
def test_the_papers_network(variant, compiler, tmp_path):
    assert_as_the_reference(random_network(variant), tmp_path, compiler)


@pytest.mark.parametrize("seed, variant", [(seed, variant) for seed, (variant, _) in zip(SEEDS, RANDOM)])
def test_another_network(seed, variant, tmp_path):
    assert_as_the_reference(random_network(variant, architecture=random_architecture(seed)), tmp_path)


def test_channels_of_several_words(tmp_path):
    """A group reads 40 channels, and so on; 66 reach the classifier."""
    rows = (Row("cnn0", "bn0", 1, 40, 3, 1, "SAME"), Row("cnn1", "bn1", 1, 140, 3, 1, "VALID"),
            Row("cnn2", "bn2", 2, 33, 2, 2, "SAME"))
    assert_as_the_reference(random_network(architecture=Architecture(rows, 8, 6, 3, 10, 1)), tmp_path)


def run_check(folder):
    there = os.path.isabs(subprocess.check_output(["gcc", "-print-file-name=libubsan.so"], universal_newlines=True).strip())
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover"] * there
    subprocess.check_call(["gcc", *machines.FLAGS, *sanitizers, "net.c", "net_test.c", "-o", "check"], cwd=str(folder))
    return subprocess.run([str(folder / "check")], stdout=subprocess.PIPE, universal_newlines=True)


def test_images_whose_sum_does_not_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(c_source, "MOST_VALUES", 24 * 24 * 3 - 1)
    for command, name in ((c_source, "net.c"), (web_page, "net.html")):
        line = command_error(command.main, "twba", tmp_path / name)
        assert line.startswith("twba: its crops have more than 1,727 values") and not any(tmp_path.iterdir())


def test_the_command(tmp_path, capsys):
    """It needs no library but printf's in the check, which finds a wrong table."""
    out = tmp_path / "net.c"
    c_source.main(["bwba", str(out)])
    constants, working = re.search(r"([\d.]+) MB of constants, (\d+) KB", capsys.readouterr().out).groups()
    subprocess.check_call(["gcc", *machines.FLAGS, "-c", "net.c"], cwd=str(tmp_path))
    sections = subprocess.check_output(["size", "-A", "net.o"], cwd=str(tmp_path), universal_newlines=True)
    size = {name: int(number) for name, number in re.findall(r"^(\.\S+)\s+(\d+)", sections, re.MULTILINE)}
    assert float(constants) == pytest.approx(sum(size.get(name, 0) for name in (".rodata", ".data.rel.ro.local")) / 1e6, abs=0.01)
    assert int(working) == pytest.approx(size[".bss"] / 1e3, abs=1)
    assert "malloc" not in subprocess.check_output(["nm", "net.o"], cwd=str(tmp_path), universal_newlines=True)
    assert run_check(tmp_path).stdout.endswith("right\n")
    text = out.read_text()
    out.write_text(text.replace("cnn11_thresholds[512] = {\n    ", "cnn11_thresholds[512] = {\n    9999, 9999, 9999, 9999,"
                                " 9999, 9999, 9999, 9999, 9999, 9999, 9999, 9999,\n    ").replace("cnn11_thresholds[512]",
                                                                                                 "cnn11_thresholds[524]"))
    done = run_check(tmp_path)
    assert done.returncode == 1 and done.stdout.endswith("wrong\n")


def test_what_is_in_the_way(tmp_path):
    for name in ("net", "2nd.c", "a-b.c"):
        assert command_error(c_source.main, "twba", tmp_path / name).startswith(f"{tmp_path / name}: ")
    (tmp_path / "net.h").write_text("#pragma once\n")
    assert command_error(c_source.main, "twba", tmp_path / "net.c").startswith(f"{tmp_path / 'net.h'}: holds something else")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.h"]
