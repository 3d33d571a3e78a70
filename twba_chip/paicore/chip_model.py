"""A model of PAICORE 2.0's offline cores in NumPy. It reads only the frames that configure a chip, and runs them.

It supports what such a network needs (twba_chip/paicore/frames.py): one-bit inputs and outputs, two-bit weights, no extended
fan-in. A neuron fires from 1 on; then, and below 0, it is reset to 0, so a step leaves no potential. Other configurations raise
ValueError. A spike that leaves a core in one time step arrives in the next.
"""
from typing import Dict, Iterator, List, NamedTuple, Sequence, Tuple, Union

import numpy as np

from twba_chip.paicore import frames as fr
from twba_chip.paicore.placement import BITS, CORE

FIXED_REGISTERS = {"target_lcn": 0, "snn": 1, "tick_wait_end": 0, "max_pooling": 0, "spike_width": 0, "input_width": 0, "lcn": 0,
                   "weight_width": fr.WEIGHT_BITS - 1}
FIXED_PARAMETERS = {"voltage": 0, "stochastic_weights": 0, "stochastic_leak": 0, "leak_reversal": 0, "positive_threshold": 1,
                    "negative_threshold": 0, "negative_mode": 0, "threshold_mask": 0, "leak_after": 0, "reset_voltage": 0,
                    "reset_mode": 0, "tick": 0}
FIXED_INPUT = {"kind": fr.WORK, "chip": fr.CHIP, "tick": 0, "data": 1}
DENDRITES = CORE.neurons * fr.WEIGHT_BITS


class _Core:
    """A core's registers and RAMs, as the frames wrote them."""

    def __init__(self):
        self.registers: Dict[str, int] = {}
        self.rams = {fr.NEURON_RAM: np.zeros((DENDRITES, fr.NEURON_WORDS), np.uint64),
                     fr.WEIGHT_RAM: np.zeros((DENDRITES, fr.WEIGHT_WORDS), np.uint64)}

    @property
    def neurons(self) -> int:
        neurons, rest = divmod(self.registers["dendrites"], fr.WEIGHT_BITS)
        if rest or neurons > CORE.neurons:
            raise ValueError("a core's dendrites are not whole neurons, or more than it has")
        return neurons

    def parameters(self) -> Dict[str, np.ndarray]:
        """The neurons' parameters: name -> integers [n]. All dendrites of a neuron must agree."""
        rows = self.rams[fr.NEURON_RAM][:self.registers["dendrites"]].reshape(-1, fr.WEIGHT_BITS, fr.NEURON_WORDS)
        if (rows != rows[:, :1]).any():
            raise ValueError("the dendrites of a neuron differ in their parameters")
        fields = fr.unpack(rows[:, 0], fr.NEURON)
        _check(fields, FIXED_PARAMETERS)
        half = 1 << fr.NEURON["leak"][1] - 1  # it is signed
        return dict(fields, leak=(fields["leak"] ^ half) - half)

    def weights(self) -> np.ndarray:
        return fr.weights_of(self.rams[fr.WEIGHT_RAM][:self.registers["dendrites"]])


class Run(NamedTuple):
    """outputs: the work frames that leave the chip in each step. potentials: core -> float64 [steps, neurons], integers, before
    the reset. fired: core -> bool [steps, neurons].
    """
    outputs: List[np.ndarray]
    potentials: Dict[int, np.ndarray]
    fired: Dict[int, np.ndarray]


class Chip:
    """The chip that the frames, uint64 [n], configure. Raises ValueError for frames that this model does not support."""

    def __init__(self, frames: np.ndarray):
        self.cores: Dict[int, _Core] = {}
        for kind, address, content in _parts(frames):
            core = self.cores.setdefault(address, _Core())
            if kind == fr.CORE_REGISTERS:
                core.registers = fr.registers_of([int(frame) & (1 << fr.PAYLOAD) - 1 for frame in content])
            elif kind != fr.SEED:
                _store(core.rams[kind], content)
        self.working = sorted((key for key, core in self.cores.items() if core.registers and core.neurons),
                              key=lambda key: self.cores[key].registers["tick_wait_start"])
        for key in self.working:
            _check(self.cores[key].registers, FIXED_REGISTERS)

    def run(self, inputs: Sequence[np.ndarray]) -> Run:
        """inputs: for each step the work frames that arrive before it. Raises ValueError for a spike that no core expects."""
        seen = {key: np.zeros((len(inputs), CORE.axons), bool) for key in self.working}
        outputs, run = [[np.zeros(0, np.uint64)] for _ in inputs], Run([], {}, {})
        for step, frames in enumerate(inputs):
            fields = fr.unpack(frames[:, np.newaxis], fr.SPIKE)
            _check(fields, FIXED_INPUT)
            for key, here in self._reached(fields):
                seen[key][step, _axons(fields, here)] = True
        for key in self.working:
            core = self.cores[key]
            fields = core.parameters()
            works = np.arange(1, len(inputs) + 1) >= (core.registers["tick_wait_start"] or np.inf)  # 0: never
            run.potentials[key] = (seen.pop(key).astype(np.float32) @ core.weights().astype(np.float32)) + fields["leak"]  # exact
            run.fired[key] = works[:, np.newaxis] & (run.potentials[key] >= 1)
            inside = fields["chip"] == fr.CHIP
            for reader, here in self._reached(fields, inside):
                if reader not in seen:
                    raise ValueError("a spike goes to a core that works earlier")
                seen[reader][1:, _axons(fields, here)] |= run.fired[key][:-1, here]
            destinations = fr.Destinations(*(fields[name] for name in fr.Destinations._fields))
            for sent, fired in zip(outputs, run.fired[key] & ~inside):
                sent.append(fr.spikes(destinations.of(fired)))
        return run._replace(outputs=[np.concatenate(sent) for sent in outputs])

    def _reached(self, fields: Dict[str, np.ndarray], among: Union[bool, np.ndarray] = True) -> Iterator[Tuple[int, np.ndarray]]:
        """Pairs (working core, which of the spikes reach it)."""
        places = fields["ex"] << 2 * BITS | fields["core"]
        for place in np.unique(places[np.broadcast_to(among, places.shape)]).tolist():
            here = among & (places == place)
            for key in _multicast(*reversed(divmod(place, 1 << 2 * BITS))):
                if not getattr(self.cores.get(key), "registers", None):
                    raise ValueError(f"a spike goes to core ({key >> BITS}, {key % (1 << BITS)}), which is not configured")
                if self.cores[key].neurons:
                    yield key, here


def _parts(frames: np.ndarray) -> Iterator[Tuple[int, int, np.ndarray]]:
    """(kind, core, frames) of each part of a configuration."""
    at = 0
    while at < len(frames):
        first = int(frames[at])
        kind, ex = first >> 60, first >> 30 & 0x3FF
        if kind > fr.WEIGHT_RAM or first >> 50 & 0x3FF != fr.CHIP or ex:
            raise ValueError(f"frame {at} does not configure a core of this chip")
        length = 3 if kind < fr.NEURON_RAM else 1 + (first & 0x7FFFF)
        if at + length > len(frames):
            raise ValueError("the last frames are missing")
        content = frames[at:at + length]
        if kind < fr.NEURON_RAM and len(set(content >> np.uint64(fr.PAYLOAD))) > 1:
            raise ValueError(f"frames {at} to {at + 2} belong to several cores")
        yield kind, first >> 40 & 0x3FF, content
        at += length


def _store(ram: np.ndarray, content: np.ndarray) -> None:
    start, rows = int(content[0]) >> 20 & 0x3FF, content[1:].reshape(-1, ram.shape[1])
    if start + len(rows) > len(ram):
        raise ValueError("a core's RAM has no such address")
    ram[start:start + len(rows)] = rows


def _check(fields: dict, expected: Dict[str, int]) -> None:
    for name, value in expected.items():
        if np.any(fields[name] != value):
            raise ValueError(f"this model supports no {name} other than {value}")


def _multicast(core: int, ex: int) -> List[int]:
    """The cores whose addresses differ from this one's only in the bits of ex."""
    cores = [core & ~ex]
    for bit in range(2 * BITS):
        if ex >> bit & 1:
            cores += [other | 1 << bit for other in cores]
    return cores


def _axons(fields: Dict[str, np.ndarray], here: np.ndarray) -> np.ndarray:
    axons = fields["axon"][here]
    if np.any(axons >= CORE.axons) or len(np.unique(axons)) < len(axons):
        raise ValueError("several spikes go to one axon of a core, or to an axon that it does not have")
    return axons
