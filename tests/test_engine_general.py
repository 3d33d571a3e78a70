"""The compiled engine on architectures far from the paper's: every spike of the NumPy reference."""
import os
import platform
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest

from helpers import REPOSITORY, random_network, user_error
from twba_chip import engine
from twba_chip.engine import library, padding, prepared
from twba_chip.spiking import reference
from twba_chip.spiking.synapses import reachable_sums
from twba_nets.network import architecture as arch
from twba_nets.network.architecture import PAPER, Architecture, Row
from twba_nets.network.quantisers import WEIGHTS


def of_rows(*rows, picture=8, image=8, channels=3, classes=7, floats=1):
    """The architecture of these rows, each (groups, filters, kernel, stride, padding)."""
    rows = tuple(Row(f"cnn{i}", f"bn{i}", *row) for i, row in enumerate(rows))
    return Architecture(rows, picture, image, channels, classes, floats)


def random_architecture(seed):
    """Pictures of 8 to 40, one to three float stages, one to four hidden ones, odd numbers of filters, a last map up to 3 x 3."""
    random = np.random.RandomState(seed)
    choose = lambda *values: values[random.randint(len(values))]
    while True:
        floats, picture, filters, rows = choose(1, 2, 3), choose(*range(8, 41)), 1, []
        for i in range(floats + choose(1, 2, 3, 4)):
            groups = choose(*(n for n in (1, 2, 3, 4, 5, 10) if not filters % n)) if i >= floats else 1
            filters = choose(5, 6, 12, 20, 32, 40)
            rows.append((groups, filters, choose(1, 2, 3, 4, 5), choose(1, 1, 2, 3, 4), choose("SAME", "VALID")))
        try:
            found = of_rows(*rows, picture=picture, image=choose(*range(8, picture + 1)), channels=choose(1, 3),
                            classes=choose(*range(2, 101)), floats=floats)
        except ValueError:  # these rows do not fit
            continue
        if found.stages[-1].output_size <= 3 and found.encoder.output_size ** 2 * found.encoder.filters < 10000:
            return found


def assert_as_the_reference(network, images=5, threads=1):
    """An Engine's maps, counts and logits, of input spikes and of pictures. Returns the engine."""
    architecture, running = network.architecture, engine.Engine(network, threads)
    random = np.random.RandomState(images)
    spikes = random.rand(images, *architecture.encoder.map_shape) < 0.4
    output, maps = running.run_spikes(spikes, return_spikes=True)
    np.testing.assert_array_equal(maps[architecture.encoder.map], spikes)
    assert_rest(network, output, maps)
    pictures = random.randint(0, 256, (images,) + architecture.picture_shape).astype(np.uint8)
    pictures[0] = 77  # without any contrast
    pictures[1] = 254 + pictures[1] % 2  # and with hardly any
    output, maps = running.run(pictures, return_spikes=True)
    potentials = reference.input_potentials(network, reference.central_crop(pictures, architecture))
    otherwise = maps[architecture.encoder.map] != (potentials >= 0)  # where the last bits decide
    assert otherwise.mean() < 1e-3 and (abs(potentials[otherwise]) < 1e-5).all()
    assert_rest(network, output, maps)
    return running


def assert_rest(network, output, maps):
    """What follows from the input spikes."""
    architecture = network.architecture
    expected = reference.forward(network, maps[architecture.encoder.map])
    assert list(maps) == list(architecture.map_shapes)
    for name, spikes in expected.items():
        np.testing.assert_array_equal(maps[name], spikes, name)
    logits = reference.classify(network, maps[architecture.stages[-1].map])
    np.testing.assert_allclose(output.logits, logits, rtol=0, atol=1e-5 * max(1, abs(logits).max()))
    np.testing.assert_array_equal(output.spikes.T, [maps[name].sum((1, 2, 3)) for name in architecture.counted_maps])


@pytest.fixture(params=[1000, 1], ids=["words", "planes"])
def way(request, monkeypatch):
    """Few images are computed by words, or, where the network allows it, by planes."""
    for name in ("MANY", "MANY_BY_LOOK_UPS"):
        monkeypatch.setattr(prepared, name, request.param)
    return request.param


@pytest.mark.parametrize("variant", WEIGHTS)
@pytest.mark.parametrize("seed", range(16))
def test_random_architectures(seed, variant, way):
    assert_as_the_reference(random_network(variant, seed, random_architecture(seed)))


def test_the_random_architectures_are_of_many_kinds():
    found = [random_architecture(seed) for seed in range(16)]
    stages = [stage for architecture in found for stage in architecture.stages]
    hidden = [stage for architecture in found for stage in architecture.hidden]
    assert {architecture.float_stages for architecture in found} == {1, 2, 3}
    assert {architecture.channels for architecture in found} == {1, 3}
    assert {architecture.stages[-1].output_size for architecture in found} == {1, 2, 3}
    assert {stage.kernel for stage in stages} == {1, 2, 3, 4, 5} and {stage.stride for stage in stages} == {1, 2, 3, 4}
    assert {5, 12, 20} <= {stage.filters for stage in hidden} and {1, 2, 5} <= {stage.groups for stage in hidden}
    assert any((architecture.picture_size - architecture.image_size) % 2 for architecture in found)


ENCODER = (1, 20, 3, 1, "SAME")
SPECIAL = {
    "2,000 synapses": of_rows((1, 80, 3, 1, "SAME"), (1, 9, 5, 3, "VALID"), (1, 6, 2, 1, "VALID")),
    "a map of 2^17 neurons": of_rows((1, 128, 3, 1, "SAME"), (4, 1, 4, 4, "SAME"), (1, 6, 8, 2, "VALID"), picture=32, image=32),
    "a group for each channel": of_rows(ENCODER, (20, 1, 3, 1, "SAME"), (1, 20, 1, 1, "SAME"), (20, 3, 4, 4, "SAME")),
    "a last map of 3 x 3": of_rows(ENCODER, (5, 4, 4, 2, "SAME"), (4, 7, 2, 1, "VALID"), channels=1, classes=100),
    "a stride larger than its kernel": of_rows((1, 5, 1, 4, "SAME"), (5, 2, 1, 2, "SAME"), picture=11, image=9, floats=1),
    "five float stages": of_rows((1, 7, 5, 2, "SAME"), *[(1, 33, 3, 1, "SAME")] * 4, (3, 2, 2, 2, "VALID"),
                                 picture=13, image=9, classes=11, floats=5),
    "filters that become the paper's": of_rows((1, 20, 3, 1, "SAME"), (1, 50, 3, 1, "SAME"), (2, 6, 4, 4, "SAME"),
                                               (1, 9, 4, 2, "VALID"), picture=33, image=24, floats=2),
    "a large image": of_rows((1, 4, 4, 4, "SAME"), (1, 2, 5, 25, "VALID"), picture=203, image=200),  # squares beyond an int32
    "an input of one pixel": of_rows((1, 1, 1, 1, "SAME"), (1, 1, 1, 1, "SAME"), picture=1, image=1, channels=1, classes=2),
}


@pytest.mark.parametrize("variant", WEIGHTS)
@pytest.mark.parametrize("name", SPECIAL)
def test_special_architectures(name, variant, way):
    running = assert_as_the_reference(random_network(variant, 0, SPECIAL[name]))
    alone = name in ("2,000 synapses", "a map of 2^17 neurons")  # more than planes.c holds
    assert running.prepared.struct.many == (engine.CHUNK + 1 if alone else way)
    winograd = [stage.floats.winograd for stage in running.prepared.stages]
    assert winograd == [name == "filters that become the paper's" and i == 1 for i in range(len(winograd))]


@pytest.mark.parametrize("name", ["2,000 synapses", "a last map of 3 x 3"])
def test_many_images(name):
    """More than a call's, so by words and by planes, or by words alone; the last call has few."""
    assert_as_the_reference(random_network("twba", 0, SPECIAL[name]), engine.CHUNK + 9, threads=2)


@pytest.mark.parametrize("variant", WEIGHTS)
def test_the_small_network(variant, way):
    assert_as_the_reference(random_network(variant, 0, arch.read(REPOSITORY / "networks" / "small.toml")))


@pytest.mark.parametrize("one_weight, weight", [(1, 1), (-1, -1), (0, 1), (0, -1)])
def test_the_most_synapses(one_weight, weight, way):
    """All 32,766 inputs spike, and no partial sum may overflow."""
    architecture = of_rows((1, 2 ** 15 - 2, 1, 1, "SAME"), (1, 4, 1, 1, "SAME"), picture=1, image=1)
    network = random_network("bwba", 0, architecture)
    weights, thresholds = network.arrays["cnn1/weights"], network.arrays["cnn1/thresholds"]
    weights[:] = weight
    weights[..., 9, :] = one_weight
    sums = weights.sum((0, 1, 2), dtype=int)
    thresholds[:] = np.clip(sums + [0, 1, -1, 1], *reachable_sums(weights)) + [0, weight == 1, 0, 0]
    spikes = np.ones((2, 1, 1, 2 ** 15 - 2), bool)
    _, maps = engine.Engine(network).run_spikes(spikes, return_spikes=True)
    np.testing.assert_array_equal(maps["cnn1"], reference.forward(network, spikes)["cnn1"])
    assert maps["cnn1"][0, 0, 0, 0]


@pytest.mark.parametrize("threshold, fires", [(-2 ** 15, True), (2 ** 15 - 1, False)])
@pytest.mark.parametrize("variant", WEIGHTS)
def test_thresholds_out_of_reach(variant, threshold, fires, way):
    network = random_network(variant, 0, SPECIAL["a last map of 3 x 3"])
    for stage in network.architecture.hidden:
        network.arrays[f"{stage.conv}/thresholds"][:] = threshold
    assert_as_the_reference(network)
    _, maps = engine.Engine(network).run_spikes(np.ones((2, 8, 8, 20), bool), return_spikes=True)
    assert all((maps[stage.map] == fires).all() for stage in network.architecture.hidden)


def test_lost_spikes():
    network, random = random_network("bwba", 0, SPECIAL["a last map of 3 x 3"]), np.random.RandomState(0)
    shapes = network.architecture.map_shapes
    kept = {name: random.rand(3, *shape) < 0.7 for name, shape in shapes.items()}
    spikes = random.rand(3, *network.architecture.encoder.map_shape) < 0.5
    rest = spikes & kept[network.architecture.encoder.map]
    for stage in network.architecture.hidden:
        weights, thresholds = (network.arrays[f"{stage.conv}/{part}"] for part in ("weights", "thresholds"))
        rest = reference.fire(reference.integrate(rest, weights, stage), thresholds) & kept[stage.map]
    np.testing.assert_allclose(engine.Engine(network).run_lossy(spikes, kept), reference.classify(network, rest), atol=1e-5)


def test_evaluate_a_hundred_classes():
    network = random_network("twba", 0, SPECIAL["a last map of 3 x 3"])
    network.arrays["output/offset"][99] = 1000  # the last class wins
    images = np.zeros((3,) + network.architecture.picture_shape, np.uint8)
    assert engine.evaluate(network, images, [99, 99, 0]).accuracy == pytest.approx(2 / 3)


@pytest.mark.parametrize("seed", range(4))
def test_the_reference_by_its_definition(seed):
    """A few neurons of each stage, one synapse after the other."""
    network, random = random_network("twba", seed, random_architecture(seed)), np.random.RandomState(seed)
    architecture = network.architecture
    pictures = random.randint(0, 256, (1,) + architecture.picture_shape).astype(np.uint8)
    maps = [reference.central_crop(pictures, architecture)]
    first, size = (architecture.picture_size - architecture.image_size) // 2, architecture.image_size
    crop = pictures[:, first:first + size, first:first + size].astype(float)
    np.testing.assert_allclose(maps[0], (crop - crop.mean()) / crop.std(), atol=1e-4)
    for stage in architecture.stages[:architecture.float_stages]:
        maps.append(np.maximum(reference._float_stage(network.arrays, maps[-1], stage), 0))
    maps[-1] = reference.encode(network, maps[0])
    maps += reference.forward(network, maps[-1]).values()
    for stage, before, after in zip(architecture.stages, maps, maps[1:]):
        for _ in range(20):
            row, column, neuron = (random.randint(n) for n in stage.map_shape)
            np.testing.assert_allclose(after[0, row, column, neuron], neuron_of(network, stage, before[0], row, column, neuron),
                                       atol=1e-4)


def neuron_of(network, stage, inputs, row, column, neuron):
    kernel = network.arrays[f"{stage.conv}/{'weights' if stage.quantised else 'kernel'}"]
    group, total = neuron // stage.filters, 0.0
    for y in range(stage.kernel):
        for x in range(stage.kernel):
            at = row * stage.stride + y - stage.margin, column * stage.stride + x - stage.margin
            if 0 <= min(at) and max(at) < stage.size:
                for synapse in range(stage.channels // stage.groups):
                    total += float(inputs[at][synapse * stage.groups + group]) * kernel[y, x, synapse, neuron]
    if stage.quantised:
        return total >= network.arrays[f"{stage.conv}/thresholds"][neuron]
    value = total * network.arrays[f"{stage.conv}/scale"][neuron] + network.arrays[f"{stage.conv}/offset"][neuron]
    return value >= 0 if stage.fires else max(value, 0)


def test_the_papers_network_has_no_dummies():
    network = random_network("twba", 0, PAPER)
    padded = padding.pad(network)
    assert padded.architecture == PAPER
    for name, array in network.arrays.items():
        np.testing.assert_array_equal(padded.arrays[name], array, name)
    stages = prepared.Prepared(network, 1, True).stages
    assert [stage.floats.winograd for stage in stages] == [0, 1] + [0] * 8


@pytest.mark.parametrize("rows, filters", [
    ([(1, 20, 3, 1, "SAME"), (5, 4, 8, 1, "VALID")], [160, 64]),  # 32 for each of five groups; 1 x 1 x 5 groups of 64 bits
    ([(1, 64, 3, 1, "SAME"), (2, 32, 3, 1, "SAME"), (8, 32, 8, 1, "VALID")], [64, 128, 32]),
    ([(1, 64, 3, 1, "SAME"), (2, 33, 4, 4, "SAME"), (1, 1, 2, 1, "VALID")], [64, 64, 64]),
    ([(1, 32, 3, 1, "SAME"), (1, 32, 3, 1, "VALID"), (1, 64, 6, 1, "VALID")], [32, 32, 64]),
    ([(1, 32, 4, 1, "VALID"), (1, 32, 5, 1, "VALID")], [64, 64])])  # a map of 5 x 5
def test_the_fewest_dummies(rows, filters):
    padded = padding.pad(random_network("twba", 0, of_rows(*rows))).architecture
    assert [stage.filters for stage in padded.stages] == filters


@pytest.mark.parametrize("variant", WEIGHTS)
def test_what_a_dummy_does(variant):
    """It never fires, whatever it receives, and where no weight was 0 none is."""
    network = random_network(variant, 0, SPECIAL["five float stages"])
    padded = padding.pad(network)
    assert padded.arrays["cnn5/weights"].all() == (variant == "bwba")
    inputs, hidden = network.architecture.encoder, padded.architecture.hidden[0]
    spikes = padding.widen(np.ones((1,) + inputs.map_shape, bool), 3, 1, padded.architecture.encoder.filters)
    assert np.array_equal(padding.trim(spikes, inputs), np.ones((1,) + inputs.map_shape)) and spikes.sum() == 5 * 5 * 33
    potentials = reference.integrate(spikes, padded.arrays["cnn5/weights"], hidden)
    assert not reference.fire(potentials, padded.arrays["cnn5/thresholds"]).reshape(-1, hidden.filters)[:, 2:].any()


@pytest.mark.parametrize("architecture, words", [
    (of_rows((1, 2 ** 15 - 1, 1, 1, "SAME"), (1, 4, 1, 1, "SAME"), picture=1, image=1), ("cnn1", "32,767 synapses")),
    (of_rows((1, 3000, 1, 1, "SAME"), (3000, 1, 1, 1, "SAME"), picture=1, image=1), ("cnn0", "3000 filters", "3000 groups")),
    (of_rows((1, 1, 1, 1, "SAME"), (1, 1, 1, 1500, "SAME"), picture=1500, image=1500, channels=1), ("cnn0", "2,304,000,000")),
    (of_rows((1, 1, 1, 1, "SAME"), (1, 1, 1, 1100, "SAME"), (1, 1, 1, 1, "SAME"), picture=1100, image=1100, channels=1, floats=2),
     ("cnn0", "2,478,080,000")),
    (of_rows((1, 1, 1, 9, "SAME"), (1, 1, 1, 1, "SAME"), picture=3000, image=9, channels=1), ("cnn0", "image", "2,304,000,000"))])
def test_what_no_number_holds(architecture, words):
    message = user_error(engine.Engine, random_network("twba", 0, architecture))
    assert all(word in message for word in words) and "NumPy" in message


# what Python and C both know, each changed in turn
GENERAL = SPECIAL["five float stages"]
SIZES = {
    "": "network_bytes stages_bytes picture_size channels image_bytes image_size image_margin chunk number_of_stages "
        "float_stages",
    "classifier": "features classes padded_classes",
    "stages.0.geometry": "groups filters kernel channels size margin positions input_row output_row output_position output_image",
    "stages.4.geometry": "groups filters kernel channels size margin positions input_row output_row output_position output_image",
    "stages.5.geometry": "groups filters kernel channels fan_in size margin positions output_row output_position output_image",
    "stages.0.floats": "number winograd", "stages.4.floats": "number winograd", "stages.5.planes": "neuron_bytes"}


@pytest.mark.parametrize("place, name", [(place, name) for place, names in SIZES.items() for name in names.split()])
def test_sizes_that_python_and_c_do_not_share(place, name):
    """C says so before it computes."""
    running = engine.Engine(random_network("twba", 0, GENERAL), threads=1)
    struct, images = running.prepared.struct, np.zeros((2,) + GENERAL.picture_shape, np.uint8)
    for step in filter(None, place.split(".")):
        struct = struct[int(step)] if step.isdecimal() else getattr(struct, step)
    size = getattr(struct, name)
    for wrong in {0, size * 2 + 1, 2 ** 20} - {size}:
        setattr(struct, name, wrong)
        with pytest.raises(ValueError, match="refuses this network"):
            running.run(images)
    setattr(struct, name, size)
    assert running.run(images).logits.shape == (2, GENERAL.classes)


@pytest.mark.parametrize("name", ["2,000 synapses", "a map of 2^17 neurons"])
def test_planes_that_are_not_there(name):
    running = engine.Engine(random_network("twba", 0, SPECIAL[name]), threads=1)
    running.prepared.struct.many = 1
    with pytest.raises(ValueError, match="refuses this network"):
        running.run(np.zeros((2,) + SPECIAL[name].picture_shape, np.uint8))


CC = os.environ.get("CC") or "cc"
INSTRUCTIONS = {"none": []}
if platform.machine() == "x86_64":
    INSTRUCTIONS.update({"AVX2": ["avx2", "fma"], "AVX-512 of 2017": ["avx512f", "avx512vl", "avx512bw", "avx512dq", "fma"]})
PORTABLE = [flag for flag in library.FLAGS if flag not in library.NATIVE] + [
    "-Wall", "-Wextra", "-Werror", "-Wno-psabi", "-Wno-unknown-pragmas"]


@pytest.mark.slow
@pytest.mark.parametrize("compiler", [CC, *filter(shutil.which, ["clang"])])
@pytest.mark.parametrize("instructions", INSTRUCTIONS.values(), ids=list(INSTRUCTIONS))
def test_every_instruction_set(instructions, compiler, way, monkeypatch):
    if not set(instructions) <= set(library._processor().split()):
        pytest.skip("this processor lacks these instructions")
    monkeypatch.setenv("CC", compiler)
    monkeypatch.setattr(library, "FLAGS", PORTABLE + ["-m" + name for name in instructions])
    monkeypatch.setattr(library, "OPENMP", [])
    for variant in WEIGHTS:
        for architecture in [random_architecture(seed) for seed in range(4)] + list(SPECIAL.values()):
            assert_as_the_reference(random_network(variant, 0, architecture), images=3)


# in a process whose memory and arithmetic the compiler's sanitizers watch
WATCHED = """
import dataclasses, sys
sys.path.insert(0, "tests")
from helpers import random_network
from test_engine_general import SPECIAL, assert_as_the_reference, library, prepared, random_architecture
library.FLAGS += ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-O1", "-g1"]  # soon compiled
for architecture in list(SPECIAL.values()) + [random_architecture(seed) for seed in range(20, 26)] + [
        dataclasses.replace(random_architecture(20), classes=classes) for classes in (2, 12)]:
    for variant, many in (("twba", 1000), ("bwba", 1)):  # by words, and by planes
        prepared.MANY = prepared.MANY_BY_LOOK_UPS = many
        assert_as_the_reference(random_network(variant, 0, architecture))
assert_as_the_reference(random_network("twba", 0, SPECIAL["a last map of 3 x 3"]), 256)  # up to the last one of a call
print("as the reference")
"""


def test_no_byte_beyond_the_arrays():
    sanitizer = subprocess.check_output([*shlex.split(CC), "-print-file-name=libasan.so"], universal_newlines=True).strip()
    if not os.path.isabs(sanitizer):
        pytest.skip(f"{CC} has no AddressSanitizer")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", WATCHED], cwd=str(REPOSITORY), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, universal_newlines=True,
                          env=dict(os.environ, LD_PRELOAD=sanitizer, ASAN_OPTIONS="detect_leaks=0"))
    assert (done.returncode, done.stdout) == (0, "as the reference\n"), done.stderr[-3000:]
