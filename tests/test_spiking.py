"""The exported network's file, and its NumPy reference."""
import dataclasses
import json

import numpy as np
import pytest

from helpers import SEEDS, integrate_events, random_architecture, random_network
from twba_chip.spiking import file as spiking_file, opening, reference
from twba_chip.spiking.order import in_readers_order
from twba_nets.network.architecture import PAPER
from twba_nets.system.errors import UserError


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "net.npz"
    spiking_file.write(path, random_network(checkpoint="model.npz"))
    return path


def rewrite(path, **changes):
    """The same file with some of its arrays changed, or left out (None)."""
    with np.load(path) as archive:
        arrays = dict(archive, **changes)
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})


@pytest.mark.parametrize("architecture", [PAPER, random_architecture(0)], ids=["paper", "another"])
def test_file_gives_back_what_was_saved(architecture, tmp_path):
    network = random_network("bwba", 1, architecture, checkpoint="model.npz")
    spiking_file.write(tmp_path / "net.npz", network)
    found = spiking_file.load(tmp_path / "net.npz")
    assert found.architecture == architecture and list(found.arrays) == list(spiking_file.array_types(architecture))
    for name, value in network.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], value)
    assert found.variant == "bwba" and found.meta["version"] == 1 and found.meta["source"] == {"checkpoint": "model.npz"}


def test_the_papers_arrays():
    types = spiking_file.array_types(PAPER)
    assert types["cnn6/weights"] == (np.int8, (3, 3, 32, 2048)) and types["cnn6/thresholds"] == (np.int16, (2048,))
    assert types["cnn0/kernel"] == (np.float32, (3, 3, 32, 64)) and types["output/scale"] == (np.float32, (10,))


def test_damaged_files(file):
    whole = file.read_bytes()
    for size in (0, 100, len(whole) // 2, len(whole) - 30):
        file.write_bytes(whole[:size])
        with pytest.raises(UserError, match="net.npz: damaged, truncated or not an npz"):
            spiking_file.load(file)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    file.write_bytes(flipped)
    with pytest.raises(UserError, match="net.npz: damaged"):
        spiking_file.load(file)
    file.unlink()
    with pytest.raises(UserError, match="no such file"):
        spiking_file.load(file)


def test_altered_files(file):
    thresholds = random_network().arrays["cnn4/thresholds"]
    rewrite(file, **{"cnn4/thresholds": thresholds + np.int16(1)})
    with pytest.raises(UserError, match="was altered"):
        spiking_file.load(file)
    rewrite(file, **{"cnn4/thresholds": thresholds.astype(np.int32)})
    with pytest.raises(UserError, match="cnn4/thresholds .*int16"):
        spiking_file.load(file)
    rewrite(file, **{"cnn4/thresholds": None})
    with pytest.raises(UserError, match="cnn4/thresholds is not there"):
        spiking_file.load(file)


@pytest.mark.parametrize("change, text", [({"version": 2}, "has version 2"), ({"format": "other"}, "is not an exported")])
def test_another_version_or_format(file, change, text):
    meta = spiking_file.load(file).meta
    rewrite(file, meta=np.array(json.dumps(dict(meta, **change))))
    with pytest.raises(UserError, match=text):
        spiking_file.load(file)


@pytest.mark.parametrize("array, index, value, text", [
    ("cnn1/weights", (0, 0, 0, 5), 2, "cnn1/weights .*twba"),
    ("cnn11/weights", (0, 0, 9, 9), -128, "cnn11/weights .*twba"),
    ("cnn4/thresholds", 7, 4 * 64, "cnn4/thresholds .*beyond"),
    ("cnn10/thresholds", 0, -32768, "cnn10/thresholds .*beyond"),
    ("cnn0/scale", 3, np.nan, "cnn0/scale holds .*not finite"),
    ("cnn00/kernel", (0, 0, 0, 0), np.inf, "cnn00/kernel holds .*not finite"),
    ("output/offset", 9, -np.inf, "output/offset holds .*not finite"),
    ("output/scale", 0, 3e38, "output and its batch norm")])
def test_values_of_no_network(file, array, index, value, text):
    """The digest fits, so the writer was wrong, and each reader would compute something else."""
    arrays = random_network().arrays
    arrays[array][index] = value
    spiking_file.write(file, spiking_file.describe(PAPER, arrays, "twba", {}))
    with pytest.raises(UserError, match=f"net.npz: {text}.*export it again"):
        spiking_file.load(file)


def test_a_binary_network_without_a_zero(file):
    spiking_file.write(file, random_network("bwba"))
    assert spiking_file.load(file).variant == "bwba"
    spiking_file.write(file, spiking_file.describe(PAPER, random_network("twba").arrays, "bwba", {}))
    with pytest.raises(UserError, match="cnn1/weights .*bwba"):
        spiking_file.load(file)


@pytest.mark.parametrize("meta", ["[" * 100000, "[]", "3", "{", '{"format": "twba-spiking-network", "version": true}'])
def test_meta_of_another_kind(file, meta):
    rewrite(file, meta=np.array(meta))
    with pytest.raises(UserError, match="net.npz: (damaged|has version True)"):
        spiking_file.load(file)


@pytest.mark.parametrize("meta", [np.array(b"{}"), np.array(["{}", "{}"]), np.array(3.0), np.zeros((), "U2000000")],
                         ids=["bytes", "two", "number", "long"])
def test_meta_that_is_no_text(file, meta):
    rewrite(file, meta=meta)
    with pytest.raises(UserError, match="net.npz: damaged .meta is not text"):
        spiking_file.load(file)


@pytest.mark.parametrize("variant, source, text", [
    ("xwba", {}, ".*'xwba'"), (None, {}, "its variant"), (["twba"], {}, "its variant"),
    ("twba", None, "its source"), ("twba", "x", "its source"), ("twba", {"card": 3}, "its source"),
    ("twba", {"card": {"recipe": {"dataset": "x"}}}, "its source"), ("twba", {"card": {"recipe": []}}, "its source")])
def test_meta_that_a_report_cannot_use(file, variant, source, text):
    spiking_file.write(file, spiking_file.describe(PAPER, random_network().arrays, variant, source))
    with pytest.raises(UserError, match=f"net.npz: {text}.*export it again"):
        spiking_file.load(file)


def test_the_data_set_stands_outside_the_card(file):
    """Whatever the card says, as that of another program."""
    spiking_file.write(file, random_network(dataset="digits", card={"recipe": None}))
    assert opening.about(spiking_file.load(file)).data == "digits"


def test_altered_meta(file):
    meta = spiking_file.load(file).meta
    for change in ({"source": {"checkpoint": "other.npz"}}, {"variant": "bwba"}, {"commit": 1}, {"meta_sha256": None}):
        rewrite(file, meta=np.array(json.dumps(dict(meta, **change))))
        with pytest.raises(UserError, match="was altered"):
            spiking_file.load(file)


def test_a_file_from_before_the_digest_of_the_meta(file):
    """And from before it named its architecture, which is the paper's then."""
    meta = spiking_file.load(file).meta
    del meta["meta_sha256"], meta["architecture"]
    rewrite(file, meta=np.array(json.dumps(meta)))
    found = spiking_file.load(file)
    assert found.meta == meta and found.architecture == PAPER


@pytest.mark.parametrize("change", [{"classes": 1}, {"rows": []}, {"colour": "red"}, {"image_size": "24"}], ids=str)
def test_an_architecture_that_is_none(file, change):
    meta = spiking_file.load(file).meta
    meta["architecture"].update(change)
    rewrite(file, meta=np.array(json.dumps(meta)))
    with pytest.raises(UserError, match="net.npz: .*architecture.*export it again"):
        spiking_file.load(file)


def test_another_npz(file):
    np.savez(file, x=np.zeros(3))
    with pytest.raises(UserError, match="not an exported"):
        spiking_file.load(file)


def test_all_spikes_at_once_are_one_at_a_time():
    arrays, random = random_network().arrays, np.random.RandomState(1)
    for stage in PAPER.hidden:
        spikes, weights = random.rand(2, stage.size, stage.size, stage.channels) < 0.1, arrays[stage.conv + "/weights"]
        one_at_a_time = [integrate_events(image, weights, stage) for image in spikes]
        np.testing.assert_array_equal(reference.integrate(spikes, weights, stage), one_at_a_time)


def test_fire_at_the_threshold():
    potentials = np.array([[-3, 4], [-2, 5]])
    np.testing.assert_array_equal(reference.fire(potentials, np.array([-2, 5], np.int16)), [[0, 0], [1, 1]])


def test_central_crop_is_standardised():
    images = np.random.RandomState(2).randint(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    images[2] = 77  # one grey: no deviation to divide by
    x = reference.central_crop(images, PAPER)
    assert x.shape == (3, 24, 24, 3) and x.dtype == np.float32
    inner = images[:2, 4:28, 4:28].astype(float)
    expected = (inner - inner.mean((1, 2, 3), keepdims=True)) / inner.std((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(x[:2], expected, atol=1e-4)
    assert (x[2] == 0).all()


@pytest.mark.parametrize("brightest, share", [(255, 0.05), (255, 0.5), (203, 0.5), (2, 0.01)])
def test_a_central_crop_of_low_contrast(brightest, share):
    """Two neighbouring greys: the difference of two large means of squares would lose their variance."""
    images = (brightest - (np.random.RandomState(0).rand(3, 32, 32, 3) < share)).astype(np.uint8)
    inner = images[:, 4:28, 4:28].astype(float)
    expected = (inner - inner.mean((1, 2, 3), keepdims=True)) / inner.std((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(reference.central_crop(images, PAPER), expected, rtol=2e-4, atol=1e-4)


def test_shapes_that_do_not_fit():
    """NumPy would broadcast, or leave out what is beyond the kernel; the sums would look right."""
    network, stage = random_network(), PAPER.hidden[0]
    spikes, weights = np.zeros((1, 24, 24, 64), bool), network.arrays["cnn1/weights"]
    larger = np.pad(weights, ((0, 2), (0, 2), (0, 0), (0, 0)), mode="constant")
    for image, kernel in ((spikes[0], larger), (spikes[0, :20], weights), (spikes[0, ..., :32], weights)):
        with pytest.raises(ValueError, match="cnn1: .*do not fit"):
            reference.integrate(image[None], kernel, stage)
    with pytest.raises(ValueError, match="thresholds .1,. do not fit"):
        reference.fire(np.zeros((1, 24, 24, 64)), np.zeros(1, np.int16))
    with pytest.raises(ValueError, match="spikes of cnn11 are .N, 1, 1, 512., not"):
        reference.classify(network, np.zeros((2, 512), bool))


@pytest.mark.parametrize("x", [np.zeros((1, 24, 24, 3), np.uint8), np.zeros((1, 32, 32, 3), np.float32),
                               np.full((1, 24, 24, 3), np.nan, np.float32)], ids="integers size nan".split())
def test_images_that_are_not_standardised(x):
    with pytest.raises(ValueError, match="finite float32"):
        reference.encode(random_network(), x)


@pytest.mark.parametrize("seed", [None, *SEEDS])
def test_a_network_in_its_readers_order_spikes_the_same(seed):
    """Each group reads a block of neighbours there."""
    network = random_network("twba", 3, PAPER if seed is None else random_architecture(seed))
    architecture, (ordered, orders) = network.architecture, in_readers_order(network)
    assert list(orders) == list(architecture.map_shapes) and (np.diff(orders[architecture.stages[-1].map]) == 1).all()
    x = np.random.RandomState(4).normal(0, 1, (2, architecture.image_size, architecture.image_size, architecture.channels))
    x = x.astype(np.float32)
    spikes, expected = reference.encode(network, x), reference.encode(ordered, x)
    np.testing.assert_array_equal(spikes[..., orders[architecture.encoder.map]], expected)
    maps, spikes = reference.forward(network, spikes), spikes[..., orders[architecture.encoder.map]]
    for stage in architecture.hidden:
        order, weights, thresholds = orders[stage.map], *(ordered.arrays[f"{stage.conv}/{part}"] for part in (
            "weights", "thresholds"))
        alone = dataclasses.replace(stage, groups=1, channels=stage.channels // stage.groups)
        found = np.zeros((2,) + stage.map_shape, bool)
        for group, block in enumerate(np.split(spikes, stage.groups, axis=3)):
            own = order // stage.filters == group
            found[..., own] = reference.fire(reference.integrate(block, weights[..., own], alone), thresholds[own])
        np.testing.assert_array_equal(found[..., np.argsort(order)], maps[stage.map], stage.map)
        spikes = found
