"""Measure a network's C on a Cortex-M in QEMU: bytes, and instructions per image. QEMU does not count cycles.

    .venv/bin/python tests/boards [NETWORK ...]

It needs gcc-arm-none-eabi and qemu-system-arm. The pictures are noise; for others the numbers differ by 1 % at most.
"""
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

from boards import machines
from twba_chip.spiking import opening

TICK = 40  # instructions: QEMU runs one per nanosecond (-icount shift=0), and the board's timer runs at 25 MHz
PICTURES = 2


def main(names):
    for name in names:
        network = opening.open_network(name)
        images = np.random.RandomState(0).randint(0, 256, (PICTURES,) + network.architecture.picture_shape).astype(np.uint8)
        for core in ("cortex-m3", "cortex-m4", "cortex-m7"):
            with tempfile.TemporaryDirectory() as folder:
                measure(f"{name}, {core}", machines.MACHINES[core], network, images, Path(folder))


def measure(title, machine, network, images, folder):
    program = machines.build(machine, network, folder, "count.c")
    subprocess.check_call([*machine.compiler, *machines.FLAGS, "-c", "net.c"], cwd=str(folder))
    _, line = subprocess.check_output(["arm-none-eabi-size", "net.o"], cwd=str(folder), universal_newlines=True).splitlines()
    text, data, bss = map(int, line.split()[:3])
    counting = machine._replace(run=[machine.run[0], "-icount", "shift=0", *machine.run[1:]])
    ticks = np.frombuffer(machines.run(counting, program, images), "<u4")
    millions = ticks.mean() * TICK / 1e6
    print(f"{title}: {text + data:,} bytes of flash, {data + bss:,} of RAM, {millions:,.1f} million instructions per image")


if __name__ == "__main__":
    main(sys.argv[1:] or ["twba", "bwba"])
