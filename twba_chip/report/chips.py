"""Neuromorphic chips by their published figures, and whether a network's hidden stages fit one chip of each kind.

A chip is judged by its known figures. A sentence names each one that is exceeded; without any, the network fits by these counts.

- Fan-in: all inputs of a neuron are axons of one core. A neuron with more inputs than axons must be split into partial sums
  (cores.py), which are integers, while a core sends spikes.
- Weights are -1, 0 and 1 and take two bits. A one-bit synapse is present or absent, so a weight takes two of them: one whose axon
  adds, one whose axon subtracts. An input then takes two axons.
- Cores: PAICORE's are those that twba-nets to-paicore uses (twba_chip/paicore), a placement with all copies of neurons. The
  others' are an estimate by the rule of cores.py, without copies.
- Neurons and synapses of the whole chip, if its cores are not known. Each neuron has its own synapses: kernels are not shared.
- Speck's layers: each takes a stage, whose weights and neurons must fit into its two memories. It has no groups: their zeros
  are weights, too. The sizes of maps and kernels are limited. sinabs rounds memories up to powers of two, which is neglected.

Only PAICORE's placement was run, on a model of the chip. Whether the others compute the same is not known.
"""
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from twba_chip.paicore import placement, tiles
from twba_chip.report import cores as crossbars, energy
from twba_nets.network.architecture import Stage
from twba_nets.system.errors import UserError

WEIGHT_BITS = 2
CROSSBAR = crossbars.Core(256, 256)  # the core that many papers assume


class Limits(NamedTuple):
    """What a layer takes at most: sides of its two maps and its kernel, channels of either map, padding. And its strides."""
    input_size: int
    output_size: int
    kernel: int
    channels: int
    padding: int
    strides: Tuple[int, ...]


class Chip(NamedTuple):
    """A chip. None: not published, or not found.

    axons, neurons: per core. cores: of the chip. weight_bits: per synapse, at most. picojoule_per_sop: the published energy
    of a synaptic operation, which each chip measures in its own way. core_weights: that a core stores, if it shares kernels.
    all_neurons, all_synapses: of the chip. layers: (weights, neurons) that each holds, if a core is a layer. limits: of each
    layer's stage.
    """
    title: str
    axons: Optional[int] = None
    neurons: Optional[int] = None
    cores: Optional[int] = None
    weight_bits: Optional[int] = None
    picojoule_per_sop: Optional[float] = None
    source: str = ""
    core_weights: Optional[int] = None
    all_neurons: Optional[int] = None
    all_synapses: Optional[int] = None
    layers: Tuple[Tuple[int, int], ...] = ()
    limits: Optional["Limits"] = None

    @property
    def synapses_per_weight(self) -> int:
        return 2 if self.weight_bits == 1 else 1

    @property
    def core(self) -> Optional[crossbars.Core]:
        """A core in units of whole weights; None if it is not known."""
        if not self.axons or not self.neurons:
            return None
        return crossbars.Core(self.axons // self.synapses_per_weight, self.neurons, self.core_weights)


PAICORE = Chip(
    "PAICORE 2.0", *placement.CORE[:2], placement.OFFLINE_CORES, weight_bits=8, picojoule_per_sop=0.193,
    source="cores, axons, weights of 1 to 8 bits: paicorelib 1.4.1 (256 neurons of two-bit weights); energy: 5.181 TSOPS/W, "
    "Zhong et al., IEEE JSSC 2025")
CHIPS = {
    "generic": Chip("generic crossbar", *CROSSBAR[:2], source="no chip: a core as many papers assume it"),
    "paicore": PAICORE,
    "pku-nc64c": Chip(
        "PKU-NC64C", weight_bits=1, picojoule_per_sop=2.64, all_neurons=1 << 16, all_synapses=1 << 26,
        source="64K neurons, 64M synapses of one bit; energy: at 0.89 V, 24 MHz; Kuang et al., IEEE TCAS-II 2021. Not found: a "
        "core's axons and neurons"),
    "truenorth": Chip(
        "TrueNorth", 256, 256, 4096, weight_bits=1, picojoule_per_sop=26.0,
        source="Merolla et al., Science 2014: binary synapses, a weight for each type of axon; energy of a synaptic event"),
    "loihi": Chip(
        "Loihi", 4096, 1024, 128, weight_bits=9, picojoule_per_sop=23.6, core_weights=(1 << 20) // WEIGHT_BITS,
        source="cores, weights of 1 to 9 bits, energy (the least): Davies et al., IEEE Micro 2018; axons, 128 KiB of synapses "
        "per core: nengo-loihi"),
    "loihi2": Chip(
        "Loihi 2", cores=128, weight_bits=8, all_neurons=1000000, all_synapses=120000000,
        source="Intel's technology brief, 2021: 128 cores, 1 million neurons, 120 million synapses; weights: Lava. Not found: a "
        "core's axons and neurons, energy"),
    "speck": Chip(
        "Speck", cores=9, weight_bits=8, layers=tuple((weights << 10, neurons << 10) for weights, neurons in (
            (16, 64), (16, 64), (16, 64), (32, 32), (32, 32), (64, 16), (64, 16), (16, 16), (16, 16))),
        limits=Limits(input_size=128, output_size=64, kernel=16, channels=1024, padding=7, strides=(1, 2, 4, 8)),
        source="nine layers, their memories and limits: SynSense's documentation of sinabs. Asynchronous: no time steps. Not "
        "found: energy")}


class Fit(NamedTuple):
    """How a network fits on a chip.

    why: a sentence for each exceeded figure. stages: for each hidden stage `cores` and `parts`, or all of cores.Placement's
    fields; {} if the core is not known. time_steps: per image; None if partial sums or an asynchronous chip leave it open.
    copies: for each stage the chip's copies of a neuron at each position, int [H, W]; None: one each.
    """
    why: List[str]
    stages: List[Dict[str, Any]]
    cores: Optional[int]
    time_steps: Optional[int]
    copies: Optional[List[np.ndarray]] = None


def fit(chip: Chip, hidden: Sequence[Stage]) -> Fit:
    """How the hidden stages fit on a chip."""
    if chip.layers:
        return Fit(_beyond_layers(chip, hidden), [{} for _ in hidden], len(hidden), None)
    too_wide = _beyond_axons(chip, hidden)
    if chip is PAICORE and not too_wide:
        return _fit_paicore(hidden)
    stages, needed = _count(chip.core, hidden)
    why = too_wide + _beyond_totals(chip, hidden) + _exceeded(("cores", needed, chip.cores))
    return Fit(why, stages, needed, None if too_wide else len(hidden))


def row(name: str, chip: Chip, found: Fit, sops: float) -> dict:
    """A chip's row for JSON. sops: per image, including copied neurons'.

    placed: whether `cores`, the number needed, counts to-paicore's tiles with copies; else it is an estimate. microjoule: energy
    per image by the published figure; null if there is none. arithmetic_microjoule: the same SOPs as int32 additions.
    """
    published = chip.picojoule_per_sop
    arithmetic = sops * energy.PICOJOULE_PER_SOP / 1e6
    return {"chip": name, "title": chip.title, "axons": chip.axons, "neurons": chip.neurons, "chip_cores": chip.cores,
            "weight_bits": chip.weight_bits, "fits": not found.why, "why": found.why, "cores": found.cores,
            "placed": found.copies is not None, "time_steps": found.time_steps, "sops": sops, "picojoule_per_sop": published,
            "microjoule": None if published is None else sops * published / 1e6, "arithmetic_microjoule": arithmetic,
            "source": chip.source}


def _count(core: Optional[crossbars.Core], hidden: Sequence[Stage]) -> Tuple[List[Dict[str, Any]], Optional[int]]:
    """Fit.stages and Fit.cores by the rule of cores.py. None: the core is not known, or too small for one channel of a kernel."""
    if not core or max(stage.kernel ** 2 for stage in hidden) > core.axons:
        return [{} for _ in hidden], None
    stages: List[Dict[str, Any]] = [crossbars.place(stage, core)._asdict() for stage in hidden]
    return stages, sum(stage["cores"] for stage in stages)


def _fit_paicore(hidden: Sequence[Stage]) -> Fit:
    layers, why = tiles.cut(hidden, placement.CORE), []
    try:
        placement.place(hidden, layers)
    except UserError as error:
        why.append(str(error))
    stages: List[Dict[str, Any]] = [{"cores": tiles.cores(layer, placement.CORE), "parts": 1} for layer in layers]
    copies = []
    for stage, layer in zip(hidden, layers):
        neurons = np.concatenate([tile.neurons for tile in layer])
        held = np.bincount(neurons, minlength=int(np.prod(stage.map_shape))).reshape(stage.map_shape)
        copies.append(held[..., 0])  # the copies are the same in all channels
    return Fit(why, stages, sum(stage["cores"] for stage in stages), len(hidden), copies)


def _beyond_axons(chip: Chip, hidden: Sequence[Stage]) -> List[str]:
    widest, each = max(hidden, key=lambda stage: stage.fan_in), chip.synapses_per_weight
    if not chip.axons or widest.fan_in * each <= chip.axons:
        return []
    two = " (two per input, since a synapse has one bit)" if each > 1 else ""
    return [f"a neuron of {widest.conv} takes {widest.fan_in * each:,} axons{two}, and a core has {chip.axons:,}: it would need "
            "partial sums"]


def _beyond_totals(chip: Chip, hidden: Sequence[Stage]) -> List[str]:
    neurons = sum(int(np.prod(stage.map_shape)) for stage in hidden)
    synapses = chip.synapses_per_weight * sum(int(np.prod(stage.map_shape)) * stage.fan_in for stage in hidden)
    return _exceeded(("neurons", neurons, chip.all_neurons), ("synapses", synapses, chip.all_synapses))


def _beyond_layers(chip: Chip, hidden: Sequence[Stage]) -> List[str]:
    needed = [(stage.channels * stage.kernel ** 2 * stage.output_channels, int(np.prod(stage.map_shape))) for stage in hidden]
    (weights, neurons), (most_weights, most_neurons) = (map(sum, zip(*pairs)) for pairs in (needed, chip.layers))
    why = _exceeded(("stages", len(hidden), len(chip.layers)), ("weights", weights, most_weights),
                    ("neurons", neurons, most_neurons))
    if chip.limits:
        why += [sentence for stage in hidden for sentence in _beyond_limits(chip.limits, stage)]
    return why or ([] if _find_layers(needed, chip.layers) else ["the stages do not find a layer with room each"])


def _beyond_limits(limits: Limits, stage: Stage) -> List[str]:
    """A sentence for each limit that a stage exceeds."""
    found = (("inputs of side {:,}", stage.size, limits.input_size), ("maps of side {:,}", stage.output_size, limits.output_size),
             ("kernels of side {:,}", stage.kernel, limits.kernel), ("margins of {:,}", stage.margin, limits.padding),
             ("{:,} channels", max(stage.channels, stage.output_channels), limits.channels))
    why = [f"{stage.conv} has {what.format(needed)}, and a layer at most {most:,}"
           for what, needed, most in found if needed > most]
    if stage.stride not in limits.strides:
        why.append(f"{stage.conv} has stride {stage.stride}, and a layer's is one of {', '.join(map(str, limits.strides))}")
    return why


def _find_layers(needed: Sequence[Tuple[int, int]], layers: Tuple[Tuple[int, int], ...]) -> bool:
    """Whether each (weights, neurons) fits into a separate layer."""
    if not needed:
        return True
    (weights, neurons), rest = needed[0], needed[1:]
    for layer in set(layers):
        if weights <= layer[0] and neurons <= layer[1]:
            at = layers.index(layer)
            if _find_layers(rest, layers[:at] + layers[at + 1:]):
                return True
    return False


def _exceeded(*counts: Tuple[str, Optional[int], Optional[int]]) -> List[str]:
    """A sentence for each (what, number needed, number available) that is known and exceeded."""
    return [f"takes {needed:,} {what}, and a chip has {there:,}" for what, needed, there in counts
            if needed and there and needed > there]
