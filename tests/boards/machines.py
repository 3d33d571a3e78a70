"""Machines, also emulated ones, that run a network's C: how to compile and run it, and how to check the results."""
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
SURE = 1e-4  # below this absolute potential an input spike depends on rounding


class Machine(NamedTuple):
    """compiler: its command. board: the file of this folder for input and output. run: the command that runs the program."""
    compiler: List[str]
    board: str
    run: List[str] = []
    libraries: List[str] = []


def cortex_m(cpu: str, board: str) -> Machine:
    """Bare metal. Floating-point hardware is used if present. gcc must not replace loops by memset, which needs a C library."""
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
    """The machine's programs that are not installed."""
    linker = ["ld.lld"] * ("-fuse-ld=lld" in machine.compiler)
    return [name for name in [machine.compiler[0], *machine.run[:1], *linker] if not shutil.which(name)]


def build(machine: Machine, network: SpikingNetwork, folder: Path, program: str = "main.c") -> Path:
    """Compile a program of this folder with a network. Returns its path."""
    web_page.write_sources(folder, "net", network)
    subprocess.check_call([*machine.compiler, *FLAGS, "-I.", str(HERE / program), str(HERE / machine.board), "-o", "program",
                           *machine.libraries], cwd=str(folder))
    return folder / "program"


def run(machine: Machine, program: Path, images: np.ndarray) -> bytes:
    """A program's output for pictures uint8 [N, S, S, C]."""
    done = subprocess.run([*machine.run, str(program)], input=images.tobytes(), stdout=subprocess.PIPE, check=True, timeout=600)
    return done.stdout


def records(network: SpikingNetwork, written: bytes) -> np.ndarray:
    """main.c's output for each picture: maps uint8 [H, W, C] by their names, "logits" float32 [classes], "class" int32."""
    stages = (network.architecture.encoder, *network.architecture.hidden)
    maps = [(stage.map, np.uint8, stage.map_shape) for stage in stages]
    return np.frombuffer(written, np.dtype(maps + [("logits", "<f4", (network.architecture.classes,)), ("class", "<i4")]))


def assert_as_the_reference(network: SpikingNetwork, images: np.ndarray, written: bytes) -> None:
    """Assert that main.c's spikes, logits and classes are the reference's.

    If an input spike depends on rounding, both values are allowed; all that follows must match the value that it took.
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
