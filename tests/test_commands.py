"""The command twba-nets, and what it does without a framework: predict, evaluate, export."""
import dataclasses
import json
import os
import re
import resource
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

import twba_chip
import twba_command
from helpers import REPOSITORY, command_error, process_error, random_network, user_error
from twba_chip import engine, evaluate, export, predict
from twba_chip.report import command as report
from twba_chip.spiking import file as spiking_file, folding, opening as exported
from twba_nets import __version__, command_line
from twba_nets.datasets import digits, pictures
from twba_nets.datasets.dataset import CIFAR10, DIGITS
from twba_nets.network.architecture import PAPER
from twba_nets.runs import npz, recipe as recipes
from twba_nets.system import places

IMAGES = digits.load().x_test[:3]


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "three.png"
    Image.fromarray(IMAGES[0]).save(str(path))
    return path


def test_usage_and_version(capsys):
    twba_command.main([])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "usage: twba-nets COMMAND ..."
    assert [line.split()[0] for line in lines[2:-2]] == list(twba_command.COMMANDS)
    twba_command.main(["--version"])
    assert capsys.readouterr().out == __version__ + "\n"
    with pytest.raises(SystemExit, match="error: twba-nets fly: no such command: use one of predict, evaluate"):
        twba_command.main(["fly"])


@pytest.mark.parametrize("name", twba_command.COMMANDS)
def test_every_command_explains_itself(name):
    """In an environment without PyTorch, NIR and ONNX those that need them name the extra to install."""
    done = subprocess.run([sys.executable, "-W", "ignore", "twba_command.py", name, "--help"], cwd=str(REPOSITORY),
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    if done.returncode:
        extra = {"to-nir": "nir", "to-onnx": "onnx", "to-qonnx": "onnx", "to-safetensors": "torch", "train": "torch"}[name]
        line = process_error(done.returncode, done.stderr)
        assert line.endswith(f" is not installed: {places.install(extra)}")
    else:
        assert done.stdout.startswith("usage: ") and "--help" in done.stdout
        if name != "train":  # one way to name a network: the first argument
            arguments = re.sub(r"usage: twba-nets \S+|\[-[^]]*\]", "", done.stdout.split("\n\n")[0]).split()
            assert arguments[0].strip("[]") == "network"


def test_what_installs_an_extra(monkeypatch):
    """It needs a clone, since another project may take the name on the index. For PyTorch it names the CPU build, too."""
    assert "pip install '.[nir]' in a clone" in places.install("nir") and "index-url" not in places.install("nir")
    assert "pip install '.[torch]' in a clone" in places.install("torch") and places.CPU_WHEELS in places.install("torch")
    extras = re.findall(r"^(\w+) = \[", (REPOSITORY / "pyproject.toml").read_text().split("optional-dependencies]")[1], re.M)
    assert {*twba_command.EXTRAS.values(), "picture"} <= set(extras)
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert "pip install '.[picture]' in a clone" in command_error(predict.main, "twba", "picture.png")


def test_predict(picture, capsys):
    predict.main(["bwba", str(picture)])
    lines = capsys.readouterr().out.splitlines()
    output, expected = twba_chip.load("bwba").run(IMAGES[:1], return_spikes=True)
    logits = output.logits[0].astype(float)
    chances = np.exp(logits) / np.exp(logits).sum()
    assert [line.split()[0] for line in lines[:10]] == [CIFAR10[i] for i in np.argsort(-chances)]
    assert [line.split()[1] for line in lines[:10]] == [f"{chance:.1%}" for chance in sorted(chances)[::-1]]
    assert lines[11].split() == ["map", "neurons", "spikes", "firing", "rate"]
    found = {line.split()[0]: line.split()[1:] for line in lines[12:]}
    assert list(found) == list(expected)
    for name, spikes in expected.items():
        assert found[name] == [str(spikes.size), str(spikes.sum()), f"{spikes.mean():.1%}"]


def test_several_pictures(picture, tmp_path, capsys):
    """A line each, files and all of a folder's; one that cannot be read stops no other."""
    folder = tmp_path / "folder"
    (folder / "within").mkdir(parents=True)
    for number, place in enumerate((folder / "b.png", folder / "a.JPG", folder / "within" / "c.bmp")):
        Image.fromarray(IMAGES[number]).save(str(place))
    (folder / "notes.txt").write_text("no picture")
    predict.main(["bwba", str(picture), str(folder)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines] == [str(path) for path in (
        picture, folder / "a.JPG", folder / "b.png", folder / "within" / "c.bmp")]
    output, maps = twba_chip.load("bwba").run(IMAGES[:1], return_spikes=True)
    logits = output.logits[0].astype(float)
    chance, spikes = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum(), sum(
        spikes.sum() for spikes in maps.values())
    assert lines[0].endswith(f": {CIFAR10[logits.argmax()]} {chance.max():.1%}, {spikes:,} spikes")
    (folder / "aa.png").write_text("no picture")
    assert command_error(predict.main, "bwba", folder).startswith("1 of 4 pictures")
    captured = capsys.readouterr()
    note, error = captured.err.splitlines()
    assert captured.out.splitlines() == lines[1:] and error.startswith(f"error: {folder / 'aa.png'}: ") and "notes.txt" in note
    (tmp_path / "empty").mkdir()
    assert str(tmp_path / "empty") in command_error(predict.main, "bwba", tmp_path / "empty")


def test_a_picture_in_the_networks_place(picture):
    line = command_error(predict.main, picture, picture)
    assert line.startswith(f"{picture}: ") and "not a network" in line


def read_picture(path):
    return pictures.read_picture(path, 32)


def test_pictures_of_other_kinds(tmp_path):
    """A large grey picture with the digit in its central square; files that are none."""
    wide = np.zeros((96, 200), np.uint8)
    wide[:, 52:148] = np.kron(IMAGES[1][..., 0], np.ones((3, 3), np.uint8))
    Image.fromarray(wide).save(str(tmp_path / "wide.png"))
    assert np.abs(read_picture(tmp_path / "wide.png").astype(int) - IMAGES[1]).mean() < 12
    turned = Image.fromarray(np.rot90(IMAGES[0]))
    exif = turned.getexif()
    exif[274] = 6  # to be turned clockwise before it is shown
    turned.save(str(tmp_path / "turned.png"), exif=exif)
    np.testing.assert_array_equal(read_picture(tmp_path / "turned.png"), IMAGES[0])
    clear = np.concatenate([IMAGES[0], np.where(IMAGES[0][..., :1] > 99, 255, 0).astype(np.uint8)], axis=2)
    Image.fromarray(clear).save(str(tmp_path / "clear.png"))
    np.testing.assert_array_equal(read_picture(tmp_path / "clear.png"), np.where(clear[..., 3:] == 255, IMAGES[0], 255))
    (tmp_path / "text.png").write_text("none")
    (tmp_path / "cut.png").write_bytes((tmp_path / "wide.png").read_bytes()[:300])
    os.mkfifo(str(tmp_path / "pipe"))
    for name in ("missing.png", "pipe"):
        assert command_error(predict.main, "twba", tmp_path / name).startswith(f"{tmp_path / name}: no such file")
    for name in ("text.png", "cut.png"):
        assert command_error(predict.main, "twba", tmp_path / name).startswith(f"{tmp_path / name}: not a picture")


def read(picture, path, **options):
    """What predict sees of a picture (Pillow's) that is written to a file."""
    picture.save(str(path), **options)
    return read_picture(path).astype(int)


@pytest.mark.parametrize("name", ["deep.png", "deep.tif", "deep.jp2", "deep.pgm"])
def test_pixels_of_16_bits(name, tmp_path):
    """The upper 8 count, in every format: as if they were all that the file has."""
    grey = np.random.RandomState(0).randint(0, 65536, (64, 64)).astype(np.uint16)
    expected = read(Image.fromarray((grey >> 8).astype(np.uint8)), tmp_path / "plain.png")
    if name.endswith("pgm"):
        (tmp_path / name).write_bytes(b"P5 64 64 65535\n" + grey.astype(">u2").tobytes())
        found = read_picture(tmp_path / name)
    else:
        found = read(Image.fromarray(grey), tmp_path / name, **{"irreversible": False} if name.endswith("jp2") else {})
    np.testing.assert_array_equal(found, expected)


def test_colours_of_16_bits(tmp_path):
    """In a PNG of our own, because Pillow cannot write one."""
    deep = np.random.RandomState(0).randint(0, 65536, (32, 32, 3)).astype(">u2")
    (tmp_path / "deep.png").write_bytes(png(deep, depth=16))
    np.testing.assert_array_equal(read_picture(tmp_path / "deep.png"), deep >> 8)


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_numbers_of_which_nobody_says_what_is_white(kind, tmp_path):
    Image.fromarray(np.full((40, 40), 200, kind)).save(str(tmp_path / "picture.tif"))
    line = command_error(predict.main, "twba", tmp_path / "picture.tif")
    assert str(tmp_path / "picture.tif") in line and "8 or 16 bits" in line and "convert it" in line


def png(pixels, depth=8, interlaced=False, rows=None):
    """A PNG of pixels [h, w, 3], whose data hold `rows` rows of the last pass; by default all."""
    passes = [pixels[y::down, x::across] for x, y, across, down in pictures.PASSES[interlaced]]
    passes[-1] = passes[-1][:rows]
    data = b"".join(b"\0" + row.tobytes() for part in passes if part.size for row in part)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], depth, 2, 0, 0, interlaced)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(body)) + kind + body + struct.pack(
        ">I", zlib.crc32(kind + body)) for kind, body in chunks)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (1, 1), (3, 2)])
def test_a_png_whose_pixels_end_early(interlaced, size, tmp_path):
    """It is refused even if its parts are well formed: missing pixels are not taken for black."""
    pixels = np.random.RandomState(0).randint(1, 256, size + (3,)).astype(np.uint8)
    path = tmp_path / "picture.png"
    path.write_bytes(png(pixels, interlaced=interlaced))
    expected = read(Image.fromarray(pixels), tmp_path / "other.png")
    np.testing.assert_array_equal(read_picture(path), expected)
    last = len(pixels[pictures.PASSES[interlaced][-1][1]::pictures.PASSES[interlaced][-1][3]])
    for rows in {0, last // 2, last - 1} if last else ():
        path.write_bytes(png(pixels, interlaced=interlaced, rows=rows))
        assert f"{path}: not a picture" in command_error(predict.main, "twba", path)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_a_png_of_any_mode_is_whole(mode, tmp_path):
    for width, height in ((1, 1), (7, 9), (40, 33)):
        pixels = np.random.RandomState(width).randint(0, 256, (height, width, 3)).astype(np.uint8)
        read(Image.fromarray(pixels).convert(mode), tmp_path / "picture.png")


@pytest.mark.parametrize("size", [(9500, 9500), (1, 200000000)])
def test_a_header_of_too_many_pixels(size, tmp_path):
    """Below and above the number from which on Pillow itself refuses. Of the pixels there are none."""
    (tmp_path / "bomb.png").write_bytes(png(np.broadcast_to(np.uint8(0), size + (3,)), rows=0))
    line = user_error(read_picture, tmp_path / "bomb.png")
    assert line.startswith(f"{tmp_path / 'bomb.png'}: ") and "pixels" in line and "shrink" in line


@pytest.mark.slow
@pytest.mark.parametrize("size, mode", [((12000, 12000), "L"), ((100000, 1000), "1"), ((30000, 30000), "1")])
def test_a_picture_of_too_many_pixels(size, mode, tmp_path):
    """A small file: a process with 500 MB refuses it."""
    Image.new(mode, size).save(str(tmp_path / "bomb.png"))
    code = "import sys; from twba_chip import predict; predict.main(sys.argv[1:])"
    done = subprocess.run([sys.executable, "-c", code, "twba", str(tmp_path / "bomb.png")], cwd=str(REPOSITORY),
                          stderr=subprocess.PIPE, universal_newlines=True,
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (500 << 20, 500 << 20)))
    line = process_error(done.returncode, done.stderr)
    assert str(tmp_path / "bomb.png") in line and "pixels" in line and "shrink" in line


def test_a_large_photograph(tmp_path):
    """A JPEG is decoded at a fraction of its size: the same picture, but for a little."""
    small = np.random.RandomState(0).randint(0, 256, (32, 32, 3)).astype(np.uint8)
    large = Image.fromarray(small).resize((2048, 2048), Image.BICUBIC)
    found, whole = read(large, tmp_path / "large.jpg"), read(large, tmp_path / "large.bmp")
    assert np.abs(found - whole).mean() < 2


@pytest.mark.parametrize("error", [RuntimeError("Failed to decode frame 0: No content"), KeyError(3), MemoryError(),
                                   ZeroDivisionError("a\nb")], ids=repr)
def test_whatever_a_decoder_raises(error, picture, monkeypatch):
    """For example Pillow's AVIF decoder, for a file with one inverted byte."""
    def fail(*_):
        raise error
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", fail)
    assert f"{picture}: not a picture that Pillow can read" in command_error(predict.main, "twba", picture)


def test_a_network_that_the_engine_is_not_written_for(monkeypatch):
    monkeypatch.setattr(engine.padding, "MOST_SYNAPSES", 100)
    assert "cnn1: " in command_error(evaluate.main, "--dataset", "digits", "--limit", 1)


def test_evaluate(tmp_path, capsys):
    """An exported file, on the digits that its card names; the engine's figures, on the screen and as JSON."""
    spiking_file.write(tmp_path / "net.npz", random_network(card={"recipe": {"dataset": "digits"}}))
    evaluate.main([str(tmp_path / "net.npz"), "--limit", "3", "--json", str(tmp_path / "figures.json")])
    output = twba_chip.load(tmp_path / "net.npz").run(IMAGES)
    accuracy = (output.logits.argmax(1) == digits.load().y_test[:3]).mean()
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["accuracy"] == accuracy and figures["total"]["spikes_total"] == output.spikes.sum()
    assert figures["checkpoint"] == str(tmp_path / "net.npz")
    lines = capsys.readouterr().out.splitlines()
    assert f"test accuracy {100 * accuracy:.2f}%" in lines[1]
    # without the sums of batches, which the original prints; who computed it, and why others say otherwise
    assert lines[0] == f"{tmp_path / 'net.npz'}: TWBA, binary activations, 3 test images of digits, by the engine"
    assert lines[-1].startswith("note: ") and "TensorFlow, PyTorch and the engine" in lines[-1]
    assert str(places.released("twba") / "model.json") in command_error(
        evaluate.main, "--json", places.released("twba") / "model.json")
    line = command_error(evaluate.main, "resnet")
    assert line.startswith("resnet: ") and all(name in line for name in places.RELEASED)


@pytest.mark.parametrize("main", [evaluate.main, lambda argv: predict.main([*argv, "picture.png"])], ids=["evaluate", "predict"])
def test_three_levels_without_pytorch(main, monkeypatch):
    """The engine does not run them; PyTorch does."""
    monkeypatch.setitem(sys.modules, "torch", None)
    line = command_error(main, "twba-published")
    assert line.startswith(str(places.released("twba-published") / "model.npz")) and places.install("torch") in line


@pytest.mark.parametrize("main", [report.main, export.main])
def test_three_levels_on_a_chip(main, tmp_path):
    line = command_error(main, "twba-published", tmp_path / "out")
    assert line.startswith(str(places.released("twba-published") / "model.npz")) and "binary one" in line


def test_a_record_names_a_released_model_from_the_checkout(tmp_path):
    """So it is the same on every machine."""
    model = str(places.released("bwba") / "model.npz")
    evaluate.main([model, "--dataset", "digits", "--limit", "1", "--json", str(tmp_path / "figures.json")])
    assert json.loads((tmp_path / "figures.json").read_text())["checkpoint"] == "BWBA/model.npz"


def test_a_run_that_has_no_card_yet(tmp_path, capsys):
    """Its recipe says what it is: a network of the digits does not answer with CIFAR-10's classes."""
    run, model = tmp_path / "run", places.released("twba") / "model.npz"
    run.mkdir()
    (run / "model.npz").write_bytes(model.read_bytes())
    recipe = dataclasses.replace(recipes.digits("twba"), epochs=3)
    recipe.save(run)
    export.main([str(run), str(tmp_path / "net.npz")])
    for source in (run, tmp_path / "net.npz"):
        about = exported.about(exported.open_network(source))
        assert about.data == "digits" and about.class_names == DIGITS


def test_names_and_paths(tmp_path, monkeypatch):
    """bwba is the released network, ./bwba the file."""
    monkeypatch.chdir(tmp_path)
    spiking_file.write(tmp_path / "bwba", random_network())
    assert exported.open_network(command_line.model("bwba")).variant == "bwba"
    assert exported.open_network(command_line.model("./bwba")).variant == "twba"
    assert twba_chip.load("bwba").network.arrays["cnn1/weights"].all()
    assert not twba_chip.load(tmp_path / "bwba").network.arrays["cnn1/weights"].all()


def test_a_network_that_does_not_say_what_it_was_trained_on(tmp_path):
    """For example one made of your own layers."""
    spiking_file.write(tmp_path / "net.npz", random_network(dataset=""))
    for command, out in ((evaluate.main, ()), (report.main, (tmp_path / "report",))):
        line = command_error(command, tmp_path / "net.npz", *out)
        assert line.startswith(f"{tmp_path / 'net.npz'}: does not say what it was trained on") and "--data" in line


def test_files_that_are_not_overwritten(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert "holds something else: name another file" in command_error(export.main, "twba", tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "mine"
    export.main(["twba", str(tmp_path / "net.npz")])
    export.main(["bwba", str(tmp_path / "net.npz")])
    assert exported.open_network(tmp_path / "net.npz").variant == "bwba"
    line = command_error(export.main, tmp_path / "net.npz", tmp_path / "again.npz")
    assert line.startswith(f"{tmp_path / 'net.npz'}: already exported")


@pytest.mark.parametrize("name", ["twba", "bwba"])
def test_export_without_a_framework(name, tmp_path, capsys):
    export.main([name, str(tmp_path / "net.npz")])
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'net.npz'}: {name.upper()}, 6912 hidden neurons' filters")
    written, opened = spiking_file.load(tmp_path / "net.npz"), exported.open_network(name)
    meta = written.meta
    assert meta == opened.meta and meta["source"]["card"]["recipe"]["variant"] == name and meta["source"]["dataset"] == "cifar10"
    expected = folding.fold(npz.read_model(places.released(name) / "model.npz", PAPER), name, PAPER)
    for key, array in expected.items():
        np.testing.assert_array_equal(written.arrays[key], array)
        np.testing.assert_array_equal(opened.arrays[key], array)


def test_a_tensorflow_checkpoint_is_named_as_such(tmp_path):
    (tmp_path / "model_cifar10_advanced.ckpt-3.index").touch()
    line = command_error(evaluate.main, tmp_path / "model_cifar10_advanced.ckpt-3")
    assert line.startswith(f"{tmp_path / 'model_cifar10_advanced.ckpt-3'}: is a TensorFlow checkpoint") and "folder" in line


def test_no_framework_is_imported():
    code = ("import sys, twba_chip; from twba_chip import evaluate, predict, export; twba_chip.load('twba');"
            "print([name for name in ('tensorflow', 'torch', 'matplotlib', 'sklearn') if name in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], cwd=str(REPOSITORY), stdout=subprocess.PIPE, universal_newlines=True)
    assert done.stdout == "[]\n"
