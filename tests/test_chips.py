"""Which chips a network fits: each rule on a small network by hand, the paper's network, and PAICORE against to-paicore."""
import dataclasses
import json

import pytest

from helpers import OWN, REPOSITORY, SEEDS, command_error, network_and_data, random_architecture, random_network
from twba_chip.paicore import command as to_paicore, placement, tiles
from twba_chip.report import chips, command as report, cores, measurement
from twba_chip.report.chips import CHIPS, PAICORE, Chip
from twba_chip.spiking import file as spiking_file, reference
from twba_nets.network.architecture import PAPER, Architecture, Row

# cnn1: 4 x 4 positions, 8 filters of 3 x 3 x 4 = 36 inputs: 288 weights, 128 neurons, 4,608 synapses
# cnn2: 4 x 4 positions, 2 filters of 8 inputs: 16 weights, 32 neurons, 256 synapses
SMALL = Architecture((Row("cnn0", "bn0", 1, 4, 1, 1, "SAME"), Row("cnn1", "bn1", 1, 8, 3, 1, "SAME"),
                      Row("cnn2", "bn2", 1, 2, 1, 1, "SAME")), 4, 4, 1, 2, 1).hidden


def test_fan_in():
    """36 inputs on 35 axons: two partial sums, and how many steps they take is not known."""
    assert chips.fit(Chip("wide enough", 36, 64), SMALL).why == []
    found = chips.fit(Chip("too narrow", 35, 64), SMALL)
    assert len(found.why) == 1 and "cnn1" in found.why[0] and "36" in found.why[0] and "partial sums" in found.why[0]
    assert [stage["parts"] for stage in found.stages] == [2, 1] and found.time_steps is None


def test_synapses_of_one_bit():
    """Two axons an input: 72 for one position of cnn1, and 16 x 2 for all of cnn2's four in a row."""
    assert chips.fit(Chip("binary", 72, 64, weight_bits=1), SMALL).why == []
    why, = chips.fit(Chip("binary", 71, 64, weight_bits=1), SMALL).why
    assert "72" in why and "two" in why
    for axons, bits in ((72, 1), (36, 2), (36, None)):
        assert chips.fit(Chip("", axons, 64, weight_bits=bits), SMALL).cores == chips.fit(Chip("", 36, 64), SMALL).cores


def test_cores():
    """36 axons see one position of cnn1, so 16 cores; and 4 positions of cnn2, so 4."""
    assert [stage["cores"] for stage in chips.fit(Chip("", 36, 64), SMALL).stages] == [16, 4]
    assert chips.fit(Chip("", 36, 64, 20), SMALL).why == []
    why, = chips.fit(Chip("", 36, 64, 19), SMALL).why
    assert "20 cores" in why and "19" in why


def test_a_core_stores_the_kernels_of_all_its_blocks():
    """Four groups of 1,024 by 256 weights: a core has room for two of these kernels, and axons and neurons for all."""
    groups = Architecture((Row("cnn0", "bn0", 1, 4096, 1, 1, "SAME"), Row("cnn1", "bn1", 4, 256, 1, 1, "SAME")), 1, 1, 3, 2, 1)
    assert cores.place(groups.hidden[0], cores.Core(4096, 1024, 2 * 1024 * 256)).cores == 2
    assert cores.place(groups.hidden[0], cores.Core(4096, 1024)).cores == 1


def test_cores_that_store_a_kernel_once():
    """Room for 4 filters of 36 weights: two cores where one has the neurons for all; one weight less, and it holds 3."""
    for weights, needed in ((8 * 36, 1), (4 * 36, 2), (4 * 36 - 1, 3)):
        found = cores.place(SMALL[0], cores.Core(64, 128, weights))
        assert (found.cores, found.block[2]) == (needed, -(-8 // needed))


def test_neurons_and_synapses_of_a_chip():
    assert chips.fit(Chip("", all_neurons=160, all_synapses=4864), SMALL).why == []
    assert chips.fit(Chip("", weight_bits=1, all_synapses=2 * 4864), SMALL).why == []
    neurons, synapses = chips.fit(Chip("", weight_bits=1, all_neurons=159, all_synapses=2 * 4864 - 1), SMALL).why
    assert "160 neurons" in neurons and "159" in neurons and "9,728 synapses" in synapses and "9,727" in synapses
    assert chips.fit(Chip("", all_neurons=160), SMALL).cores is None


@pytest.mark.parametrize("layers, word", [
    (((288, 128), (16, 32)), None), (((16, 32), (288, 128)), None), (((304, 160),), "2 stages"),
    (((287, 128), (16, 128)), "weights"), (((288, 127), (16, 32)), "neurons"), (((287, 128), (17, 128)), "layer"),
    (((288, 32), (16, 128)), "layer")])
def test_layers(layers, word):
    """Each stage needs one with room for its weights and its neurons."""
    why = chips.fit(Chip("", layers=layers), SMALL).why
    assert (len(why) == 1 and word in why[0]) if word else not why


@pytest.mark.parametrize("changes, words", [
    ({"stride": 3}, "stride 3"), ({"filters": 2048}, "2,048 channels"), ({"kernel": 17}, "kernels of side 17"),
    ({"size": 129}, "inputs of side 129"), ({"output_size": 65}, "maps of side 65"), ({"margin": 8}, "margins of 8")])
def test_limits_of_a_layer(changes, words):
    """By SynSense's documentation of Speck."""
    stage = dataclasses.replace(SMALL[0], groups=1, **changes)
    assert [words in sentence for sentence in chips._beyond_limits(CHIPS["speck"].limits, stage)].count(True) == 1
    assert chips._beyond_limits(CHIPS["speck"].limits, SMALL[0]) == []


def test_a_layer_has_no_groups():
    """Zeros take the place of what a group does not read: 2 groups of 2 x 4 x 9 weights are 4 x 8 x 9."""
    stage = dataclasses.replace(SMALL[0], groups=2, channels=4, filters=4, kernel=3)
    assert chips.fit(Chip("", layers=((288, 1024),)), [stage]).why == []
    assert "288 weights" in chips.fit(Chip("", layers=((287, 1024),)), [stage]).why[0]


def test_a_core_that_does_not_see_one_channel():
    found = chips.fit(Chip("", 8, 64), SMALL)
    assert found.why and found.cores is None and found.stages == [{}, {}]


def test_the_papers_network():
    fits = {name: chips.fit(chip, PAPER.hidden) for name, chip in CHIPS.items()}
    assert [name for name, found in fits.items() if not found.why] == ["paicore", "loihi2"]
    assert {name: found.cores for name, found in fits.items()} == {
        "generic": 1912, "paicore": 830, "pku-nc64c": None, "truenorth": 6384, "loihi": 180, "loihi2": None, "speck": 8}
    assert sum(cores.place(stage, placement.CORE).cores for stage in PAPER.hidden) == 718  # without copies: docs/chip.md
    assert fits["paicore"].time_steps == 8 and all(chip.source for chip in CHIPS.values())
    weights, neurons = map(sum, zip(*CHIPS["speck"].layers))
    assert weights == 272 * 1024 and neurons == 320 * 1024


@pytest.mark.parametrize("architecture", [OWN, *map(random_architecture, SEEDS)])
def test_paicore_takes_the_cores_of_to_paicore(architecture, tmp_path):
    spiking_file.write(tmp_path / "net.npz", random_network(architecture=architecture))
    to_paicore.main([str(tmp_path / "net.npz"), str(tmp_path / "chip")])
    card, found = json.loads((tmp_path / "chip" / "paicore.json").read_text()), chips.fit(PAICORE, architecture.hidden)
    assert (found.why, found.cores, found.time_steps) == ([], card["cores"], card["time_steps"])
    assert [stage["cores"] for stage in found.stages] == [stage["cores"] for stage in card["stages"]]
    assert [int(copies.sum()) * stage.output_channels for copies, stage in zip(found.copies, architecture.hidden)] == [
        stage["neurons"] for stage in card["stages"]]


@pytest.mark.parametrize("architecture", [OWN, *map(random_architecture, SEEDS)])
def test_small_networks(architecture):
    """They fit all, but for neurons of more than 128 inputs, for each of which TrueNorth takes two of 256 axons."""
    fits = {name: chips.fit(chip, architecture.hidden) for name, chip in CHIPS.items()}
    wide = max(stage.fan_in for stage in architecture.hidden) > 128
    assert [name for name, found in fits.items() if found.why] == ["truenorth"] * wide


@pytest.mark.parametrize("folder", ["TWBA", "BWBA"])
def test_released_reports_know_these_chips(folder):
    """After a change of the table: twba-nets report FOLDER/model.npz, and docs/tables.py."""
    rows = json.loads((REPOSITORY / folder / "report.json").read_text())["chips"]
    assert rows == [chips.row(name, chip, chips.fit(chip, PAPER.hidden), row["sops"])
                    for (name, chip), row in zip(CHIPS.items(), rows)]


def test_what_paicore_cannot_place():
    """24 x 24 x 512 neurons are 1,152 cores: the reason is to-paicore's."""
    network = Architecture((Row("cnn0", "bn0", 1, 8, 3, 1, "SAME"), Row("cnn1", "bn1", 1, 512, 1, 1, "SAME")), 24, 24, 1, 2, 1)
    found = chips.fit(PAICORE, network.hidden)
    assert found.cores == 1152 and len(found.why) == 1 and "144" in found.why[0] and "1,008" in found.why[0]
    idle = Architecture((Row("cnn0", "bn0", 1, 16, 1, 1, "SAME"), Row("cnn1", "bn1", 1, 176, 3, 1, "SAME"),
                         Row("cnn2", "bn2", 1, 40, 2, 2, "SAME")), 32, 32, 3, 2, 1)
    found = chips.fit(PAICORE, idle.hidden)  # 992 cores have a neuron, but spikes reach 2^n cores each
    assert found.cores == 1024 == sum(stage["cores"] for stage in found.stages) and "16 more than" in found.why[0]
    wide = Architecture((Row("cnn0", "bn0", 1, 1153, 1, 1, "SAME"), Row("cnn1", "bn1", 1, 8, 1, 1, "SAME")), 2, 2, 1, 2, 1)
    why, = chips.fit(PAICORE, wide.hidden).why
    assert "1,153" in why and "1,152" in why and "partial sums" in why


def test_copied_neurons_compute_again(monkeypatch):
    """PAICORE's SOPs against all crossbars of all tiles, spike by spike, in three batches."""
    monkeypatch.setattr(measurement, "CHUNK", 2)
    network, data = network_and_data(5)
    images = data.x_test[:5]
    measured = measurement.measure(network, images, data.y_test[:5])
    fit = chips.fit(PAICORE, PAPER.hidden)
    found = chips.row("paicore", PAICORE, fit, measurement.sops_on_chip(network, measured, fit))
    spikes, expected = reference.encode(network, reference.central_crop(images, PAPER)), 0
    for stage, layer in zip(PAPER.hidden, tiles.cut(PAPER.hidden, placement.CORE)):
        weights = network.arrays[f"{stage.conv}/weights"]
        for tile in layer:
            driven = (tiles.crossbar(tile, stage, weights) != 0).sum(1)
            expected += (spikes.reshape(5, -1)[:, tile.axons] @ driven).sum()
        spikes = reference.fire(reference.integrate(spikes, weights, stage), network.arrays[f"{stage.conv}/thresholds"])
    assert found["sops"] == pytest.approx(expected / 5) and found["sops"] > 1.1 * measured.sops.sum(1).mean()
    assert found["microjoule"] == pytest.approx(expected / 5 * 0.193e-6)
    assert found["arithmetic_microjoule"] == pytest.approx(expected / 5 * 0.1e-6)


@pytest.mark.parametrize("name, cores_of_maps", [("paicore", [256, 288, 72, 128, 64, 16, 4, 2]), ("speck", [None] * 8)])
def test_the_command_takes_a_chip(name, cores_of_maps, tmp_path, capsys):
    spiking_file.write(tmp_path / "net.npz", random_network(dataset="digits"))
    report.main([str(tmp_path / "net.npz"), str(tmp_path), "--limit", "2", "--robustness-images", "1", "--chip", name])
    found = json.loads((tmp_path / "report.json").read_text())
    assert [row["cores"] for row in found["maps"][1:]] == cores_of_maps and found["chip"] == name
    assert found["total"]["cores"] == next(row["cores"] for row in found["chips"] if row["chip"] == name)
    printed = capsys.readouterr().out
    for row in found["chips"]:
        assert row["title"] in printed and all(why in printed for why in row["why"])


def test_a_chip_has_axons_of_its_own(tmp_path, capsys):
    spiking_file.write(tmp_path / "net.npz", random_network())
    for flag in ("--axons", "--neurons"):
        line = command_error(report.main, tmp_path / "net.npz", tmp_path / "out", "--chip", "loihi", flag, 256)
        assert "--chip loihi" in line and flag in line
    with pytest.raises(SystemExit):
        report.main([str(tmp_path / "net.npz"), str(tmp_path / "out"), "--chip", "brain"])
    usage = capsys.readouterr().err
    assert all(name in usage for name in CHIPS)
    assert not (tmp_path / "out").exists()
