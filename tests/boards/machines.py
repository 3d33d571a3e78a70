"""Machines, emulated ones too, that run a network's C: how they compile it, and what they make of pictures."""
import shutil
import subprocess
from pathlib import Path
from typing import List, NamedTuple

import numpy as np

from twba_chip.formats import web_page
from twba_chip.spiking import reference
from twba_chip.spiking.file import SpikingNetwork

HERE = Path(__file__).parent
FLAGS = ["-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-pedantic"]
SURE = 1e-4  # an input spike of a lower potential depends on how the sums are rounded


class Machine(NamedTuple):
    """compiler: its command. board: the file of this folder that gives input and output. run: what runs the program."""
    compiler: List[str]
    board: str
    run: List[str] = []
    libraries: List[str] = []


def cortex_m(cpu: str, board: str) -> Machine:
    """Bare metal. A core of floating-point hardware uses it. gcc must not take a loop for memset, which is the C library's."""
    return Machine(["arm-none-eabi-gcc", f"-mcpu={cpu}", "-mthumb", "-mfloat-abi=" + ("soft" if cpu == "cortex-m3" else "hard"),
                    "-fno-tree-loop-distribute-patterns", "-nostdlib", "-T", str(HERE / "cortex_m.ld")], "cortex_m.c",
                   ["qemu-system-arm", "-M", board, "-display", "none", "-monitor", "none", "-serial", "null",
                    "-semihosting-config", "enable=on,target=native", "-kernel"], ["-lgcc"])


HOST = Machine(["gcc"], "host.c")
MACHINES = {
    "cortex-m3": cortex_m("cortex-m3", "mps2-an385"),
    "cortex-m4": cortex_m("cortex-m4", "mps2-an386"),
    "cortex-m7": cortex_m("cortex-m7", "mps2-an500"),
    "riscv64": Machine(["clang", "--target=riscv64", "-march=rv64gc", "-mabi=lp64d", "-fno-builtin", "-nostdlib", "-static",
                        "-fuse-ld=lld"], "riscv64.c", ["qemu-riscv64"]),
}


def missing(machine: Machine) -> List[str]:
    """Which of its programs are not installed."""
    linker = ["ld.lld"] * ("-fuse-ld=lld" in machine.compiler)
    return [name for name in [machine.compiler[0], *machine.run[:1], *linker] if not shutil.which(name)]


def build(machine: Machine, network: SpikingNetwork, folder: Path, program: str = "main.c") -> Path:
    """Compile a program of this folder that runs a network."""
    web_page.write_sources(folder, "net", network)
    subprocess.check_call([*machine.compiler, *FLAGS, "-I.", str(HERE / program), str(HERE / machine.board), "-o", "program",
                           *machine.libraries], cwd=str(folder))
    return folder / "program"


def run(machine: Machine, program: Path, images: np.ndarray) -> bytes:
    """What a program writes of pictures uint8 [N, S, S, C]."""
    done = subprocess.run([*machine.run, str(program)], input=images.tobytes(), stdout=subprocess.PIPE, check=True, timeout=600)
    return done.stdout


def records(network: SpikingNetwork, written: bytes) -> np.ndarray:
    """What main.c writes of each picture: its maps uint8 [H, W, C] by their names, its logits float32 [classes], its class."""
    stages = (network.architecture.encoder, *network.architecture.hidden)
    maps = [(stage.map, np.uint8, stage.map_shape) for stage in stages]
    return np.frombuffer(written, np.dtype(maps + [("logits", "<f4", (network.architecture.classes,)), ("class", "<i4")]))


def assert_as_the_reference(network: SpikingNetwork, images: np.ndarray, written: bytes) -> None:
    """Whether what main.c writes are the reference's spikes, logits and classes.

    Where rounding decides over an input spike it may be either; what follows has to fit the spike that was taken.
    """
    architecture, found = network.architecture, records(network, written)
    assert len(found) == len(images)
    potentials = reference.input_potentials(network, reference.central_crop(images, architecture))
    encoded, sure = found[architecture.encoder.map], np.abs(potentials) > SURE
    np.testing.assert_array_equal(encoded[sure], (potentials >= 0)[sure])
    hidden = reference.forward(network, encoded)
    for stage in architecture.hidden:
        np.testing.assert_array_equal(found[stage.map], hidden[stage.map], stage.map)
    logits = reference.classify(network, hidden[architecture.stages[-1].map])
    np.testing.assert_allclose(found["logits"], logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(found["class"], found["logits"].argmax(1))
