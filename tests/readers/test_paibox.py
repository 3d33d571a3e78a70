"""PAICORE's own tools confirm the frames of to-paicore: paicorelib makes the same frames from the same values, and PAIBox's
runtime reads the files. For a small network, PAIBox's simulator and its mapper's frames compute the same as the reference.

PAIBox is GPL-3: it is only called here, and no part of the product needs it. (Its mapper takes minutes for the whole network.)
"""
import contextlib
import io
import json

import numpy as np
import paibox as pb
import pytest
from paibox.components import Neuron
from paibox.runtime import PAIBoxRuntime
from paicorelib import NTM, Coord, NeuronAttrs, NeuronDestInfo, ParamsReg, ReplicationId
from paicorelib import (LCM, LDM, LIM, RM, SIM, InputWidthFormat, LCN_EX, MaxPoolingEnable, SNNModeEnable, SpikeWidthFormat,
                        WeightWidth)
from paicorelib.framelib import OfflineFrameGen

from conftest import Network
from twba_chip.paicore import check, command, frames as fr, placement, tiles
from twba_chip.paicore.tiles import Core
from twba_chip.paicore.chip_model import Chip
from twba_chip.spiking import file as spiking_file, reference
from twba_nets.network.architecture import Architecture, Row

IMAGES = 10
HOME, UNTOUCHED = Coord(0, 0), ReplicationId(0, 0)
SMALL = Architecture((Row("cnn0", "bn0", 1, 8, 3, 1, "SAME"), Row("cnn1", "bn1", 2, 8, 3, 1, "SAME"),
                      Row("cnn2", "bn2", 4, 8, 2, 2, "SAME"), Row("cnn3", "bn3", 2, 12, 2, 1, "VALID")), 6, 6, 1, 2, 1)
SMALL_CORE = Core(100, 64)  # small, so that stages have several tiles, and several tiles read some neurons


def coord(address):
    return Coord(*divmod(int(address), 32))


# the whole network


@pytest.fixture(scope="module")
def exported(network: Network, tmp_path_factory):
    """(the network's tiles on a chip, the folder that to-paicore writes)."""
    folder = tmp_path_factory.mktemp(network.name)
    command.main([network.name, str(folder)])
    hidden = network.exported.architecture.hidden
    return placement.place(hidden, tiles.cut(hidden, placement.CORE)), folder


def paicorelib_frames(network, here, number, block, address, part):
    """All frames of a core, by paicorelib."""
    stage = network.exported.architecture.hidden[number]
    weights, thresholds = (network.exported.arrays[f"{stage.conv}/{name}"] for name in ("weights", "thresholds"))
    neurons, readers = block.tile.neurons[part], block.tile.readers[part]
    at = HOME, coord(address), UNTOUCHED
    made = [OfflineFrameGen.gen_config_frame1(*at, 0).value, OfflineFrameGen.gen_config_frame2(*at, ParamsReg(
        name="core", weight_width=WeightWidth.WEIGHT_WIDTH_2BIT, lcn_extension=LCN_EX.LCN_1X,
        input_width_format=InputWidthFormat.WIDTH_1BIT, spike_width_format=SpikeWidthFormat.WIDTH_1BIT,
        num_dendrite=2 * len(neurons), max_pooling_en=MaxPoolingEnable.DISABLE, tick_wait_start=number + 1, tick_wait_end=0,
        snn_mode_en=SNNModeEnable.ENABLE, target_lcn=LCN_EX.LCN_1X, test_chip_addr=Coord(1, 0))).value]
    rows = []
    for neuron, reader in zip(neurons, readers):
        attributes = NeuronAttrs(
            reset_mode=RM.MODE_NORMAL, reset_v=0, leak_comparison=LCM.LEAK_BEFORE_COMP, threshold_mask_bits=0,
            neg_thres_mode=NTM.MODE_RESET, neg_threshold=0, pos_threshold=1, leak_direction=LDM.MODE_FORWARD,
            leak_integration_mode=LIM.MODE_DETERMINISTIC, synaptic_integration_mode=SIM.MODE_DETERMINISTIC, bit_truncation=8,
            leak_v=1 - int(thresholds[neuron % stage.output_channels]))
        chip, core, ex, axon = Coord(1, 0), Coord(0, 0), Coord(0, 0), int(neuron)
        if number + 1 < len(here):
            to = here[number + 1][reader]
            chip, core, ex, axon = HOME, coord(to.address), coord(to.open_bits), to.tile.axons.tolist().index(neuron)
        destination = NeuronDestInfo(addr_chip_x=chip.x, addr_chip_y=chip.y, addr_core_x=core.x, addr_core_y=core.y,
                                     addr_core_x_ex=ex.x, addr_core_y_ex=ex.y, tick_relative=[0], addr_axon=[axon])
        rows.append(OfflineFrameGen.gen_config_frame3(*at, 0, 1, attributes, destination, 2).packages)
    made += [[2 << 60 | int(address) << 40 | 8 * len(neurons)], *rows]
    matrix = tiles.crossbar(block.tile, stage, weights)[:, part]
    bits = np.zeros((len(neurons), 2, 1152), np.uint8)
    bits[..., :len(matrix)] = np.stack([matrix.T & 1, matrix.T >> 1 & 1], axis=1)
    packed = np.packbits(bits, axis=2, bitorder="little").view("<u8").reshape(-1, 18)
    made.append(OfflineFrameGen.gen_config_frame4(*at, 0, packed.size, packed).value)
    return np.concatenate([np.asarray(frames, np.uint64).ravel() for frames in made])


def test_paicorelib_makes_the_same_frames(network, exported):
    """For the first and the last core of every stage, bit for bit."""
    here, folder = exported
    frames = np.fromfile(folder / command.CONFIG, "<u8")
    cores = Chip(frames).working
    starts = {int(frames[at]) >> 40 & 0x3FF: at for at in seed_frames(frames)}
    for number, layer in enumerate(here):
        for block, (address, part) in ((layer[0], next(layer[0].cores())), (layer[-1], list(layer[-1].cores())[-1])):
            assert address in cores
            expected = paicorelib_frames(network, here, number, block, address, part)
            np.testing.assert_array_equal(frames[starts[address]:starts[address] + len(expected)], expected)


def seed_frames(frames):
    """The index of each core's first frame."""
    at = 0
    while at < len(frames):
        yield at
        at += 6
        while at < len(frames) and int(frames[at]) >> 60 > 1:
            at += 1 + (int(frames[at]) & 0x7FFFF)


def test_the_runtime_reads_the_files(network, exported):
    """PAIBox's runtime encodes the images' spikes, and decodes the chip's."""
    here, folder = exported
    images = network.maps["bn0"][:IMAGES].transpose(0, 2, 3, 1)
    places = json.loads((folder / command.INPUT).read_text())
    with np.load(folder / command.NEURONS) as archive:
        neurons = dict(archive)
    run = Chip(np.fromfile(folder / command.CONFIG, "<u8")).run([np.concatenate([
        OfflineFrameGen.gen_work_frame1(place, image.ravel()[neurons[name]]) for name, place in places.items()])
        for image in images] + [np.zeros(0, np.uint64)] * 7)
    destinations = PAIBoxRuntime.gen_output_frames_info(1, output_dest_info=json.loads((folder / command.OUTPUT).read_text()))
    spikes = np.array([np.concatenate(PAIBoxRuntime.decode(1, output, destinations, flatten=True)) for output in run.outputs[7:]])
    np.testing.assert_array_equal(spikes, network.maps["cnn11"][:IMAGES].reshape(IMAGES, -1))


# a small network, by PAIBox itself


class PaiNetwork(pb.Network):
    """The tiles as PAIBox's nodes. A node has the neurons of a tile that one later tile reads.

    layers: [stage] -> [(the node's neurons in the map, node)]. ports: [(the node's input neurons, node)].
    """

    def __init__(self, network, cut):
        super().__init__()
        self.ports, self.layers, self.parts, self.synapses = [], [], pb.NodeList(), pb.NodeList()
        hidden = network.architecture.hidden
        sources = []  # for each tile of this stage: [(neurons of the input map, node)]
        for tile in cut[0]:
            self.ports.append((tile.axons, pb.InputProj(input=None, shape_out=(len(tile.axons),))))
            sources.append(self.ports[-1:])
        self.parts.extend([port for _, port in self.ports])
        for number, (stage, layer) in enumerate(zip(hidden, cut)):
            weights, thresholds = (network.arrays[f"{stage.conv}/{name}"] for name in ("weights", "thresholds"))
            later = [[] for _ in cut[number + 1]] if number + 1 < len(cut) else [[]]
            self.layers.append([])
            for tile, seen in zip(layer, sources):
                matrix = tiles.crossbar(tile, stage, weights)
                for reader in np.unique(tile.readers):
                    here = np.flatnonzero(tile.readers == reader)
                    neurons = tile.neurons[here]
                    node = Neuron((len(here),), pos_threshold=1, reset_v=0, neg_thres_mode=NTM.MODE_RESET, neg_threshold=0,
                                  leak_v=1 - thresholds[neurons % stage.output_channels].astype(np.int32),
                                  tick_wait_start=number + 1)
                    self.parts.append(node)
                    self.layers[-1].append((neurons, node))
                    later[reader].append((neurons, node))
                    for axons, source in seen:
                        self.synapses.append(pb.FullConn(source, node, matrix[np.searchsorted(tile.axons, axons)][:, here],
                                                         conn_type=pb.SynConnType.All2All))
            sources = later


@pytest.fixture(scope="module", params=["twba", "bwba"])
def small(request):
    """(network, its tiles, their PAIBox network, input spikes)."""
    random, arrays = np.random.RandomState(0), {}
    for name, (dtype, shape) in spiking_file.array_types(SMALL).items():
        value = random.normal(size=shape)
        if name.endswith("/weights"):
            value = random.choice([-1, 0, 1] if request.param == "twba" else [-1, 1], shape)
        elif name.endswith("/thresholds"):
            value = random.randint(-2, 3, shape)
        arrays[name] = value.astype(dtype)
    network = spiking_file.describe(SMALL, arrays, request.param, {})
    cut = tiles.cut(SMALL.hidden, SMALL_CORE)
    assert min(map(len, cut)) > 1 and any(len(np.unique(tile.readers)) > 1 for tile in cut[0])
    return network, cut, PaiNetwork(network, cut), check.random_spikes(network, IMAGES)


def test_the_simulator_computes_what_the_reference_does(small):
    """With one image per time step, and no reset between them."""
    network, _, pai, spikes = small
    maps, simulator = reference.forward(network, spikes), pb.Simulator(pai)
    for step in range(IMAGES + len(SMALL.hidden) - 1):
        for axons, port in pai.ports:
            port.input = spikes[step % IMAGES].ravel()[axons].astype(np.uint8)
        simulator.run(1)
        for number, (stage, layer) in enumerate(zip(SMALL.hidden, pai.layers)):
            if 0 <= step - number < IMAGES:
                for neurons, node in layer:
                    np.testing.assert_array_equal(node.spike.ravel(), maps[stage.map][step - number].ravel()[neurons])


@pytest.fixture
def mapped(small, tmp_path):
    """The folder that PAIBox's mapper writes."""
    mapper = pb.Mapper()
    mapper.build(small[2])
    with contextlib.redirect_stdout(io.StringIO()):
        mapper.compile(weight_bit_optimization=True, grouping_optim_target="both")
    mapper.export(fp=tmp_path, format="bin")
    mapper.clear()
    return tmp_path


def test_the_mappers_frames_compute_the_same_on_our_model(small, mapped):
    network, cut, pai, spikes = small
    frames = np.fromfile(mapped / "config_all.bin", "<u8")
    chip, places = Chip(frames), json.loads((mapped / "input_proj_info.json").read_text())
    run = chip.run([np.concatenate([OfflineFrameGen.gen_work_frame1(places[port.name], image.ravel()[axons].astype(np.uint8))
                                    for axons, port in pai.ports]) for image in spikes] + [np.zeros(0, np.uint64)] * 2)
    destinations = json.loads((mapped / "output_dest_info.json").read_text())
    names = {node.name: neurons for neurons, node in pai.layers[-1]}
    found = np.zeros((IMAGES, SMALL.features), bool)
    infos = dict(zip(destinations, PAIBoxRuntime.gen_output_frames_info(1, output_dest_info=destinations)))
    for image, output in zip(found, run.outputs[2:]):
        for name, expected in infos.items():
            image[names[name]] = np.isin(expected, output & np.uint64(0xFFFFFFFFFFFFFF00))
    np.testing.assert_array_equal(found, reference.forward(network, spikes)["cnn3"].reshape(IMAGES, -1))
    # and its fields are ours, except addresses
    hidden = network.architecture.hidden
    ours = Chip(fr.configure(network, placement.place(hidden, cut)))
    assert fields(chip) == fields(ours)


def fields(chip):
    """The registers of a chip's working cores and its neurons' parameters, except those that depend on the placement."""
    found = set()
    for key in chip.working:
        core = chip.cores[key]
        found.add(tuple(sorted((name, value) for name, value in core.registers.items() if name != "dendrites")))
        parameters = [value.tolist() for name, value in core.parameters().items() if name not in ("core", "ex", "axon")]
        found.update(zip([core.registers["tick_wait_start"]] * core.neurons, *parameters))
    return found
