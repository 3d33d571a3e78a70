"""A network as C99: compiled without a warning, it gives every spike of the NumPy reference."""
import ctypes
import os
import re
import shutil
import subprocess

import numpy as np
import pytest

from helpers import RANDOM, SEEDS, command_error, random_architecture, random_network
from twba_chip.formats import c_source
from twba_chip.spiking import reference

FLAGS = ["-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-pedantic"]
# the maps as the forward pass leaves them, a byte a neuron
SHOW = """
#include "net.c"

static uint8_t *show(const HiddenStage *reader, const uint32_t *map, int channels, uint8_t *out) {
    for (int place = 0; place < reader->size * reader->size; place++)
        for (int channel = 0; channel < channels; channel++) {
            const uint32_t *words = map + (place * reader->groups + channel % reader->groups) * reader->words;
            int bit = channel / reader->groups;
            *out++ = words[bit / 32] >> bit % 32 & 1;
        }
    return out;
}

void show_maps(const uint8_t *image, const int *channels, uint8_t *out) {
    float logits[CLASSES];
    net_classify(image, logits);
    clear(spikes[0]);
    encode(spikes[0]);
    out = show(hidden_stages, spikes[0], channels[0], out);
    for (int s = 0; s < HIDDEN_STAGES; s++) {
        clear(spikes[(s + 1) % 2]);
        hidden(hidden_stages + s, spikes[s % 2], spikes[(s + 1) % 2]);
        out = show(hidden_stages + s + 1, spikes[(s + 1) % 2], channels[s + 1], out);
    }
}
"""
COMPILERS = ["gcc"] + ["clang"] * bool(shutil.which("clang"))


def compiled(network, folder, compiler="gcc"):
    (folder / "net.c").write_text(c_source.program("net", network))
    (folder / "net.h").write_text(c_source.header("net", network))
    (folder / "show.c").write_text(SHOW)
    subprocess.check_call([compiler, *FLAGS, "-shared", "-fPIC", "show.c", "-o", "show.so"], cwd=str(folder))
    return ctypes.CDLL(str(folder / "show.so"))


def pictures(architecture, number=3):
    """The surest one, whose input spikes no rounding turns, and some that are upside down or mirrored."""
    network = random_network(architecture=architecture)
    first = c_source.surest_picture(network)
    return np.stack([first, first[::-1], first[:, ::-1]][:number])


def assert_as_the_reference(network, library):
    architecture = network.architecture
    shapes = [stage.map_shape for stage in (architecture.encoder, *architecture.hidden)]
    channels = (ctypes.c_int * len(shapes))(*(shape[2] for shape in shapes))
    images = pictures(architecture)
    potentials = reference.input_potentials(network, reference.central_crop(images, architecture))
    for image, sure in zip(images, np.abs(potentials) > 1e-4):
        image, logits = np.ascontiguousarray(image), np.zeros(architecture.classes, np.float32)
        found, pointer = np.zeros(sum(map(np.prod, shapes)), np.uint8), ctypes.c_void_p
        library.show_maps(image.ctypes.data_as(pointer), channels, found.ctypes.data_as(pointer))
        maps = np.split(found, np.cumsum([np.prod(shape) for shape in shapes])[:-1])
        maps = [spikes.reshape(shape).astype(bool) for spikes, shape in zip(maps, shapes)]
        expected = reference.encode(network, reference.central_crop(image[None], architecture))[0]
        assert (maps[0] == expected)[sure].all()
        hidden = reference.forward(network, maps[0][None])
        for spikes, stage in zip(maps[1:], architecture.hidden):
            np.testing.assert_array_equal(spikes, hidden[stage.map][0], stage.map)
        best = library.net_classify(image.ctypes.data_as(pointer), logits.ctypes.data_as(pointer))
        expected, = reference.classify(network, hidden[architecture.stages[-1].map])
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
        assert best == logits.argmax()


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("variant", ["twba", "bwba"])
def test_the_papers_network(variant, compiler, tmp_path):
    network = random_network(variant)
    assert_as_the_reference(network, compiled(network, tmp_path, compiler))


@pytest.mark.parametrize("seed, variant", [(seed, variant) for seed, (variant, _) in zip(SEEDS, RANDOM)])
def test_another_network(seed, variant, tmp_path):
    network = random_network(variant, architecture=random_architecture(seed))
    assert_as_the_reference(network, compiled(network, tmp_path))


def run_check(folder):
    there = os.path.isabs(subprocess.check_output(["gcc", "-print-file-name=libubsan.so"], universal_newlines=True).strip())
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover"] * there
    subprocess.check_call(["gcc", *FLAGS, *sanitizers, "net.c", "net_test.c", "-o", "check"], cwd=str(folder))
    return subprocess.run([str(folder / "check")], stdout=subprocess.PIPE, universal_newlines=True)


def test_the_command(tmp_path, capsys):
    """It needs no library but printf's in the check, which finds a wrong table."""
    out = tmp_path / "net.c"
    c_source.main(["bwba", str(out)])
    constants, working = re.search(r"([\d.]+) MB of constants, (\d+) KB", capsys.readouterr().out).groups()
    subprocess.check_call(["gcc", *FLAGS, "-c", "net.c"], cwd=str(tmp_path))
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
