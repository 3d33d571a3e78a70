"""A model of PAICORE 2.0's offline cores in NumPy: it reads the frames that configure a chip, and nothing else, and runs them.

It knows what such a network needs (twba_chip/paicore/frames.py): inputs and outputs of one bit, weights of two, no extended
fan-in, neurons that fire from 1 on and then, or below 0, are reset to 0: so no potential but 0 is kept. A chip that is
configured otherwise raises ValueError. A spike that leaves a core in one time step arrives in the next.
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
    """What the frames wrote into a core."""

    def __init__(self):
        self.registers: Dict[str, int] = {}
        self.rams = {fr.NEURON_RAM: np.zeros((DENDRITES, fr.NEURON_WORDS), np.uint64),
                     fr.WEIGHT_RAM: np.zeros((DENDRITES, fr.WEIGHT_WORDS), np.uint64)}

    @property
    def neurons(self) -> int:
        neurons, rest = divmod(self.registers["dendrites"], fr.WEIGHT_BITS)
        if rest or neurons > CORE.neurons:
            raise ValueError("a core's dendrites are no whole neurons, or more than it has")
        return neurons

    def parameters(self) -> Dict[str, np.ndarray]:
        """Of its neurons, integers [n]; of those of several dendrites all must say the same."""
        rows = self.rams[fr.NEURON_RAM][:self.registers["dendrites"]].reshape(-1, fr.WEIGHT_BITS, fr.NEURON_WORDS)
        if (rows != rows[:, :1]).any():
            raise ValueError("the dendrites of a neuron have other parameters")
        fields = fr.unpack(rows[:, 0], fr.NEURON)
        _check(fields, FIXED_PARAMETERS)
        half = 1 << fr.NEURON["leak"][1] - 1  # it is signed
        return dict(fields, leak=(fields["leak"] ^ half) - half)

    def weights(self) -> np.ndarray:
        return fr.weights_of(self.rams[fr.WEIGHT_RAM][:self.registers["dendrites"]])


class Run(NamedTuple):
    """outputs: of each step the work frames that leave the chip. potentials, fired: core -> [steps, neurons], the potentials
    before a reset, integers as float64, and whether they fired.
    """
    outputs: List[np.ndarray]
    potentials: Dict[int, np.ndarray]
    fired: Dict[int, np.ndarray]


class Chip:
    """A chip that these frames, uint64 [n], configure."""

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
        """inputs: of each step the work frames that arrive before it. Raises ValueError for a spike that no core awaits."""
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
        """(working core, which of the spikes reach it)."""
        places = fields["ex"] << 2 * BITS | fields["core"]
        for place in np.unique(places[np.broadcast_to(among, places.shape)]).tolist():
            here = among & (places == place)
            for key in _multicast(*reversed(divmod(place, 1 << 2 * BITS))):
                if not getattr(self.cores.get(key), "registers", None):
                    raise ValueError(f"a spike goes to core ({key >> BITS}, {key % (1 << BITS)}), which is not configured")
                if self.cores[key].neurons:
                    yield key, here


def _parts(frames: np.ndarray) -> Iterator[Tuple[int, int, np.ndarray]]:
    """(kind, core, its frames) of each piece of a configuration."""
    at = 0
    while at < len(frames):
        first = int(frames[at])
        kind, ex = first >> 60, first >> 30 & 0x3FF
        if kind > fr.WEIGHT_RAM or first >> 50 & 0x3FF != fr.CHIP or ex:
            raise ValueError(f"frame {at} configures no core of this chip")
        length = 3 if kind < fr.NEURON_RAM else 1 + (first & 0x7FFFF)
        if at + length > len(frames):
            raise ValueError("the last frames are missing")
        content = frames[at:at + length]
        if kind < fr.NEURON_RAM and len(set(content >> np.uint64(fr.PAYLOAD))) > 1:
            raise ValueError(f"frames {at} to {at + 2} are of several cores")
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
            raise ValueError(f"this model knows no other {name} than {value}")


def _multicast(core: int, ex: int) -> List[int]:
    """The cores whose addresses are this one's but for the bits in ex."""
    cores = [core & ~ex]
    for bit in range(2 * BITS):
        if ex >> bit & 1:
            cores += [other | 1 << bit for other in cores]
    return cores


def _axons(fields: Dict[str, np.ndarray], here: np.ndarray) -> np.ndarray:
    axons = fields["axon"][here]
    if np.any(axons >= CORE.axons) or len(np.unique(axons)) < len(axons):
        raise ValueError("spikes meet on one axon of a core, or go beyond its axons")
    return axons
