"""The report: synapses, cores and robustness against hand-computed values and brute force; then the command."""
import json
from collections import OrderedDict

import numpy as np
import pytest

from helpers import command_error, random_arrays
from twba_chip import cores, figures, report, robustness, spiking_file, spiking_network, synapses
from twba_nets import architecture as arch
from twba_nets.architecture import FLOAT_STAGES, Reader, STAGES, Stage
from twba_nets.datasets import digits
from twba_nets.errors import UserError

HIDDEN_STAGES = STAGES[FLOAT_STAGES:]
FILES = ["firing_rate.png", "report.json", "robustness.png", "sops.png", "spikes_per_image.png"]
IMAGES, ROBUSTNESS_IMAGES = 30, 10


@pytest.fixture(scope="module")
def arrays():
    return random_arrays()


@pytest.fixture(scope="module")
def export(arrays, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "net.npz"
    spiking_file.save(path, arrays, "twba", {"card": {"recipe": {"dataset": "digits"}}})
    return path


@pytest.fixture(scope="module")
def folder(export, tmp_path_factory):
    """What the command writes for the first test digits. The data set is the card's."""
    folder = tmp_path_factory.mktemp("made") / "new" / "report"
    report.main([str(export), str(folder), "--limit", str(IMAGES), "--robustness-images", str(ROBUSTNESS_IMAGES),
                 "--axons", "512", "--picojoule-per-sop", "2", "--picojoule-per-mac", "3"])
    return folder


def small_stage(groups=1, filters=1, kernel=3, padding="SAME", size=3, channels=1, margin=1, output_size=3):
    return Stage("small", "bn", groups, filters, kernel, 1, padding, size, channels, margin, output_size, True, True, Reader())


def test_fan_out_of_a_kernel_at_the_borders():
    weights = np.ones((3, 3, 1, 1), np.int8)
    assert synapses.fan_out(weights, small_stage())[..., 0].tolist() == [[4, 6, 4], [6, 9, 6], [4, 6, 4]]
    weights[0, 0] = 0  # through it a spike reaches the neuron below and to the right of it
    assert synapses.fan_out(weights, small_stage())[..., 0].tolist() == [[3, 5, 4], [5, 8, 6], [4, 6, 4]]
    without_padding = small_stage(padding="VALID", margin=0, output_size=1)
    assert synapses.fan_out(weights, without_padding)[..., 0].tolist() == [[0, 1, 1], [1, 1, 1], [1, 1, 1]]


def test_fan_out_of_strided_groups():
    """Two groups of two filters: group 0 reads the channels 0 and 2, group 1 the channels 1 and 3."""
    stage = small_stage(groups=2, filters=2, kernel=1, size=1, channels=4, margin=0, output_size=1)
    weights = np.array([[[[1, -1, 0, 1], [0, 0, -1, 1]]]], np.int8)  # [1, 1, 2 synapses, 2 groups * 2 filters]
    assert synapses.fan_out(weights, stage).tolist() == [[[2, 1, 0, 2]]]


@pytest.mark.parametrize("stage", HIDDEN_STAGES, ids=lambda stage: stage.conv)
def test_fan_out_counts_the_additions_of_the_chip(arrays, stage):
    """Each spike adds the absolute weights of its synapses: their sum over all potentials is the number of SOPs."""
    shape = (stage.size, stage.size, stage.channels)
    spikes = np.random.RandomState(1).random_sample(shape) < 200 / np.prod(shape)
    spikes[0, 0], spikes[-1, -1] = True, True  # all of two corners
    weights = arrays[stage.conv + "/weights"]
    driven = synapses.fan_out(weights, stage)
    assert driven.shape == shape
    assert driven[spikes].sum() == spiking_network.integrate_events(spikes, np.abs(weights), stage).sum()


def test_dense_operations():
    """cnn1: 12 x 12 positions, 4 x 4 x 32 inputs, 256 filters; the README's 70.5 M in all hidden stages."""
    weights = {stage.conv: np.zeros(spiking_file.array_types()[stage.conv + "/weights"][1], np.int8)
               for stage in HIDDEN_STAGES}
    macs = [synapses.multiply_accumulates(weights[stage.conv], stage) for stage in HIDDEN_STAGES]
    assert macs[0] == 12 * 12 * 4 * 4 * 32 * 256 and sum(macs) == 70516736
    assert [synapses.fan_in(weights[stage.conv]) for stage in HIDDEN_STAGES] == [512, 288, 512, 288, 512, 512, 512, 1024]


def placement(name, axons, neurons):
    stage = next(stage for stage in HIDDEN_STAGES if stage.conv == name)
    return cores.place(stage, cores.Core(axons, neurons))


def test_cores():
    # 1,024 inputs on 256 axons: 4 parts; 512 filters on 256 neurons: 2 cores each
    assert placement("cnn11", 256, 256) == (8, 4, (1, 1, 256), 256, 256, 1)
    # 288 inputs: 2 parts of 16 channels; 2 x 2 positions see 4 x 4 x 16 = 256 of them and have 4 x 64 neurons;
    # 36 such blocks, 8 groups, 2 parts
    assert placement("cnn2", 256, 256) == (576, 2, (2, 2, 64), 256, 256, 1)
    # whole neurons: 2 x 2 positions see 4 x 4 x 32 = 512 inputs
    assert placement("cnn2", 512, 256) == (288, 1, (2, 2, 64), 512, 256, 1)
    # 16 positions, 4 groups of 512 inputs and 256 filters: two positions' blocks share a core
    assert placement("cnn7", 1024, 512) == (32, 1, (1, 1, 256), 512, 256, 2)
    # a block sees no more than the whole map: 24 x 24 x 32 inputs of a group, 12 x 12 x 128 neurons
    assert placement("cnn1", 24 * 24 * 32, 12 * 12 * 128) == (2, 1, (12, 12, 128), 18432, 18432, 1)


@pytest.mark.parametrize("axons", [16, 100, 256, 1000, 4096])
@pytest.mark.parametrize("neurons", [1, 60, 256, 5000])
def test_cores_hold_what_is_placed_on_them(axons, neurons):
    for stage in HIDDEN_STAGES:
        found = cores.place(stage, cores.Core(axons, neurons))
        height, width, filters = found.block
        assert found.block_axons * found.blocks_per_core <= axons
        assert found.block_neurons * found.blocks_per_core <= neurons
        needed = found.parts * np.prod(stage.map_shape)
        assert height * width * filters * found.blocks_per_core * found.cores >= needed


def test_a_core_too_small_for_one_channel():
    with pytest.raises(UserError, match="--axons 15: cnn1 needs at least 16"):
        placement("cnn1", 15, 256)


def test_dropped_spikes():
    spikes = np.random.RandomState(2).random_sample((4, 24, 24, 64)) < 0.5
    left = robustness.drop(spikes, 0.2, np.random.RandomState(3))
    assert not (left & ~spikes).any()
    assert abs(left.sum() / spikes.sum() - 0.8) < 0.01
    assert (robustness.drop(spikes, 0, np.random.RandomState(3)) == spikes).all()


def test_every_map_drops_spikes(arrays):
    """Without a spike anywhere the classifier gives its offset; without drops the network is spiking_network.forward."""
    spikes = np.random.RandomState(4).random_sample((2, 24, 24, 64)) < 0.5
    silent = robustness.classify(arrays, spikes, 1, np.random.RandomState(5))
    np.testing.assert_array_equal(silent, [arrays["output/offset"]] * 2)
    whole = robustness.classify(arrays, spikes, 0, np.random.RandomState(5))
    np.testing.assert_array_equal(whole, spiking_network.classify(arrays, spiking_network.forward(arrays, spikes)["cnn11"]))


def test_report_agrees_with_the_reference(arrays, folder):
    """Spikes, SOPs and accuracy, counted in NumPy from the maps of the reference."""
    found, data = json.loads((folder / "report.json").read_text()), digits.load()
    spikes = spiking_network.encode(arrays, spiking_network.central_crop(data.x_test[:IMAGES]))
    maps = OrderedDict([("bn0", spikes)], **spiking_network.forward(arrays, spikes))
    total, sops_in_all = np.zeros(IMAGES), 0
    for row, (name, spikes) in zip(found["maps"], maps.items()):
        counts = spikes.sum((1, 2, 3))
        total += counts
        assert row["map"] == name and row["neurons"] == spikes[0].size
        np.testing.assert_allclose([row["spikes_mean"], row["spikes_sd"], row["firing_rate"]],
                                   [counts.mean(), counts.std(), spikes.mean()])
    for row, (stage, spikes) in zip(found["maps"][1:], zip(HIDDEN_STAGES, maps.values())):
        weights = arrays[stage.conv + "/weights"]
        sops = spiking_network.integrate(spikes, np.abs(weights), stage).sum((1, 2, 3), dtype=np.float64)
        sops_in_all += sops.mean()
        np.testing.assert_allclose([row["sops_mean"], row["sops_sd"]], [sops.mean(), sops.std()])
        assert row["weight_sparsity"] == (weights == 0).mean() and row["weights"] == weights.size
        assert row["sops_over_macs"] == row["sops_mean"] / row["macs"]
    correct = spiking_network.classify(arrays, maps["cnn11"]).argmax(1) == data.y_test[:IMAGES]
    assert found["images"] == IMAGES and found["accuracy"] == correct.mean()
    all_maps = found["total"]
    np.testing.assert_allclose([all_maps["spikes_mean"], all_maps["spikes_sd"]], [total.mean(), total.std()])
    np.testing.assert_allclose(all_maps["sops_mean"], sops_in_all)
    np.testing.assert_allclose(found["energy"]["sops_microjoule"], sops_in_all * 2e-6)
    np.testing.assert_allclose(found["energy"]["macs_microjoule"], 70.516736 * 3)
    assert found["robustness"]["accuracy"][0] == correct[:ROBUSTNESS_IMAGES].mean()


def test_report_of_synapses_and_cores(arrays, folder):
    found = json.loads((folder / "report.json").read_text())
    rows = {row["map"]: row for row in found["maps"]}
    nonzero = (arrays["cnn11/weights"] != 0).sum()  # cnn11: 1 x 1, each input drives it once
    assert rows["cnn11"]["fan_in"] == 1024 and rows["cnn11"]["fan_in_nonzero"] == nonzero / 512
    assert rows["cnn10"]["fan_out"] == nonzero / 1024
    assert rows["bn0"]["fan_in"] is rows["bn0"]["sops_mean"] is rows["cnn11"]["fan_out"] is None
    assert rows["cnn2"]["cores"] == 288 and rows["cnn2"]["parts"] == 1 and rows["cnn11"]["parts"] == 2
    assert found["total"]["cores"] == sum(row["cores"] or 0 for row in found["maps"])
    assert found["core"] == {"axons": 512, "neurons": 256} and found["dataset"] == "digits"


def test_files_and_table(folder, capsys):
    assert sorted(path.name for path in folder.iterdir()) == FILES
    for name in FILES:
        if name.endswith("png"):
            assert (folder / name).read_bytes().startswith(b"\x89PNG")
    found = json.loads((folder / "report.json").read_text())
    lines = report.table(found).splitlines()
    assert lines[0].startswith("net.npz: TWBA, 30 test images of digits, accuracy ")
    table = dict((line.split()[0], line.split()) for line in lines[2:13])
    assert list(table) == ["map"] + list(arch.map_shapes()) + ["total"]
    assert table["bn0"][1:4] == ["36864", "-", "-"]
    assert table["cnn1"][10] == "18,874,368" and table["cnn1"][12] == str(found["maps"][1]["cores"])
    assert len({len(line) for line in lines[2:13]}) == 1


def test_robustness_is_reproducible(arrays):
    data = digits.load()
    once, again = (robustness.accuracies(arrays, data.x_test[:5], data.y_test[:5]) for _ in range(2))
    np.testing.assert_array_equal(once, again)


def alter(export, path, **changes):
    with np.load(str(export)) as archive:
        np.savez_compressed(str(path), **dict(dict(archive), **changes))


def bad_exports(export, folder):
    """(file, what the message says) for each way in which an export can be bad."""
    yield folder / "missing.npz", "no such file"
    (folder / "cut.npz").write_bytes(export.read_bytes()[:-2000])
    yield folder / "cut.npz", "truncated"
    changed = np.load(str(export))["cnn1/thresholds"] + np.int16(1)
    alter(export, folder / "altered.npz", **{"cnn1/thresholds": changed})
    yield folder / "altered.npz", "was altered"
    meta = dict(json.loads(str(np.load(str(export))["meta"])), version=2)
    alter(export, folder / "later.npz", meta=np.array(json.dumps(meta)))
    yield folder / "later.npz", "has version 2"
    np.savez(str(folder / "foreign.npz"), x=np.zeros(3))
    yield folder / "foreign.npz", "no exported spiking network"


def test_bad_exports(export, tmp_path):
    for path, message in bad_exports(export, tmp_path):
        with pytest.raises(SystemExit) as stopped:
            report.main([str(path), str(tmp_path / "out")])
        text = str(stopped.value)
        assert text.startswith("error: %s: " % path) and message in text, text
        assert "make it anew with python -m twba_tensorflow.export" in text and "\n" not in text
    assert not (tmp_path / "out").exists()


def test_bad_folder_and_flags(export, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match="file: no folder can be made there .*: name another"):
        report.main([str(export), str(tmp_path / "file")])
    with pytest.raises(SystemExit, match="--axons 9: cnn1 needs at least 16"):
        report.main([str(export), str(tmp_path / "out"), "--axons", "9"])
    for flag, value in (("--picojoule-per-sop", "-1"), ("--picojoule-per-mac", "nan"), ("--limit", "0")):
        with pytest.raises(SystemExit):
            report.main([str(export), str(tmp_path / "out"), flag, value])
        assert "%r is not a number" % value in capsys.readouterr().err


def test_a_report_cut_short_leaves_no_report_of_other_figures(tmp_path, monkeypatch):
    (tmp_path / "report.json").write_text("of another network")
    for name in ("firing_rate", "spikes_per_image", "synaptic_operations"):
        monkeypatch.setattr(figures, name, lambda *_: None)
    monkeypatch.setattr(figures, "robustness", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        report._write({"maps": [], "robustness": {}}, report.Measurement(None, np.ones((1, 9)), None), tmp_path)
    assert not list(tmp_path.iterdir())
