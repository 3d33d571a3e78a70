"""Measure a network's C on a Cortex-M in QEMU: bytes, instructions per image, and for a Cortex-M3 and M4 bounds of the cycles.

    .venv/bin/python tests/boards [NETWORK ...]

QEMU counts instructions, not cycles. The cycles are computed from the executed instructions and Arm's tables of their timings
(cycles.py), for memory without wait states. Arm has no such table of a Cortex-M7. It needs gcc, gcc-arm-none-eabi and
qemu-system-arm. The pictures are noise. For 20 test images of CIFAR-10 the numbers differ by less than 0.1 % where floats are
computed in hardware, and by 4 % at most on a Cortex-M3.
"""
import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

from boards import cycles, machines
from twba_chip.spiking import opening

PICTURES = 2


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", nargs="*", default=["twba", "bwba"], help="as twba-nets to-c takes it (default: twba bwba)")
    for name in parser.parse_args().network:
        network = opening.open_network(name)
        images = np.random.RandomState(0).randint(0, 256, (PICTURES,) + network.architecture.picture_shape).astype(np.uint8)
        for core in ("cortex-m3", "cortex-m4", "cortex-m7"):
            with tempfile.TemporaryDirectory() as folder:
                measure(name, core, network, images, Path(folder))


def measure(name, core, network, images, folder):
    machine = machines.MACHINES[core]
    program = machines.build(machine, network, folder, "count.c")
    subprocess.check_call([*machine.compiler, *machines.FLAGS, "-c", "net.c"], cwd=str(folder))
    _, line = subprocess.check_output(["arm-none-eabi-size", "net.o"], cwd=str(folder), universal_newlines=True).splitlines()
    text, data, bss = map(int, line.split()[:3])
    counts = cycles.executed(machine, program, images)
    instructions = sum(times for times, _ in counts.values())
    print(f"{name}, {core}: {text + data:,} bytes of flash, {data + bss:,} of RAM")
    print(f"    per image: {millions(instructions)} instructions")
    if core in cycles.CORES:
        least, most, kinds = cycles.cycles(core, program, counts)
        print(f"    per image: {millions(least)} to {millions(most)} cycles")
        print("    instructions: " + ", ".join(f"{kind} {number / instructions:.1%}" for kind, number in kinds.most_common()))


def millions(number):
    return f"{number / PICTURES / 1e6:,.1f} million"


if __name__ == "__main__":
    main()
