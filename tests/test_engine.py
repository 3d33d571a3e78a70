"""The compiled engine: every spike of the NumPy reference, whatever the batch, the weights and the processor."""
import copy
import ctypes
import dataclasses
import errno
import functools
import os
import pickle
import platform
import pwd
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from helpers import REPOSITORY, random_network
from twba_chip import engine
from twba_chip.spiking import reference
from twba_nets.datasets import digits
from twba_nets.network.architecture import PAPER, Row
from twba_nets.network.quantisers import WEIGHTS
from twba_nets.system.errors import UserError

# more than a call's images (engine.CHUNK), and then some few and some many (engine.MANY)
SPIKES = np.random.RandomState(0).rand(400, 24, 24, 64) < 0.4
FLOATS = PAPER.rows[:PAPER.float_stages]


def architecture(*rows, **changes):
    """The paper's with other hidden stages: rows (groups, filters, kernel, stride, padding)."""
    rows = tuple(Row(f"cnn{i}", f"bn{i}", *row) for i, row in enumerate(rows, 1))
    return dataclasses.replace(PAPER, **dict({"rows": FLOATS + rows}, **changes))


SMALL = architecture((2, 64, 4, 4, "SAME"), (4, 32, 3, 1, "SAME"), (2, 32, 2, 2, "SAME"), (1, 64, 3, 1, "VALID"))
# neurons of 1,024, 576 and 256 synapses, the first as many as there may be
LARGE = architecture((1, 64, 4, 4, "SAME"), (1, 64, 3, 3, "SAME"), (1, 64, 2, 1, "VALID"))


def random_architecture(seed, classes=10):
    """One that the C takes as it is, by words and by planes. Its last map is of any size."""
    random = np.random.RandomState(seed)
    while True:
        rows = [(int(random.choice([1, 2, 4, 8])), 32 * random.randint(1, 7), random.randint(1, 5), random.randint(1, 5),
                 str(random.choice(["SAME", "VALID"]))) for _ in range(1, random.randint(3, 7))]
        try:
            found = architecture(*rows, classes=classes)
            if engine.padding._rounded_up(found) == found and engine.prepared._fits_planes(found):
                return found
        except (ValueError, UserError):  # these rows do not fit, or a neuron has too many synapses
            pass


@functools.lru_cache(maxsize=None)
def expected_of(variant, architecture, images=len(SPIKES), seed=0):
    """A random network, and what the NumPy reference makes of the first input spikes: all maps, and the logits."""
    network = random_network(variant, seed, architecture)
    maps = {architecture.encoder.map: SPIKES[:images], **reference.forward(network, SPIKES[:images])}
    return network, maps, reference.classify(network, list(maps.values())[-1])


def assert_same(running, expected, images, total):
    """An Engine's maps, counts and logits are those of a reference: of `total` images, in calls of `images`."""
    _, maps, logits = expected
    for first in range(0, total, images):
        rows = slice(first, min(first + images, total))
        output, found = running.run_spikes(SPIKES[rows], return_spikes=True)
        assert list(found) == list(maps)
        for name in maps:
            np.testing.assert_array_equal(found[name], maps[name][rows], name)
        np.testing.assert_allclose(output.logits, logits[rows], rtol=0, atol=1e-5)
        np.testing.assert_array_equal(output.spikes.T, [m[rows].sum((1, 2, 3)) for m in list(maps.values())[:-1]])


@pytest.fixture(params=[1000, 1], ids=["words", "planes"])
def way(request, monkeypatch):
    """Few images are computed by words, or by planes."""
    for name in ("MANY", "MANY_BY_LOOK_UPS"):
        monkeypatch.setattr(engine.prepared, name, request.param)


@pytest.mark.parametrize("variant", WEIGHTS)
def test_same_spikes_in_the_papers_network(variant, way):
    expected = expected_of(variant, PAPER, images=3)
    assert_same(engine.Engine(expected[0]), expected, images=3, total=3)


@pytest.mark.parametrize("variant", WEIGHTS)
@pytest.mark.parametrize("seed", range(6))
def test_same_spikes_in_random_networks(seed, variant, way):
    expected = expected_of(variant, random_architecture(seed), images=5, seed=seed)
    assert_same(engine.Engine(expected[0]), expected, images=5, total=5)


@pytest.mark.parametrize("variant", WEIGHTS)
@pytest.mark.parametrize("images, total", [
    (1, 10), (3, 9), (21, 42), (engine.MANY, engine.MANY + 1), (engine.CHUNK - 1, 400), (engine.CHUNK + 21, 400), (400, 400)])
def test_same_spikes_whatever_the_batch(variant, images, total):
    expected = expected_of(variant, SMALL)
    assert_same(engine.Engine(expected[0]), expected, images, total)


CLASSES = (2, 12, 16, 17, 100)


@pytest.mark.parametrize("classes", CLASSES)
def test_another_number_of_classes(classes, way):
    expected = expected_of("twba", dataclasses.replace(SMALL, classes=classes), images=3)
    assert_same(engine.Engine(expected[0]), expected, images=3, total=3)


def test_evaluate_another_number_of_classes():
    network = random_network(architecture=dataclasses.replace(SMALL, classes=12))
    network.arrays["output/offset"][11] = 1000  # the last class wins
    assert engine.evaluate(network, IMAGES, [11, 11, 0]).accuracy == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="from 0 to 11"):
        engine.evaluate(network, IMAGES, [0, 1, 12])


SIZES = {  # what Python and C both know of SMALL's network, each changed in turn
    "": "network_bytes stages_bytes image_bytes chunk number_of_stages",
    "classifier": "features classes padded_classes",
    "stages.0.geometry": "groups filters kernel channels positions input_row output_row output_position",
    "stages.1.geometry": "groups filters kernel channels positions input_row output_row output_position output_image",
    "stages.3.geometry": "groups filters kernel channels fan_in positions output_row output_position output_image",
    "stages.0.floats": "number", "stages.1.floats": "number", "stages.3.planes": "neuron_bytes"}


@pytest.mark.parametrize("place, name", [(place, name) for place, names in SIZES.items() for name in names.split()])
def test_sizes_that_python_and_c_do_not_share(place, name):
    """C says so before it computes: no wrong result, no broken heap."""
    running = engine.Engine(random_network(architecture=SMALL), threads=1)
    struct = running.prepared.struct
    for step in filter(None, place.split(".")):
        struct = struct[int(step)] if step.isdecimal() else getattr(struct, step)
    size = getattr(struct, name)
    for wrong in (0, size * 2 + 1, 2 ** 20):
        setattr(struct, name, wrong)
        with pytest.raises(ValueError, match="refuses this network"):
            running.run_spikes(SPIKES[:2])
    setattr(struct, name, size)
    assert running.run_spikes(SPIKES[:2]).logits.shape == (2, 10)


def test_a_chunk_of_more_images_than_a_plane_has(small, monkeypatch):
    monkeypatch.setattr(engine, "CHUNK", engine.CHUNK + 1)
    with pytest.raises(ValueError, match="refuses this network"):
        small.run(np.zeros((engine.CHUNK, 32, 32, 3), np.uint8))


def assert_the_largest_sums(one_weight, images):
    """All inputs spike and all weights are 1, one of them perhaps not: no partial sum may overflow."""
    network = random_network("bwba", architecture=LARGE)
    arrays = network.arrays
    for stage in LARGE.hidden:
        kernel = arrays[f"{stage.conv}/weights"]
        kernel[:] = 1
        kernel[0, 0, 0, 0] = one_weight
        arrays[f"{stage.conv}/thresholds"][::2] = 0  # then a sum less its threshold is as large as it can be
        arrays[f"{stage.conv}/thresholds"][1::2] = 1  # so that everything fires, unless a sum is negative
    running = engine.Engine(network)
    output, found = running.run_spikes(np.ones((images, 24, 24, 64), bool), return_spikes=True)
    np.testing.assert_array_equal(output.spikes, [[np.prod(LARGE.map_shapes[name]) for name in LARGE.counted_maps]] * images)
    for name, expected in reference.forward(network, np.ones((1, 24, 24, 64), bool)).items():
        assert expected.all() and found[name].all(), name


@pytest.mark.parametrize("one_weight", [1, 0], ids=["binary", "ternary"])
def test_the_largest_sums(one_weight, way):
    assert_the_largest_sums(one_weight, images=2)


@pytest.mark.parametrize("threshold, fires", [(-2 ** 15, True), (2 ** 15 - 1, False)])
def test_thresholds_out_of_reach(threshold, fires, way):
    network = random_network(architecture=LARGE)
    for stage in LARGE.hidden:
        network.arrays[stage.conv + "/thresholds"][:] = threshold
    _, maps = engine.Engine(network).run_spikes(SPIKES[:2], return_spikes=True)
    assert all((found == fires).all() for name, found in maps.items() if name != "bn0")


INSTRUCTIONS = {"none": []}
if platform.machine() == "x86_64":
    INSTRUCTIONS["AVX2"] = ["avx2", "fma"]
    INSTRUCTIONS["AVX-512 of 2017"] = ["avx512f", "avx512vl", "avx512bw", "avx512dq", "fma"]
    INSTRUCTIONS["AVX-512 with population counts"] = INSTRUCTIONS["AVX-512 of 2017"] + ["avx512vpopcntdq"]
# compilers note that vectors as arguments need an instruction set; only static functions have some here
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wno-psabi", "-Wno-unknown-pragmas"]
PORTABLE = [flag for flag in engine.library.FLAGS if flag not in engine.library.NATIVE] + WARNINGS
CC = os.environ.get("CC") or "cc"
COMPILERS = [CC, *filter(shutil.which, ["clang"])]


def openmp(compiler, folder):
    """The flags by which the compiler does OpenMP, if it does."""
    command = [*shlex.split(compiler), *engine.library.OPENMP, "-shared", "-fPIC", "-o", str(folder / "openmp.so"), "-x", "c"]
    return engine.library.OPENMP if subprocess.call([*command, str(engine.library.FOLDER / "openmp.h")]) == 0 else []


@pytest.mark.slow
@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("instructions", INSTRUCTIONS.values(), ids=list(INSTRUCTIONS))
def test_every_instruction_set(instructions, compiler, monkeypatch, tmp_path):
    """The C compiles without warnings for each, and gives the same spikes where this processor has these instructions."""
    monkeypatch.setenv("CC", compiler)
    flags = PORTABLE + engine.library.NATIVE[1:] + ["-m" + name for name in instructions] + openmp(compiler, tmp_path)
    monkeypatch.setattr(engine.library, "FLAGS", flags)
    monkeypatch.setattr(engine.library, "OPENMP", [])  # a warning must not be taken for a lack of OpenMP
    engine.library.build(REPOSITORY / "benchmarks" / "peak.c")
    if set(instructions) <= set(engine.library._processor().replace("avx512_vpopcntdq", "avx512vpopcntdq").split()):
        for variant in WEIGHTS:
            expected = expected_of(variant, SMALL)
            for images in (7, engine.MANY):
                assert_same(engine.Engine(expected[0], 1), expected, images, total=images)
        for one_weight in (1, 0):
            for images in (2, engine.MANY):
                assert_the_largest_sums(one_weight, images)


@pytest.mark.parametrize("variant, one_weight", zip(WEIGHTS, (0, 1)))
@pytest.mark.parametrize("instructions", [name for name in INSTRUCTIONS if "AVX-512" not in name])
def test_instruction_sets_of_older_processors(instructions, variant, one_weight, way, monkeypatch):
    """What the compiler leaves out for a newer one. Soon compiled; a char has no sign, as on ARM."""
    if not set(INSTRUCTIONS[instructions]) <= set(engine.library._processor().split()):
        pytest.skip("this processor lacks these instructions")
    flags = ["-O1", "-funsigned-char"] + ["-m" + name for name in INSTRUCTIONS[instructions]]
    monkeypatch.setattr(engine.library, "FLAGS", PORTABLE + flags)
    expected = expected_of(variant, SMALL, images=5)
    running = engine.Engine(expected[0], 1)
    assert running.library.looks_up()
    assert_same(running, expected, images=5, total=5)
    assert_input_spikes(running, digits.load().x_test[:5])
    assert_the_largest_sums(one_weight, images=2)


@pytest.mark.parametrize("compiler", COMPILERS)
def test_a_compiler_without_openmp(compiler, monkeypatch):
    """The same spikes by one thread, whatever number is asked for."""
    monkeypatch.setenv("CC", compiler)
    monkeypatch.setattr(engine.library, "FLAGS", engine.library.FLAGS + WARNINGS)
    monkeypatch.setattr(engine.library, "OPENMP", ["-no-such-option"])
    expected = expected_of("twba", SMALL)
    running = engine.Engine(expected[0], 2)
    assert running.library.get_threads() == 1
    for images in (7, engine.MANY):
        assert_same(running, expected, images, total=images)
    assert min(running.seconds()[stage.conv] for stage in SMALL.hidden) > 0


class Program:
    """The engine's library as a program (engine_driver.c), in plain C, which a command runs.

    arrays: of the network that it is to run, engine.Prepared's.
    """
    looks_up = get_threads = staticmethod(lambda: 1)

    def __init__(self, compiler, command, path):
        flags = [flag for flag in PORTABLE if flag not in ("-shared", "-fPIC")]
        sources = map(str, [REPOSITORY / "tests" / "engine_driver.c", *engine.library.SOURCES])
        subprocess.check_call([*compiler, *flags, "-I", str(engine.library.FOLDER), "-o", str(path), *sources, "-lm"])
        self.command, self.arrays = [*command, str(path)], []

    def set_threads(self, threads):
        assert threads == 1

    def forward(self, network, images, number, unpacked, logits, spikes):
        """Hands over the structs and arrays as one memory; pointers to them become offsets. Copies the arrays back."""
        stages = ctypes.cast(network.stages, ctypes.POINTER(engine.structs.Stage * network.number_of_stages)).contents
        blocks = [np.frombuffer(struct, np.uint8) for struct in (network, stages)]
        blocks += [array.reshape(-1).view(np.uint8) for array in self.arrays]
        *offsets, size = np.cumsum([0] + [-(-len(block) // 64) * 64 for block in blocks]).tolist()
        memory = np.zeros(size, np.uint8)
        for offset, block in zip(offsets, blocks):
            memory[offset:offset + len(block)] = block
        words, offset_of = memory[:offsets[2]].view(np.int64), {block.ctypes.data: at for block, at in zip(blocks, offsets)}
        pointers = [i for i, word in enumerate(words.tolist()) if word in offset_of]
        words[pointers] = [offset_of[word] for word in words[pointers].tolist()]
        images = ctypes.string_at(images, number * 32 * 32 * 3) if images else b""
        sizes = np.array([len(pointers), size, number, len(images)] + [8 * i for i in pointers], np.int64)
        done = subprocess.run(self.command, input=sizes.tobytes() + memory.tobytes() + images, stdout=subprocess.PIPE,
                              check=True, timeout=300).stdout
        for offset, block in list(zip(offsets, blocks))[2:]:
            if block.flags.writeable:  # a map; the others are weights
                block[:] = np.frombuffer(done, np.uint8, len(block), offset)
        after = size + 4 * number * network.classifier.classes
        ctypes.memmove(logits, done[size:after], after - size)
        ctypes.memmove(spikes, done[after:], len(done) - after)


PROCESSORS = {"this one": (shlex.split(CC), [])}
if shutil.which("aarch64-linux-gnu-gcc") and shutil.which("qemu-aarch64"):
    PROCESSORS["aarch64"] = ["aarch64-linux-gnu-gcc", "-static"], ["qemu-aarch64"]
    if shutil.which("clang"):
        PROCESSORS["aarch64 by clang"] = ["clang", "--target=aarch64-linux-gnu", "-static"], ["qemu-aarch64"]


@pytest.fixture(params=PROCESSORS.values(), ids=list(PROCESSORS), scope="module")
def program(request, tmp_path_factory):
    """The engine as a program of this processor, and of others that are emulated here."""
    return Program(*request.param, tmp_path_factory.mktemp("program") / "engine")


@pytest.mark.slow
@pytest.mark.parametrize("variant", WEIGHTS)
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_every_processor(seed, variant, program, way, monkeypatch):
    monkeypatch.setattr(engine.library, "load", lambda: program)
    expected = expected_of(variant, SMALL if seed is None else random_architecture(seed), images=5, seed=seed or 0)
    running = engine.Engine(expected[0], 1)
    program.arrays = running.prepared._kept
    assert_same(running, expected, images=5, total=5)
    assert_input_spikes(running, digits.load().x_test[:5])


def valid(*rows):
    return architecture(*(row + ("VALID",) for row in rows))


@pytest.mark.parametrize("architecture", [
    valid((4, 32, 4, 4)), valid((1, 48, 4, 4)), valid((2, 32, 4, 4), (8, 32, 6, 1)), valid((1, 64, 5, 5)),
    valid((2, 32, 4, 4), (1, 32, 2, 2)), valid((1, 256, 1, 1))],
    ids=["16 channels", "48 filters", "4 filters to a reader", "1600 synapses", "a map of 36 bytes", "131072 neurons"])
def test_same_spikes_with_dummies_or_by_words_alone(architecture, way):
    """What the C does not take as it is, or by planes. test_engine_general.py has other pictures and float stages."""
    expected = expected_of("bwba", architecture, images=3)
    assert_same(engine.Engine(expected[0]), expected, images=3, total=3)


def assert_input_spikes(running, images):
    """Its own float stages: an input spike whose pre-activation's last bits decide may differ, no more."""
    _, maps = running.run(images, return_spikes=True)
    potentials = reference.input_potentials(running.network, reference.central_crop(images, PAPER))
    otherwise = maps["bn0"] != (potentials >= 0)
    assert otherwise.mean() < 1e-4 and (abs(potentials[otherwise]) < 1e-5).all()


def test_images():
    images = digits.load().x_test[:engine.CHUNK + 40].copy()
    images[-1] = 77  # without any contrast
    running = engine.Engine(random_network(architecture=SMALL))
    assert_input_spikes(running, images)
    assert set(running.seconds()) == {stage.conv for stage in SMALL.stages} and min(running.seconds().values()) > 0


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda running: pickle.loads(pickle.dumps(running))],
                         ids=["copy", "deepcopy", "pickle"])
def test_a_copy_is_another_engine(copied):
    """Each with buffers of its own."""
    running, images = engine.Engine(random_network(architecture=SMALL), 1), digits.load().x_test[:5]
    expected, other = running.run(images), copied(running)
    assert other.threads == 1 and other.network.architecture == SMALL and other.prepared is not running.prepared
    other.run(255 - images)
    np.testing.assert_array_equal(running.run(images).logits, expected.logits)
    np.testing.assert_array_equal(other.run(images).logits, expected.logits)


def test_an_engine_for_another_process():
    """As multiprocessing sends it to a process that it spawns, with the threads that were asked for: here all cores."""
    running, images = engine.Engine(random_network(architecture=SMALL)), digits.load().x_test[:5]
    code = ("import pickle, sys; running, images = pickle.load(sys.stdin.buffer);"
            "sys.stdout.buffer.write(running.run(images).logits.tobytes())")
    found = subprocess.run([sys.executable, "-c", code], cwd=str(REPOSITORY), input=pickle.dumps((running, images)),
                           stdout=subprocess.PIPE).stdout
    assert found == running.run(images).logits.tobytes()


def test_evaluate():
    network, images, labels = random_network(), digits.load().x_test[:20], digits.load().y_test[:20]
    result = engine.evaluate(network, images, labels)
    logits = engine.Engine(network).run(images).logits.astype(float)
    assert result.accuracy == (logits.argmax(1) == labels).mean() and result.spikes.shape == (20, 8)
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert result.loss == pytest.approx(-np.log(chances[np.arange(20), labels]).mean())


@pytest.fixture(scope="module")
def small():
    """An Engine of one thread, for tests of what it is given."""
    return engine.Engine(random_network(architecture=SMALL), threads=1)


IMAGES = digits.load().x_test[:3]


@pytest.mark.parametrize("images", [
    IMAGES / np.float32(255), IMAGES.astype(float), IMAGES.astype(np.int16) - 1, IMAGES.astype(int) + 1, IMAGES > 9,
    IMAGES.astype("U3"), IMAGES.astype(object), IMAGES[0], IMAGES[:, :24, :24], IMAGES[..., :1], 7],
    ids="scaled floats negative large bool text object one cropped grey number".split())
def test_images_of_another_kind(small, images):
    with pytest.raises(ValueError, match="^images are "):
        small.run(images)
    with pytest.raises(ValueError, match="^images are "):
        reference.central_crop(images, PAPER)


@pytest.mark.parametrize("images, remedy", [
    (IMAGES[0], "images[None]"), (np.moveaxis(IMAGES, -1, -3), "channels last"), (IMAGES[:, ::2], "resize"),
    (IMAGES / 255, "255 * images")], ids="one channels small scaled".split())
def test_what_makes_images_of_others(small, images, remedy):
    with pytest.raises(ValueError) as info:
        small.run(images)
    assert remedy in str(info.value)


def test_integers_that_fit(small):
    images = IMAGES.copy()
    images[0, 9, 9] = 255
    np.testing.assert_array_equal(small.run(images.astype(np.int64)).logits, small.run(images).logits)
    np.testing.assert_array_equal(small.run(images.tolist()).logits, small.run(images).logits)
    np.testing.assert_array_equal(reference.central_crop(images.astype(">u4"), PAPER), reference.central_crop(images, PAPER))


@pytest.mark.parametrize("spikes", [
    SPIKES[0], SPIKES[:2, :1, :1], SPIKES[:2, ..., :1], SPIKES[:2].reshape(2, -1), SPIKES[:2] * 2, SPIKES[:2] * 0.5,
    np.where(SPIKES[:2], 1, np.nan), SPIKES[:2] * -1, SPIKES[:2].astype("U1"), 1],
    ids="one broadcast channel flat two half nan negative text number".split())
def test_spikes_of_another_kind(small, spikes):
    with pytest.raises(ValueError, match="^spikes of bn0 are "):
        small.run_spikes(spikes)
    with pytest.raises(ValueError, match="^spikes of bn0 are "):
        reference.forward(small.network, spikes)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_spikes_as_numbers(small, dtype):
    expected = small.run_spikes(SPIKES[:2])
    np.testing.assert_array_equal(small.run_spikes(SPIKES[:2].astype(dtype)).logits, expected.logits)


@pytest.mark.parametrize("images", [0, 3, engine.MANY, engine.CHUNK + 30])
def test_the_maps_of_a_call(small, images):
    """Those of all its images, whichever way they were computed; the next call changes none of them."""
    output, maps = small.run_spikes(SPIKES[:images], return_spikes=True)
    logits, counts = small.run_spikes(~SPIKES[:images])
    assert {name: (spikes.dtype, spikes.shape) for name, spikes in maps.items()} == {
        name: (bool, (images,) + shape) for name, shape in SMALL.map_shapes.items()}
    np.testing.assert_array_equal(maps["bn0"], SPIKES[:images])
    np.testing.assert_array_equal(output.spikes.T, [spikes.sum((1, 2, 3)) for spikes in list(maps.values())[:-1]])
    if images:
        np.testing.assert_allclose(reference.classify(small.network, maps["cnn4"]), output.logits, atol=1e-5)
    assert logits.shape == (images, 10) and (counts[:, 0] == 24 * 24 * 64 - output.spikes[:, 0]).all()


@pytest.mark.parametrize("name", ["cnn00/kernel", "cnn0/offset", "cnn2/weights", "cnn3/thresholds", "output/kernel",
                                  "output/scale", "output/offset"])
def test_arrays_that_change_later(small, name):
    """The engine computes what it was given: the caller's later changes do not reach it, and its own arrays are read-only."""
    network = random_network(architecture=SMALL)
    running = engine.Engine(network, threads=1)
    network.arrays[name][...] = 0
    network.arrays.clear()
    np.testing.assert_array_equal(running.run(IMAGES).logits, small.run(IMAGES).logits)
    with pytest.raises(ValueError, match="read-only"):
        running.network.arrays[name][...] = 0


@pytest.mark.parametrize("labels", [
    [0, 1], [[0], [1], [2]], [0, 1, 10], [0, 1, -1], [0, 1, 0.5], [True, False, True], ["0", "1", "2"], [0, 1, np.nan]],
    ids="few column ten negative half bool text nan".split())
def test_labels_of_another_kind(small, labels):
    with pytest.raises(ValueError, match=r"labels .*0 to 9"):
        engine.evaluate(small.network, IMAGES, labels)


def test_no_images_to_evaluate(small):
    with pytest.raises(ValueError, match="one or more"):
        engine.evaluate(small.network, IMAGES[:0], np.zeros(0, int))


@pytest.mark.parametrize("name, change", [
    ("cnn3/weights", lambda array: array * np.int8(2)), ("cnn3/weights", lambda array: array.astype(np.float32)),
    ("cnn3/weights", lambda array: array * 0 - np.int8(128)), ("cnn4/thresholds", lambda array: array[:-1]),
    ("cnn0/kernel", lambda array: array * np.float32(np.nan)),
    ("output/offset", lambda array: array + np.float32(np.inf)),
    ("cnn00/scale", lambda array: array.tolist()), ("cnn00/scale", lambda array: array.astype(">f4")),
    ("cnn2/weights", lambda array: None)])
def test_arrays_of_another_kind(name, change):
    network = random_network(architecture=SMALL)
    network.arrays[name] = change(network.arrays[name])
    with pytest.raises(ValueError, match=f"^{name} (is not there|holds values)"):
        engine.Engine(network)


@pytest.mark.parametrize("threads", [-1, 10 ** 10])
def test_threads_out_of_range(threads):
    with pytest.raises(ValueError, match="threads are from 1 to"):
        engine.Engine(random_network(architecture=SMALL), threads)


def test_several_threads(small):
    """Each gets what it would get alone, maps too."""
    expected = [small.run_spikes(SPIKES[i:i + 3], return_spikes=True) for i in range(20)]
    found = [None] * 20

    def run(first):
        for _ in range(10):
            for i in range(first, 20, 4):
                found[i] = small.run_spikes(SPIKES[i:i + 3], return_spikes=True)
    threads = [threading.Thread(target=run, args=[first]) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for (alone, maps), (together, its_maps) in zip(expected, found):
        np.testing.assert_array_equal(together.logits, alone.logits)
        np.testing.assert_array_equal(together.spikes, alone.spikes)
        for name in maps:
            np.testing.assert_array_equal(its_maps[name], maps[name], name)


FORK = """
import os, sys
sys.path.insert(0, "tests")
import numpy as np
from helpers import random_network
from twba_chip.engine import Engine
images, network = np.zeros((9, 32, 32, 3), np.uint8), random_network()
running = Engine(network, threads=2)
if sys.argv[1] == "after":
    running.run(images)
if not os.fork():
    for engine in (running, Engine(network)):
        try:
            print(len(engine.run(images).logits), flush=True)
        except RuntimeError as error:
            print(error, flush=True)
    os._exit(0)
os.wait()
print(len(running.run(images).logits))
"""


@pytest.mark.parametrize("when, expected", [("before", "9"), ("after", "forked")])
def test_forked_processes(when, expected):
    """A child can run the engine if its parent has not. Otherwise it gets an error instead of waiting for ever."""
    child = subprocess.run([sys.executable, "-c", FORK, when], cwd=str(REPOSITORY), stdout=subprocess.PIPE, timeout=300,
                           universal_newlines=True)
    first, second, parents = child.stdout.splitlines()
    assert expected in first and expected in second and parents == "9"


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache of the engine's; and flags by which the compiler takes no time."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(engine.library, "FLAGS", ["-shared", "-fPIC"])
    return tmp_path / "cache" / "twba_nets"


def compiler(monkeypatch, path, script):
    """Have a shell script as the compiler. It gets -shared -fPIC -fopenmp -o LIBRARY SOURCE..., $5 is the library."""
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)
    monkeypatch.setenv("CC", str(path))


def one_line(text):
    with pytest.raises(UserError, match=text) as info:
        engine.library.load()
    assert "\n" not in str(info.value)


def test_without_a_compiler(monkeypatch, cache, tmp_path):
    for command in ("no-such-compiler", "ccache-is-not-there gcc", "gcc '", " "):
        monkeypatch.setenv("CC", command)
        one_line(f"^{command}: no such C compiler")
    monkeypatch.setenv("CC", "false")
    one_line("false: cannot compile the engine")
    monkeypatch.setenv("CC", "true")
    one_line("true: cannot compile the engine")
    (tmp_path / "file").write_text("")
    for folder in ("file", "file/below"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / folder))
        one_line("cannot be kept there .*: set XDG_CACHE_HOME")


@pytest.mark.parametrize("environment, place", [
    ({"XDG_CACHE_HOME": "CACHE"}, "CACHE/twba_nets"), ({"XDG_CACHE_HOME": "here"}, "HOME/.cache/twba_nets"),
    ({"XDG_CACHE_HOME": "~/.cache"}, "HOME/.cache/twba_nets"), ({"XDG_CACHE_HOME": ""}, "HOME/.cache/twba_nets"),
    ({}, "HOME/.cache/twba_nets"), ({"HOME": ""}, "PWD/.cache/twba_nets"), ({"HOME": "here"}, "PWD/.cache/twba_nets"),
    ({"HOME": None}, "PWD/.cache/twba_nets"), ({"HOME": None, "PWD": None}, "TMP/twba_nets-UID"),
    ({"HOME": "", "PWD": None}, "TMP/twba_nets-UID"), ({"HOME": "/dev/null", "PWD": None}, "TMP/twba_nets-UID")])
def test_where_the_cache_is(environment, place, monkeypatch, tmp_path):
    """PWD: what the system says of the user; None: it knows none of that number. Nothing appears in the working folder."""
    def fill(text):
        for name in ("CACHE", "HOME", "PWD", "TMP"):
            text = text.replace(name, str(tmp_path / name.lower()))
        return text.replace("UID", str(os.geteuid()))

    def known(uid):
        if "PWD" in environment:
            raise KeyError("getpwuid(): uid not found")
        return SimpleNamespace(pw_dir=fill("PWD"))

    for name in ("working", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "working")
    monkeypatch.setattr(pwd, "getpwuid", known)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: fill("TMP"))
    for name, value in {"XDG_CACHE_HOME": None, "HOME": "HOME", **environment}.items():
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, fill(value))
    folder = engine.library._cache()
    assert folder == Path(fill(place)) and folder.stat().st_mode & 0o777 == 0o700
    assert list((tmp_path / "working").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("command", ["", "gcc -m64", "env gcc", "env LANG=C gcc '-DNAME=a b'"])
def test_compilers_of_several_words(command, cache, monkeypatch):
    monkeypatch.setenv("CC", command)
    assert engine.library.load().get_threads() > 0


@pytest.mark.parametrize("command, words", [("", ["cc"]), ("env A=B gcc '-DC=a b'", ["env", "A=B", "gcc", "-DC=a b"])])
def test_what_is_called_as_the_compiler(command, words, cache, monkeypatch):
    calls = []
    monkeypatch.setenv("CC", command)
    monkeypatch.setattr(subprocess, "run", lambda call, **_: calls.append(call) or SimpleNamespace(returncode=1, stdout=""))
    one_line("cannot compile the engine")
    assert calls[0][:len(words) + 2] == words + ["-shared", "-fPIC"]


def test_the_cache_is_the_users_own(cache):
    mask = os.umask(0)
    try:
        engine.library.load()
    finally:
        os.umask(mask)
    path, = cache.iterdir()
    assert cache.stat().st_mode & 0o777 == path.stat().st_mode & 0o777 == 0o700
    cache.chmod(0o777)
    engine.library.load()
    assert cache.stat().st_mode & 0o777 == 0o700 and list(cache.iterdir()) == [path]


def test_a_cache_that_others_can_replace(cache, monkeypatch, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    cache.parent.mkdir()
    cache.symlink_to(elsewhere)
    one_line(f"{cache}: is a link or .*another user.*set XDG_CACHE_HOME")
    cache.unlink()
    cache.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    one_line(f"{cache}: is a link or .*another user.*set XDG_CACHE_HOME")


LOAD = "from twba_chip.engine import library; library.FLAGS = %r; print(library.load().get_threads() > 0)"


def load_elsewhere():
    found = subprocess.check_output([sys.executable, "-c", LOAD % engine.library.FLAGS], cwd=str(REPOSITORY))
    assert found == b"True\n"


DAMAGE = ["truncated", "empty", "altered", "a link", "writable by others"]


def spoil(path, damage, folder):
    """folder: another one, for a link's target."""
    content = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[:5000])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "altered":
        path.write_bytes(content[:-1] + b"!")
    elif damage == "a link":
        path.rename(folder / "library")
        path.symlink_to(folder / "library")
    else:
        path.chmod(0o722)


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_library_that_is_damaged_or_not_ones_own(damage, cache, tmp_path):
    """It is compiled again, not loaded. Separate processes test this: truncating a loaded library kills its process."""
    load_elsewhere()
    path, = cache.iterdir()
    content = path.read_bytes()
    spoil(path, damage, tmp_path)
    load_elsewhere()
    assert path.read_bytes() == content and not path.is_symlink() and path.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_library_is_not_taken(damage, cache, tmp_path):
    """Nor one of others. A file of zeros in place of a library."""
    (tmp_path / "built").write_bytes(bytes(9999))
    path = engine.library._cache() / engine.library._file_name("engine", tmp_path / "built")
    (tmp_path / "built").rename(path)
    path.chmod(0o700)
    assert engine.library._kept(cache, "engine") == path
    spoil(path, damage, tmp_path)
    assert engine.library._kept(cache, "engine") is None


@pytest.mark.parametrize("script, text", [
    (": >$5", "cannot be loaded .*file too short"),  # as in a folder on which nothing may be executed, dlopen fails
    ("echo >$5.c && exec gcc -shared -o $5 $5.c", "cannot be loaded .*undefined symbol: forward")])
def test_a_library_that_cannot_be_loaded(script, text, cache, monkeypatch, tmp_path):
    compiler(monkeypatch, tmp_path / "compiler", script)
    one_line(text + ".*: remove it, name gcc in CC, or set XDG_CACHE_HOME")


def test_a_folder_that_can_only_be_read(cache, monkeypatch):
    """What was compiled before is used all the same."""
    def refuse(*arguments):
        raise OSError(errno.EROFS, "Read-only file system")
    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    one_line(f"{cache}: the compiled engine cannot be kept there .Read-only file system.: set XDG_CACHE_HOME")
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parent))
    assert engine.library.load().get_threads() > 0
    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    assert engine.library.load().get_threads() > 0


def test_a_library_is_on_the_disk_before_it_has_its_name(cache, monkeypatch):
    calls, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: calls.append(os.readlink(f"/proc/self/fd/{file}")) or fsync(file))
    monkeypatch.setattr(os, "replace", lambda old, new: calls.append("replace") or replace(old, new))
    engine.library.load()
    assert calls[0].endswith("built.so") and calls[1:] == ["replace", str(cache)]


def pace_of(seconds, pace, all_threads, one):
    """(share of the time that all threads computed, images/s) where the two ways take so long for an image: functions of the
    time.
    """
    images, now, of_all = 0, 0.0, 0.0
    while now < seconds:
        chosen = pace.all_threads()
        took = (all_threads if chosen else one)(now)
        pace.record(chosen, took)
        images, now, of_all = images + 1, now + took, of_all + took * chosen
    return of_all / now, images / now


def steady(seconds):
    return lambda now: seconds


def shared_core(seconds, span=4e-3):
    """A way that runs while another program does not have one of its cores: that one has it every second span."""
    def took(now):
        return seconds if now % (2 * span) < span else 2 * span - now % (2 * span) + seconds
    return took


QUIET, BUSY = (steady(81e-6), steady(134e-6)), (steady(4e-3), steady(134e-6))


def test_threads_follow_the_machine():
    """Quiet, then busy, then quiet again: it is never far from the faster way, and soon there after a change."""
    pace = engine.Pace()
    share, speed = pace_of(1, pace, *QUIET)
    assert share > 0.99 and speed > 0.99 / 81e-6
    share, speed = pace_of(0.01, pace, *BUSY)
    assert share < 0.5
    share, speed = pace_of(1, pace, *BUSY)
    assert 0 < share < 0.03 and speed > 0.97 / 134e-6
    pace_of(0.4, pace, *QUIET)
    share, speed = pace_of(1, pace, *QUIET)
    assert share > 0.99 and speed > 0.99 / 81e-6


def test_threads_where_a_core_is_shared():
    """All threads look faster as long as no other program wants a core. They are not taken again and again for that."""
    share, speed = pace_of(4, engine.Pace(), shared_core(81e-6), steady(134e-6))
    assert share < 0.05 and speed > 0.95 / 134e-6


def waking(seconds, slept):
    """A way that takes so long in its first call, or after a pause, since its threads sleep by then."""
    ends = [-1.0]

    def took(now):
        time, ends[0] = seconds if now - ends[0] < 1e-6 else slept, now
        ends[0] += time
        return time
    return took


def test_threads_that_slept_get_time_to_wake():
    """All threads are slower than one in their first call after a pause, and faster from the second on."""
    pace = engine.Pace()
    pace_of(0.1, pace, steady(4e-3), steady(134e-6))
    pace_of(3, pace, waking(81e-6, slept=180e-6), steady(134e-6))
    assert pace_of(1, pace, waking(81e-6, slept=180e-6), steady(134e-6))[0] > 0.99


def test_one_thread_timed_at_a_bad_moment():
    """A first measurement of one thread that was far too long does not exclude it for good."""
    pace = engine.Pace()
    pace.record(True, 1e-3)
    pace.record(False, 1)
    pace_of(1100, pace, steady(0.5), steady(0.02))
    assert pace_of(100, pace, steady(0.5), steady(0.02))[0] < 0.03


def test_one_thread_is_asked_anew_where_all_have_become_slow():
    """The time of one thread on a busy machine says nothing once all threads are delayed."""
    pace = engine.Pace()
    pace_of(1, pace, steady(41e-6), steady(300e-6))
    assert pace_of(0.1, pace, steady(177e-6), steady(82e-6))[1] > 0.95 / 82e-6


def test_an_engine_leaves_openmp_as_it_was():
    """The number of threads is the calling thread's: an engine of one thread made the next one have one, too."""
    one = engine.Engine(random_network(architecture=SMALL), threads=1)
    default = one.library.get_threads()
    one.run_spikes(SPIKES[:2])
    assert (one.threads, one.library.get_threads()) == (1, default)
    assert engine.Engine(one.network).threads == default
