"""PAICORE 2.0: tiles against the stages' synapses one by one, the place of each, frames there and back, and the chip's model
against the NumPy reference, also where a frame is damaged."""
import hashlib
import itertools
import json

import numpy as np
import pytest

from helpers import OWN, SEEDS, command_error, integrate_events, random_architecture, random_network, user_error
from twba_chip.paicore import check, command, frames as fr, placement, tiles
from twba_chip.paicore.tiles import Core
from twba_chip.paicore.chip_model import Chip, _multicast
from twba_chip.spiking import file as spiking_file, reference
from twba_nets.network.architecture import PAPER, Architecture, Row
from twba_nets.system.errors import UserError

ARCHITECTURES = [OWN, *map(random_architecture, SEEDS)]


def placed(architecture):
    return placement.place(architecture.hidden, tiles.cut(architecture.hidden, placement.CORE))


@pytest.fixture(scope="module")
def own():
    """(network, its tiles on a chip, the frames)."""
    network = random_network(architecture=OWN)
    here = placed(OWN)
    return network, here, fr.configure(network, here)


# tiles


def synapses(stage, weights):
    """All of a stage's weights, int32 [inputs, neurons], by sending one spike at a time."""
    rows = []
    for index in np.ndindex(stage.size, stage.size, stage.channels):
        spikes = np.zeros((stage.size, stage.size, stage.channels), bool)
        spikes[index] = True
        rows.append(integrate_events(spikes, weights, stage).ravel())
    return np.array(rows)


@pytest.mark.parametrize("spare, neurons", [(0, 3), (0, 16), (7, 8), (300, 5)])
@pytest.mark.parametrize("architecture", ARCHITECTURES[1:])
def test_tiles_hold_every_synapse_once(architecture, spare, neurons):
    random = np.random.RandomState(spare)
    core = Core(max(stage.fan_in for stage in architecture.hidden) + spare, neurons)
    cut = tiles.cut(architecture.hidden, core)
    for stage, layer in zip(architecture.hidden, cut):
        kernel = random.randint(1, 100, stage.kernel_shape[:3] + (stage.output_channels,)).astype(np.int8)
        dense = synapses(stage, kernel)
        for tile in layer:
            assert len(tile.axons) <= core.axons and (np.diff(tile.axons) > 0).all()
            np.testing.assert_array_equal(tiles.crossbar(tile, stage, kernel), dense[tile.axons][:, tile.neurons])
            assert not np.delete(dense, tile.axons, axis=0)[:, tile.neurons].any()  # they see nothing else
    for sources, layer in zip(cut, cut[1:]):
        for number, tile in enumerate(layer):  # each axon is one neuron's
            sent = np.concatenate([source.neurons[source.readers == number] for source in sources])
            np.testing.assert_array_equal(np.sort(sent), tile.axons)
    outputs = np.concatenate([tile.neurons for tile in cut[-1]])
    np.testing.assert_array_equal(np.sort(outputs), np.arange(np.prod(architecture.stages[-1].map_shape)))


def test_neurons_that_nothing_reads_take_no_core():
    architecture = Architecture((Row("cnn0", "bn0", 1, 4, 3, 1, "SAME"), Row("cnn1", "bn1", 1, 4, 1, 1, "SAME"),
                                 Row("cnn2", "bn2", 1, 4, 1, 2, "VALID")), 8, 8, 1, 2, 1)
    first, second = tiles.cut(architecture.hidden, placement.CORE)
    assert sum(len(tile.neurons) for tile in first) == sum(len(tile.neurons) for tile in second) == 4 * 4 * 4


def test_the_papers_network_fits_a_chip():
    here = placed(PAPER)
    assert [sum(block.size for block in layer) for layer in here] == [256, 288, 72, 128, 64, 16, 4, 2]


def test_more_inputs_than_axons():
    """A neuron of cnn11 sees 1,024."""
    line = user_error(tiles.cut, PAPER.hidden, Core(1000, 256))
    assert "cnn11" in line and "24 more" in line


# placement


def test_blocks_of_cores():
    assert [placement.address(number) for number in (0, 1, 2, 3, 4, 16, 1023)] == [0, 1, 32, 33, 2, 4, 1023]
    assert sum(placement.address(number) >= 28 * 32 + 28 and placement.address(number) % 32 >= 28
               for number in range(1008)) == 0  # the last 16 learn online


@pytest.mark.parametrize("architecture", [PAPER, *ARCHITECTURES])
def test_every_tile_has_cores_of_its_own(architecture):
    taken = []
    for block in itertools.chain.from_iterable(placed(architecture)):
        cores = dict(block.cores())
        assert sorted(cores) == sorted(_multicast(block.address, block.open_bits))  # a spike reaches these and no other
        held = [block.tile.neurons[part] for part in cores.values()]
        assert max(map(len, held)) <= 256
        np.testing.assert_array_equal(np.concatenate(held), block.tile.neurons)
        taken += cores
    assert len(set(taken)) == len(taken) and not [core for core in taken if core >> 5 >= 28 and core % 32 >= 28]


@pytest.mark.parametrize("sizes, starts", [
    ([4, 2, 2, 1], [0, 4, 6, 8]), ([512, 256, 128, 64, 32, 16, 1], [0, 512, 768, 896, 960, 992]),
    ([512, 256, 128, 64, 32, 32], [0, 512, 768, 896, 960])])
def test_blocks_that_fit_and_that_do_not(sizes, starts):
    assert placement._starts(sizes) == starts


def test_a_network_too_large():
    """24 x 24 x 512 neurons are 1,152 cores."""
    network = Architecture((Row("cnn0", "bn0", 1, 8, 3, 1, "SAME"), Row("cnn1", "bn1", 1, 512, 1, 1, "SAME")), 24, 24, 1, 2, 1)
    line = user_error(placed, network)
    assert "cnn1 1,152" in line and "144 more than" in line and "1,008" in line


def test_the_command_names_a_network_that_does_not_fit(tmp_path):
    wide = Architecture((Row("cnn0", "bn0", 1, 1153, 1, 1, "SAME"), Row("cnn1", "bn1", 1, 8, 1, 1, "SAME")), 2, 2, 1, 2, 1)
    spiking_file.write(tmp_path / "net.npz", random_network(architecture=wide))
    line = command_error(command.main, tmp_path / "net.npz", tmp_path / "chip")
    assert line.startswith(f"{tmp_path / 'net.npz'}: cnn1: ") and "1,153" in line and not (tmp_path / "chip").exists()


# frames


@pytest.mark.parametrize("layout, words", [(fr.NEURON, 4), (fr.SPIKE, 1)])
def test_fields_there_and_back(layout, words):
    random = np.random.RandomState(0)
    fields = {name: random.randint(0, 1 << length, 50) for name, (_, length) in layout.items()}
    packed = fr.pack(fields, layout, words)
    for name, value in fr.unpack(packed, layout).items():
        np.testing.assert_array_equal(value, fields[name], name)
    used = sorted(bit for start, length in layout.values() for bit in range(start, start + length))
    assert len(set(used)) == len(used) and used[-1] < 64 * words


def test_where_a_neurons_fields_stand():
    """By hand, from paicorelib's offsets: a leak of -3, a spike to axon 5 of the cores (5, 3) and (5, 2) of chip (1, 0)."""
    words = fr.pack(dict(leak=-3, positive_threshold=1, chip=32, core=5 << 5 | 2, ex=1, axon=5), fr.NEURON, 4)
    assert words.tolist() == [[(2 ** 28 - 3) << 36, 3 | 1 << 4, 1 << 42 | 1 << 47 | 2 << 57 | (5 & 3) << 62, 5 >> 2 | 5 << 3]]


def test_the_first_core_by_hand(own):
    """Seed and registers: two-bit weights, its dendrites, no fan-in extension, stage 1, SNN mode, test frames to chip (1, 0)."""
    network, here, frames = own
    address, dendrites = here[0][0].address << 40, 2 * min(256, len(here[0][0].tile.neurons))
    payloads = [1 << 28 | dendrites << 9, 1 << 23 | 1 << 7 | 32 >> 7, (32 & 127) << 23]
    assert frames[:6].tolist() == [address] * 3 + [1 << 60 | address | payload for payload in payloads]
    assert int(frames[6]) == 2 << 60 | address | 4 * dendrites


@pytest.mark.parametrize("variant", ["twba", "bwba"])
def test_a_core_holds_its_tile(variant):
    architecture = ARCHITECTURES[1]
    network, here = random_network(variant, architecture=architecture), placed(architecture)
    chip = Chip(fr.configure(network, here))
    for number, (stage, layer) in enumerate(zip(architecture.hidden, here)):
        for block in layer:
            matrix = tiles.crossbar(block.tile, stage, network.arrays[f"{stage.conv}/weights"])
            for address, part in block.cores():
                core, neurons = chip.cores[address], block.tile.neurons[part]
                assert core.registers["dendrites"] == 2 * len(neurons)
                if len(neurons):
                    assert core.registers["tick_wait_start"] == number + 1
                    np.testing.assert_array_equal(core.weights()[:len(matrix)], matrix[:, part])
                    assert not core.weights()[len(matrix):].any()
                    thresholds = network.arrays[f"{stage.conv}/thresholds"][neurons % stage.output_channels]
                    np.testing.assert_array_equal(core.parameters()["leak"], 1 - thresholds)


# the model of the chip


@pytest.mark.parametrize("architecture, variant", [*itertools.product(ARCHITECTURES, ["twba", "bwba"]), (PAPER, "twba")])
def test_the_chip_computes_what_the_reference_does(architecture, variant):
    network, here = random_network(variant, architecture=architecture), placed(architecture)
    spikes = check.random_spikes(network, 3)
    counts = check.compare(network, here, fr.configure(network, here), spikes)
    assert list(counts) == [stage.map for stage in architecture.hidden] + ["output"]
    for stage, layer in zip(architecture.hidden, here):
        assert counts[stage.map].of == 3 * sum(len(block.tile.neurons) for block in layer)
    assert {count.different for count in counts.values()} == {0}


def test_a_map_of_more_spikes_than_a_core_has_axons():
    """20 x 20 x 4 outputs, 1,152 of which have axons on the host's first core."""
    architecture = Architecture((Row("cnn0", "bn0", 1, 2, 3, 1, "SAME"), Row("cnn1", "bn1", 1, 4, 3, 1, "SAME")), 20, 20, 1, 2, 1)
    network, here = random_network(architecture=architecture), placed(architecture)
    assert check.compare(network, here, fr.configure(network, here), check.random_spikes(network, 2))["output"] == (0, 2 * 1600)
    assert [value.tolist() for value in fr.output(np.array([1151, 1152]))] == [[32, 32], [0, 1], [0, 0], [1151, 0]]


def test_images_in_several_batches(own, monkeypatch):
    monkeypatch.setattr(check, "BATCH", 2)
    network, here, frames = own
    counts = check.compare(network, here, frames, check.random_spikes(network, 5))
    assert counts["output"] == (0, 5 * OWN.features) and not any(count.different for count in counts.values())


def position(frames, kind):
    """Where the first core's frames of a kind begin."""
    return int(np.flatnonzero(frames >> np.uint64(60) == kind)[0])


def flip(frames, at, bit):
    frames = frames.copy()
    frames[at + bit // 64] ^= np.uint64(1 << bit % 64)
    return frames


FIELDS = ("leak", "positive_threshold", "negative_threshold", "axon", "chip", "leak_reversal", "reset_voltage", "tick",
          "reset_mode")
DAMAGES = [(fr.NEURON_RAM, 1, fr.NEURON[name][0]) for name in FIELDS] + [  # kind, which of its frames, the bit
    (fr.NEURON_RAM, 1, fr.NEURON["core"][0] + 4), (fr.NEURON_RAM, 1, fr.NEURON["ex"][0] + 4),  # cores that are not there
    (fr.WEIGHT_RAM, 1, 0), (fr.WEIGHT_RAM, 1 + 18, 1), (fr.WEIGHT_RAM, 0, 20), (fr.WEIGHT_RAM, 0, 62), (fr.NEURON_RAM, 0, 3),
    (fr.CORE_REGISTERS, 0, 9), (fr.CORE_REGISTERS, 1, 23), (fr.CORE_REGISTERS, 1, 7), (fr.CORE_REGISTERS, 0, 45)]


@pytest.mark.parametrize("kind, frame, bit", DAMAGES)
def test_a_damaged_frame_is_found(own, kind, frame, bit):
    """A neuron's parameters in both of its rows, so that they still agree; of the first neuron that fires now and then."""
    network, here, frames = own
    spikes = check.random_spikes(network, command.RANDOM)
    start = position(frames, kind) + frame
    if kind == fr.NEURON_RAM and frame:
        fired = reference.forward(network, spikes)["conv3"].reshape(len(spikes), -1)[:, here[0][0].tile.neurons]
        start += 2 * 4 * int(np.flatnonzero(fired.any(axis=0) & ~fired.all(axis=0))[0])
        damaged = flip(flip(frames, start, bit), start + 4, bit)
    else:
        damaged = flip(frames, start, bit)
    try:
        assert sum(count.different for count in check.compare(network, here, damaged, spikes).values())
    except ValueError:
        pass


def test_a_core_that_starts_late_is_found(own):
    """In step 3 instead of 2, a core of the last stage: its potentials are right, but the first image gives no spike."""
    network, here, frames = own
    last = int(np.flatnonzero(frames >> np.uint64(40) == fr.CORE_REGISTERS << 20 | here[-1][0].address)[0])
    counts = check.compare(network, here, flip(frames, last + 1, 23), check.random_spikes(network, 2))
    assert counts["conv4"].different and not counts["conv3"].different


def test_outputs_that_change_places_are_found(own):
    """Two neurons of the last map send to each other's axons: nothing else is wrong."""
    network, here, frames = own
    spikes, frames = check.random_spikes(network, command.RANDOM), frames.copy()
    last = reference.forward(network, spikes)["conv4"].reshape(len(spikes), -1)
    neurons, ram = here[-1][0].tile.neurons, fr.NEURON_RAM << 60 | here[-1][0].address << 40
    one, other = next((i, j) for i, j in itertools.combinations(range(100), 2)
                      if (last[:, neurons[i]] != last[:, neurons[j]]).any())
    start = int(np.flatnonzero(frames >> np.uint64(20) == ram >> 20)[0]) + 1
    rows = frames[start:start + 8 * 100].reshape(100, 2, 4)
    rows[[one, other], :, 3] = rows[[other, one], :, 3]
    assert {name: bool(count.different) for name, count in check.compare(network, here, frames, spikes).items()} == {
        "conv3": False, "conv4": False, "output": True}


def test_frames_that_are_cut_off(own):
    with pytest.raises(ValueError):
        Chip(own[2][:-1])


# the command


@pytest.fixture
def exported(own, tmp_path):
    path = tmp_path / "own.npz"
    spiking_file.write(path, own[0])
    return path


def test_the_command(own, exported, tmp_path, capsys):
    out = tmp_path / "out"
    for flags, what in (([], "10 inputs (random spikes)"), (["--check", "3", "--dataset", "digits"], "3 inputs (digits)")):
        command.main([str(exported), str(out), *flags])
        assert capsys.readouterr().out.startswith(what)
    network, here, frames = own
    content = (out / command.CONFIG).read_bytes()
    np.testing.assert_array_equal(np.frombuffer(content, "<u8"), frames)
    card = json.loads((out / command.CARD).read_text())
    assert card["frames_sha256"] == hashlib.sha256(content).hexdigest() and card["network_sha256"] == network.meta["sha256"]
    assert card["cores"] == sum(stage["cores"] for stage in card["stages"])
    assert card["cores"] == sum(block.size for layer in here for block in layer)
    assert card["cores"] >= len(Chip(frames).working)  # the last cores of a block may hold no neuron
    assert card["time_steps"] == 2 and card["checked"] == {"inputs": 3, "of": "digits"}


def test_the_files_say_where_spikes_go(own, exported, tmp_path):
    """What a host makes of them alone are the work frames of an image, and the outputs in order."""
    command.main([str(exported), str(tmp_path / "out")])
    network, here, frames = own
    spikes = check.random_spikes(network, 1)[0]
    info = json.loads((tmp_path / "out" / command.INPUT).read_text())
    work = []
    with np.load(str(tmp_path / "out" / command.NEURONS)) as neurons:
        for name, tile in info.items():
            for axon, spike in zip(tile["addr_axon"], spikes.ravel()[neurons[name]]):
                core, ex = (tile[f"addr_core_x{part}"] << 5 | tile[f"addr_core_y{part}"] for part in ("", "_ex"))
                work += [8 << 60 | core << 40 | ex << 30 | axon << 16 | 1] * spike
    np.testing.assert_array_equal(np.sort(check.input_frames(here[0], spikes)), np.sort(np.array(work, np.uint64)))
    nodes = json.loads((tmp_path / "out" / command.OUTPUT).read_text())
    places = [(at["addr_chip_x"], at["addr_core_x"] << 5 | at["addr_core_y"], axon)
              for node in nodes.values() for at in node.values() for axon in at["addr_axon"]]
    assert places == [(1, number // 1152, number % 1152) for number in range(OWN.features)]


def test_wrong_frames_are_not_written(exported, tmp_path, monkeypatch):
    configure = fr.configure
    for bit in (0, 62):  # of the weights; of the kind
        monkeypatch.setattr(fr, "configure", lambda *arguments: flip(*_first_weights(configure(*arguments)), bit))
        line = command_error(command.main, exported, tmp_path / "out")
        assert "frames are wrong" in line and not (tmp_path / "out").exists()


def _first_weights(frames):
    return frames, position(frames, fr.WEIGHT_RAM) + 1


def test_a_stop_half_way_leaves_no_card(exported, tmp_path, monkeypatch):
    """An earlier export's would vouch for files that are not its own."""
    command.main([str(exported), str(tmp_path)])

    def fail(*_):
        raise UserError("full")

    monkeypatch.setattr(command, "atomic_write", fail)
    assert command_error(command.main, exported, tmp_path) == "full"
    assert not (tmp_path / command.CARD).exists()
    monkeypatch.undo()
    command.main([str(exported), str(tmp_path)])
    assert (tmp_path / command.CARD).exists()


def test_flags_that_do_not_fit(exported, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / command.CONFIG).write_bytes(b"PAIBox's")
    for out in (exported, tmp_path / "other"):
        assert str(out) in command_error(command.main, exported, out)
    assert (tmp_path / "other" / command.CONFIG).read_bytes() == b"PAIBox's"
    assert "--check" in command_error(command.main, exported, tmp_path / "out", "--dataset", "digits")
