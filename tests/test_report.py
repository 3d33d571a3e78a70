"""The report: synapses, cores and robustness against hand-computed values and brute force; then the command."""
import json

import numpy as np
import pytest
from matplotlib import pyplot

from helpers import command_error, integrate_events, network_and_data, random_network
from twba_chip import engine
from twba_chip.report import command as report, cores, energy, figures, measurement, robustness, tables
from twba_chip.spiking import file as spiking_file, reference, synapses
from twba_nets import datasets
from twba_nets.datasets import digits
from twba_nets.network.architecture import PAPER, Reader, Stage
from twba_nets.network.quantisers import WEIGHTS
from twba_nets.system import progress
from twba_nets.system.errors import UserError

FILES = ["report.html", "report.json"]
IMAGES, ROBUSTNESS_IMAGES = 30, 10


@pytest.fixture(scope="module")
def network_on_data():
    return network_and_data(IMAGES, card={"recipe": {"dataset": "digits"}})


@pytest.fixture(scope="module")
def network(network_on_data):
    return network_on_data[0]


@pytest.fixture(scope="module")
def data(network_on_data):
    return network_on_data[1]


@pytest.fixture(scope="module")
def export(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "net.npz"
    spiking_file.write(path, network)
    return path


@pytest.fixture(scope="module")
def folder(export, data, tmp_path_factory):
    """What the command writes for the first test digits. The data set is the card's."""
    folder = tmp_path_factory.mktemp("made") / "new" / "report"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load", lambda *asked: {("digits", PAPER.picture_shape, PAPER.classes, None): data}[asked])
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


@pytest.mark.parametrize("stage", PAPER.hidden, ids=lambda stage: stage.conv)
def test_fan_out_counts_the_additions_of_the_chip(network, stage):
    """Each spike adds the absolute weights of its synapses: their sum over all potentials is the number of SOPs."""
    shape = (stage.size, stage.size, stage.channels)
    spikes = np.random.RandomState(1).random_sample(shape) < 200 / np.prod(shape)
    spikes[0, 0], spikes[-1, -1] = True, True  # all of two corners
    weights = network.arrays[f"{stage.conv}/weights"]
    driven = synapses.fan_out(weights, stage)
    assert driven.shape == shape
    assert driven[spikes].sum() == integrate_events(spikes, np.abs(weights), stage).sum()


def test_dense_operations():
    """cnn1: 12 x 12 positions, 4 x 4 x 32 inputs, 256 filters; the README's 70.5 M in all hidden stages."""
    weights = {stage.conv: np.zeros(spiking_file.array_types(PAPER)[f"{stage.conv}/weights"][1], np.int8)
               for stage in PAPER.hidden}
    macs = [synapses.multiply_accumulates(weights[stage.conv], stage) for stage in PAPER.hidden]
    assert macs[0] == 12 * 12 * 4 * 4 * 32 * 256 and sum(macs) == 70516736
    assert [synapses.fan_in(weights[stage.conv]) for stage in PAPER.hidden] == [512, 288, 512, 288, 512, 512, 512, 1024]


def placement(name, axons, neurons):
    stage = next(stage for stage in PAPER.hidden if stage.conv == name)
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
    for stage in PAPER.hidden:
        found = cores.place(stage, cores.Core(axons, neurons))
        height, width, filters = found.block
        assert found.block_axons * found.blocks_per_core <= axons
        assert found.block_neurons * found.blocks_per_core <= neurons
        needed = found.parts * np.prod(stage.map_shape)
        assert height * width * filters * found.blocks_per_core * found.cores >= needed


def test_a_core_too_small_for_one_channel():
    with pytest.raises(UserError, match="--axons 15: cnn1 .*16"):
        placement("cnn1", 15, 256)


DROPPED = [0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5]


def logits_without(network, images, kept):
    """The NumPy reference's logits where only the spikes in `kept` (name -> bool [N, H, W, C]) go on."""
    spikes = reference.encode(network, reference.central_crop(images, PAPER)) & kept["bn0"]
    for stage in PAPER.hidden:
        potentials = reference.integrate(spikes, network.arrays[f"{stage.conv}/weights"], stage)
        spikes = reference.fire(potentials, network.arrays[f"{stage.conv}/thresholds"]) & kept[stage.map]
    return reference.classify(network, spikes)


@pytest.mark.parametrize("variant", WEIGHTS)
def test_robustness_is_the_references(variant, monkeypatch):
    """Three images in two batches: a spike is lost where its random number is below the rate, the same at every rate."""
    monkeypatch.setattr(robustness, "BATCH", 2)
    network, images, expected = random_network(variant), digits.load().x_test[:3], []
    network.arrays["output/offset"] *= 0  # by which one class would nearly always win
    chances = []  # of each batch, by name
    for start, number in ((0, 2), (2, 1)):
        random = np.random.RandomState([0, start])
        chances.append({name: random.random_sample((number,) + shape) for name, shape in PAPER.map_shapes.items()})
    for dropped in DROPPED:
        kept = {name: np.concatenate([batch[name] for batch in chances]) >= dropped for name in chances[0]}
        expected.append(logits_without(network, images, kept).argmax(1))
    assert len({tuple(row) for row in expected}) > 4  # another rate, another answer
    labels = np.array([row[index] for index, row in enumerate(expected[:3])])
    curve = robustness.curve(network, images, labels)
    right = np.array([(row == labels).mean() for row in expected])
    assert list(curve["dropped"]) == DROPPED and curve["images"] == 3 and curve["seed"] == 0
    np.testing.assert_allclose(curve["accuracy"], right)
    assert curve["standard_error"] == [pytest.approx((share * (1 - share) / 3) ** 0.5) if 0 < share < 1 else None
                                       for share in right]


@pytest.mark.parametrize("name", PAPER.map_shapes)
def test_what_is_lost_does_not_go_on(network, name):
    """A map that is lost as a whole silences what reads it; where all is kept, the network is as ever."""
    images = digits.load().x_test[:2]
    spikes = reference.encode(network, reference.central_crop(images, PAPER))
    running = engine.Engine(network)
    kept = {other: np.ones((2,) + shape, bool) for other, shape in PAPER.map_shapes.items()}
    np.testing.assert_allclose(running.run_lossy(spikes, kept), running.run_spikes(spikes).logits, rtol=1e-5, atol=1e-5)
    kept[name][0] = False
    np.testing.assert_array_equal(running.run_lossy(spikes, kept), logits_without(network, images, kept))


def test_images_that_cannot_lose_spikes(network):
    for images in (0, engine.CHUNK + 1):
        with pytest.raises(ValueError, match=f"1 to {engine.CHUNK} images"):
            engine.Engine(network).run_lossy(np.zeros((images, 24, 24, 64), bool), {})


def test_report_agrees_with_the_reference(network, data, folder):
    """Spikes, SOPs and accuracy, counted in NumPy from the maps of the reference."""
    found, arrays = json.loads((folder / "report.json").read_text()), network.arrays
    spikes = reference.encode(network, reference.central_crop(data.x_test[:IMAGES], PAPER))
    maps = dict({"bn0": spikes}, **reference.forward(network, spikes))
    total, all_sops = np.zeros(IMAGES), np.zeros(IMAGES)
    for row, (name, spikes) in zip(found["maps"], maps.items()):
        counts = spikes.sum((1, 2, 3))
        total += counts
        assert row["map"] == name and row["neurons"] == spikes[0].size
        np.testing.assert_allclose([row["spikes_mean"], row["spikes_sd"], row["firing_rate"]],
                                   [counts.mean(), counts.std(), spikes.mean()])
    for row, (stage, spikes) in zip(found["maps"][1:], zip(PAPER.hidden, maps.values())):
        weights = arrays[f"{stage.conv}/weights"]
        sops = reference.integrate(spikes, np.abs(weights), stage).sum((1, 2, 3), dtype=np.float64)
        all_sops += sops
        np.testing.assert_allclose([row["sops_mean"], row["sops_sd"]], [sops.mean(), sops.std()])
        assert row["weight_sparsity"] == (weights == 0).mean() and row["weights"] == weights.size
        assert row["sops_over_macs"] == row["sops_mean"] / row["macs"]
    correct = reference.classify(network, maps["cnn11"]).argmax(1) == data.y_test[:IMAGES]
    assert found["images"] == IMAGES and found["accuracy"] == correct.mean()
    all_maps = found["total"]
    np.testing.assert_allclose([all_maps["spikes_mean"], all_maps["spikes_sd"]], [total.mean(), total.std()])
    sops_in_all = all_sops.mean()
    np.testing.assert_allclose([all_maps["sops_mean"], all_maps["sops_sd"]], [sops_in_all, all_sops.std()])
    np.testing.assert_allclose([all_maps["sops_over_macs"], all_maps["firing_rate"]],
                               [sops_in_all / 70516736, total.mean() / 220672])
    weights = np.concatenate([arrays[f"{stage.conv}/weights"].ravel() for stage in PAPER.hidden])
    assert all_maps["weights"] == weights.size and all_maps["weight_sparsity"] == pytest.approx((weights == 0).mean())
    assert all_maps["neurons"] == 220672 and all_maps["macs"] == 70516736
    np.testing.assert_allclose(all_maps["counted_spikes_mean"], (total - counts).mean())  # counts: cnn11's
    histogram = found["spikes_histogram"]
    assert np.histogram(total, histogram["edges"])[0].tolist() == histogram["images"] and sum(histogram["images"]) == IMAGES
    assert found["energy"] == energy.rows(all_maps["sops_mean"], all_maps["macs"], 2, 3)
    assert found["robustness"] == json.loads(json.dumps(robustness.curve(
        network, data.x_test[:ROBUSTNESS_IMAGES], data.y_test[:ROBUSTNESS_IMAGES])))
    assert found["robustness"]["accuracy"][0] == correct[:ROBUSTNESS_IMAGES].mean() and 0 < correct.mean() < 1


def test_report_of_synapses_and_cores(network, folder):
    found = json.loads((folder / "report.json").read_text())
    rows = {row["map"]: row for row in found["maps"]}
    nonzero = (network.arrays["cnn11/weights"] != 0).sum()  # cnn11: 1 x 1, each input drives it once
    assert rows["cnn11"]["fan_in"] == 1024 and rows["cnn11"]["fan_in_nonzero"] == nonzero / 512
    assert rows["cnn10"]["fan_out"] == nonzero / 1024
    assert rows["bn0"]["fan_in"] is rows["bn0"]["sops_mean"] is rows["cnn11"]["fan_out"] is None
    assert rows["cnn2"]["cores"] == 288 and rows["cnn2"]["parts"] == 1 and rows["cnn11"]["parts"] == 2
    assert found["total"]["cores"] == sum(row["cores"] or 0 for row in found["maps"])
    own, paicore, *_ = found["chips"]
    assert found["chip"] == own["chip"] == "generic" and (own["axons"], own["neurons"]) == (512, 256)
    assert own["cores"] == found["total"]["cores"] and own["sops"] == found["total"]["sops_mean"] < paicore["sops"]
    assert found["dataset"] == "digits"


def test_energy_by_hand():
    """A million SOPs: int32 and float32 additions. Two million MACs: int8 and float32 products with their additions."""
    found = energy.rows(1e6, 2000000, None, None)
    assert [row["microjoule"] for row in found["sops"]] == pytest.approx([0.1, 0.9])
    assert [row["microjoule"] for row in found["macs"]] == pytest.approx([2 * (0.2 + 0.1), 2 * (3.7 + 0.9)])
    assert ["int" in row["arithmetic"] for row in found["sops"] + found["macs"]] == [True, False] * 2
    given = energy.rows(1e6, 2000000, 7, 8)
    assert given["sops"][:2] == found["sops"] and given["sops"][2]["microjoule"] == pytest.approx(7)
    assert given["macs"][:2] == found["macs"] and given["macs"][2]["microjoule"] == pytest.approx(16)


def test_files_and_table(folder, capsys):
    assert sorted(path.name for path in folder.iterdir()) == FILES
    found = json.loads((folder / "report.json").read_text())
    lines = tables.text(found).splitlines()
    assert lines[0] == f"net.npz: TWBA, 30 test images of digits, accuracy {found['accuracy']:.2%}"
    head, *table = lines[2:13]
    assert head.split() == ("map neurons fan-in nonzero fan-out zeros spikes/image sd rate SOPs/image dense MACs SOPs/MACs cores "
                            "parts").split()
    formats = {"map": "", "neurons": ",", "fan_in": ",", "fan_in_nonzero": ".1f", "fan_out": ".1f", "weight_sparsity": ".1%",
               "spikes_mean": ",.1f", "spikes_sd": ".1f", "firing_rate": ".2%", "sops_mean": ",.0f", "macs": ",",
               "sops_over_macs": ".1%", "cores": ",", "parts": ""}
    assert [line.split() for line in table] == [
        ["-" if row[name] is None else format(row[name], text) for name, text in formats.items()]
        for row in found["maps"] + [found["total"]]]
    assert [line.split()[0] for line in table] == list(PAPER.map_shapes) + ["total"]
    assert len({len(line) for line in lines[2:13]}) == 1
    total, rest = found["total"], "\n".join(lines[13:])
    for text in (f"{total['counted_spikes_mean']:,.1f} spikes without cnn11's", "512 axons and 256 neurons", "first 10 images",
                 *(f"{total['sops_mean'] * pj / 1e6:.2f} uJ ({what}: {pj} pJ)" for what, pj in (
                     ("int32 addition", 0.1), ("as given", 2))), f"{70.516736 * 3:.2f} uJ (as given: 3 pJ)",
                 ", ".join(f"{dropped}: {accuracy:.1%}" for dropped, accuracy in zip(
                     "0% 1% 2% 5% 10% 20% 30% 50%".split(), found["robustness"]["accuracy"]))):
        assert text in rest


ROWS = [{"map": "bn0", "neurons": 100, "firing_rate": 0.5, "spikes_sd": 3.0, "macs": None, "sops_mean": None},
        {"map": "cnn1", "neurons": 200, "firing_rate": 0.25, "spikes_sd": 8.0, "macs": 4e6, "sops_mean": 1e6},
        {"map": "cnn2", "neurons": 400, "firing_rate": 0.1, "spikes_sd": 20.0, "macs": 3e6, "sops_mean": 2e6}]


def heights(bars):
    return [bar.get_height() for bar in bars]


def whiskers(container):
    """(lower, upper) ends of the error bars."""
    segments = container.lines[2][0].get_segments()
    return np.array([(lower, upper) for (_, lower), (_, upper) in segments]).T.tolist()


def names(axis):
    return [label.get_text() for label in axis.get_xticklabels()]


def legend(axis):
    return [text.get_text() for text in axis.get_legend().get_texts()]


@pytest.fixture
def axis():
    figure, axis = pyplot.subplots()
    yield axis
    pyplot.close(figure)


def test_figure_of_firing_rates(axis):
    figures.firing_rate(axis, {"maps": ROWS})
    axis.figure.canvas.draw()  # the ticks' names are there only then
    errors, bars = axis.containers
    assert names(axis) == ["bn0", "cnn1", "cnn2"] and heights(bars) == pytest.approx([50, 25, 10])
    assert np.array(whiskers(errors)) == pytest.approx(np.array([[47, 21, 5], [53, 29, 15]]))
    assert "[%]" in axis.get_ylabel()


def test_figure_of_spikes(axis):
    figures.spikes_per_image(axis, {"spikes_histogram": {"edges": [1000.0, 1500.0, 3000.0], "images": [3, 1]},
                                    "total": {"spikes_mean": 1575.0}})
    assert heights(axis.patches) == [3, 1]
    assert [(bar.get_x(), bar.get_width()) for bar in axis.patches] == [pytest.approx((1, 0.5)), pytest.approx((1.5, 1.5))]
    assert axis.lines[0].get_xdata() == pytest.approx([1.575] * 2) and legend(axis) == ["mean: 1,575"]
    assert "[thousands]" in axis.get_xlabel()


def test_figure_of_operations(axis):
    """Nothing is added up in the input's map, which is made off chip."""
    figures.synaptic_operations(axis, {"maps": ROWS})
    assert names(axis) == ["cnn1", "cnn2"] and legend(axis) == ["dense MACs", "synaptic operations"]
    assert {bars.get_label(): heights(bars) for bars in axis.containers} == {
        "dense MACs": [4, 3], "synaptic operations": [1, 2]}
    places = [[bar.get_x() + bar.get_width() / 2 for bar in bars] for bars in axis.containers]
    assert places == [pytest.approx([-0.2, 0.8]), pytest.approx([0.2, 1.2])]  # a pair about each tick
    assert "[millions]" in axis.get_ylabel()


def test_figure_of_robustness(axis):
    figures.robustness(axis, {"class_names": [*"abcd"], "robustness": {
        "dropped": [0, 0.1, 0.5], "accuracy": [0.8, 0.5, 0.2], "images": 100, "standard_error": [0.04, 0.05, 0.04]}})
    curve, = axis.containers
    assert curve.lines[0].get_xydata() == pytest.approx(np.array([[0, 80], [10, 50], [50, 20]]))
    assert np.array(whiskers(curve)) == pytest.approx(np.array([[76, 45, 16], [84, 55, 24]]))
    assert axis.lines[-1].get_ydata() == [25, 25] and legend(axis) == ["chance"] and axis.get_ylim() == (0, 100)
    assert "dropped" in axis.get_xlabel() and "100 images" in axis.get_ylabel()


def test_both_passes_tell_of_their_progress(network, monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", 0)
    monkeypatch.setattr(measurement, "CHUNK", 20)
    data = digits.load()
    images, labels = data.x_test[:60], data.y_test[:60]
    measurement.measure(network, images, labels)
    robustness.accuracies(network, images, labels)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(", ")[0] for line in lines] == ["spikes: 20 of 60 images", "spikes: 40 of 60 images",
                                                       "dropped spikes: 50 of 60 images"]


def test_a_long_report_tells_how_to_have_a_short_one(export, tmp_path, monkeypatch, capsys):
    def stop(*_):
        raise UserError("enough")

    monkeypatch.setattr(report, "FEW", 20)
    monkeypatch.setattr(measurement, "measure", stop)
    for limit, told in ((21, True), (20, False)):
        command_error(report.main, export, tmp_path, "--limit", limit)
        error = capsys.readouterr().err
        assert ("--limit " in error and "--robustness-images " in error) == told


def alter(export, path, **changes):
    with np.load(export) as archive:
        np.savez_compressed(path, **dict(dict(archive), **changes))


def bad_exports(export, folder):
    """(file, what the message says) for each way in which an export can be bad."""
    yield folder / "missing.npz", "no such model"
    (folder / "cut.npz").write_bytes(export.read_bytes()[:-2000])
    yield folder / "cut.npz", "truncated"
    changed = np.load(export)["cnn1/thresholds"] + np.int16(1)
    alter(export, folder / "altered.npz", **{"cnn1/thresholds": changed})
    yield folder / "altered.npz", "was altered"
    meta = dict(json.loads(str(np.load(export)["meta"])), version=2)
    alter(export, folder / "later.npz", meta=np.array(json.dumps(meta)))
    yield folder / "later.npz", "has version 2"
    np.savez(folder / "foreign.npz", x=np.zeros(3))
    yield folder / "foreign.npz", "is not an exported network"


def test_bad_exports(export, tmp_path):
    for path, message in bad_exports(export, tmp_path):
        line = command_error(report.main, path, tmp_path / "out")
        assert line.startswith(f"{path}: ") and message in line
    assert not (tmp_path / "out").exists()


def test_bad_folder_and_flags(export, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    line = command_error(report.main, export, tmp_path / "file")
    assert line.startswith(f"{tmp_path / 'file'}: ") and line.endswith(": name another")
    assert command_error(report.main, export, tmp_path / "out", "--axons", 9).startswith("--axons 9: cnn1")
    for flag, value in (("--picojoule-per-sop", "-1"), ("--picojoule-per-mac", "nan"), ("--limit", "0")):
        with pytest.raises(SystemExit):
            report.main([str(export), str(tmp_path / "out"), flag, value])
        assert f"{value!r} is not a number" in capsys.readouterr().err


def test_a_report_cut_short_leaves_no_report_of_other_figures(tmp_path, monkeypatch):
    """What is there stays until the page is made; a page without report.json is of a report cut short."""
    (tmp_path / "report.json").write_text("of another network")
    monkeypatch.setattr(report, "write_json", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        report._write({}, "page", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_file_named_by_no_characters(tmp_path):
    """Linux's file names are bytes. They show as far as they are text."""
    report._write({}, "net\udcff.npz", tmp_path)
    assert (tmp_path / "report.html").read_bytes() == b"net?.npz"


@pytest.mark.parametrize("number, text", [(16_600_000, "16.60 M"), (100_000, "0.10 M"), (99_999, "99,999"), (44.4, "44")])
def test_small_numbers_of_operations_keep_their_digits(number, text):
    assert tables.operations(number) == text


@pytest.mark.parametrize("energy, text", [
    (324.376, "324.38"), (1234.5, "1,234.50"), (0.1, "0.10"), (0.0025236, "0.0025"), (0, "0")])
def test_small_energies_keep_their_digits(energy, text):
    assert tables.microjoules(energy) == text
