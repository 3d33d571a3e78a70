"""A network's C on microcontrollers and on RISC-V, emulated: every spike is the NumPy reference's. Bounds of a program's cycles.

Outside continuous integration a test is skipped if its compiler or emulator is missing.
"""
import subprocess

import numpy as np
import pytest

from boards import cycles, machines
from helpers import RANDOM, SEEDS, random_architecture, random_network
from twba_chip.spiking.opening import open_network
from twba_nets.datasets import cifar10

# how many of CIFAR-10's test images run where: emulators take their time, the most where floats are computed in software
RUNS = [("x86-64", "twba", 100), ("x86-64", "bwba", 100), ("cortex-m4", "twba", 100), ("cortex-m4", "bwba", 100),
        ("riscv64", "twba", 100), ("riscv64", "bwba", 20), ("cortex-m3", "twba", 5), ("cortex-m3", "bwba", 5)]


def machine(name):
    found = machines.HOST if name == "x86-64" else machines.MACHINES[name]
    missing = machines.missing(found)
    if missing:
        pytest.skip(f"{' and '.join(missing)}: not installed")
    return found


def assert_as_the_reference(name, network, images, folder):
    written = machines.run(machine(name), machines.build(machine(name), network, folder), images)
    machines.assert_as_the_reference(network, images, written)


@pytest.mark.slow
@pytest.mark.parametrize("name, variant, number", RUNS)
def test_the_released_networks(name, variant, number, cifar10_dir, tmp_path):
    assert_as_the_reference(name, open_network(variant), cifar10.load(cifar10_dir).x_test[:number], tmp_path)


@pytest.mark.parametrize("seed, variant", [(seed, variant) for seed, (variant, _) in zip(SEEDS, RANDOM)])
@pytest.mark.parametrize("name", machines.MACHINES)
def test_another_network(name, seed, variant, tmp_path):
    network = random_network(variant, architecture=random_architecture(seed))
    images = np.random.RandomState(seed).randint(0, 256, (5,) + network.architecture.picture_shape).astype(np.uint8)
    assert_as_the_reference(name, network, images, tmp_path)


# assembly, how many instructions run, and the least and the most cycles by hand. r4: a free address. A taken branch takes 2 to 4
BOTH = {
    "loads": ("ldr r0, [r4]; nop; ldr r1, [r4]; ldrb r2, [r4, #4]", 4, (2 + 1 + 2 + 1, 2 + 1 + 2 + 2)),
    "an address just computed": ("add r5, r4, #4; ldr r0, [r5]", 2, (1 + 2, 1 + 3)),
    "an address written back": ("ldr r0, [r4], #4; ldr r0, [r4]", 2, (2 + 1, 2 + 3)),
    "a constant in the code": ("ldr r0, =0x12345678", 1, (2, 3)),
    "stores": ("str r0, [r4]; nop; strd r0, r1, [r4]; nop; stmia r4!, {r0-r3}", 5, (1 + 1 + 3 + 1 + 5, 2 + 1 + 3 + 1 + 5)),
    "the stack": ("push {r0, r1, lr}; nop; pop {r0, r1, r2}", 3, (4 + 1 + 4, 4 + 1 + 4)),
    "a division": ("mul r0, r1, r2; udiv r0, r1, r2", 2, (1 + 2, 1 + 12)),
    "a loop": ("movs r0, #3; 1: subs r0, #1; bne 1b", 7, (1 + 3 + 2 + 2 + 1, 1 + 3 + 4 + 4 + 1)),
    "a branch over one short instruction": ("cmp r0, r0; bne 1f; beq 1f; movs r1, #1; 1: nop", 4, (1 + 1 + 2 + 1, 1 + 1 + 4 + 1)),
    "lower or same": ("cmp r0, r0; bls 1f; nop; nop; 1:", 2, (1 + 2, 1 + 4)),
    "conditions": ("cmp r0, r0; ite eq; moveq r1, #1; ldrne r2, [r4]", 4, (1 + 0 + 1 + 1, 1 + 1 + 1 + 2)),
    "a call": ("bl 1f; b 2f; 1: push {lr}; nop; pop {pc}; 2:", 5, (2 + 2 + 1 + 3 + 2, 4 + 2 + 1 + 5 + 4)),
}
MULTIPLICATIONS = "mla r0, r1, r2, r3; umull r0, r1, r2, r3; smlal r0, r1, r2, r3"
KNOWN = {
    "cortex-m3": {**BOTH, "multiplications": (MULTIPLICATIONS, 3, (2 + 3 + 4, 2 + 5 + 7))},
    "cortex-m4": {
        **BOTH,
        "multiplications": (MULTIPLICATIONS, 3, (3, 3)),
        "floats": ("vldr s0, [r4]; vmul.f32 s1, s0, s0; vadd.f32 s2, s1, s0; vmla.f32 s3, s0, s0", 4, (7, 2 + 2 + 1 + 3)),
        "floats and it": ("cmp r0, r0; vmul.f32 s1, s0, s0; it eq; vaddeq.f32 s2, s1, s0", 4, (1 + 1 + 0 + 1, 1 + 2 + 1 + 1)),
        "a float division": ("vdiv.f32 s0, s1, s1; vadd.f32 s0, s0, s1; nop", 3, (1 + 1 + 1, 15 + 1 + 1)),
        "a double": ("vldr d0, [r4]; nop; vstr d0, [r4]", 3, (3 + 1 + 2, 3 + 1 + 3)),
        "floats on the stack": ("vpush {s16-s19}; nop; vpop {d8, d9}", 3, (5 + 1 + 5, 5 + 1 + 5)),
    },
}
FRAME = """
    .syntax unified
    .section .vectors, "a"
    .word stack_end, reset
    .text
    .thumb_func
reset:
    ldr r0, =0xe000ed88  @ turn on the floating-point unit
    mov r1, #0xf00000
    str r1, [r0]
    dsb
    isb
    ldr r4, =0x20000000
    bl ticks
    BODY
    bl ticks
    movs r0, #0x18
    ldr r1, =0x20026
    bkpt 0xab
    .global reset
    .thumb_func
ticks:
    bx lr
"""  # besides BODY, the first return and the second call of ticks count: two taken branches


def count_known(core, body, folder):
    machine("x86-64")  # its compiler makes the plugin
    (folder / "known.s").write_text(FRAME.replace("BODY", body))
    subprocess.check_call([*machine(core).compiler, "known.s", "-o", "program"], cwd=str(folder))
    counts = cycles.executed(machine(core), folder / "program", np.zeros(0, np.uint8))
    return sum(times for times, _ in counts.values()) - 2, cycles.cycles(core, folder / "program", counts)


@pytest.mark.parametrize("core, name", [(core, name) for core in KNOWN for name in KNOWN[core]])
def test_cycles_worked_out_by_hand(core, name, tmp_path):
    body, instructions, bounds = KNOWN[core][name]
    number, (least, most, kinds) = count_known(core, body, tmp_path)
    assert (number, (least - 4, most - 8)) == (instructions, bounds)
    assert sum(kinds.values()) == number + 2


def test_kinds_of_instructions(tmp_path):
    body = "movs r0, #3; 1: ldr r1, [r4]; vmul.f32 s1, s0, s0; mul r1, r0, r0; subs r0, #1; bne 1b; sdiv r1, r0, r0; str r1, [r4]"
    _, (_, _, kinds) = count_known("cortex-m4", body, tmp_path)
    assert kinds == {"load": 3, "float": 3, "multiply": 3, "taken branch": 2 + 2, "divide": 1, "store": 1, "rest": 1 + 3 + 1}


def test_an_instruction_without_a_timing_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="mrs"):
        count_known("cortex-m4", "mrs r0, apsr", tmp_path)
    with pytest.raises(ValueError, match="vadd.*cortex-m3"):
        cycles.timing("cortex-m3", cycles.parse("vadd.f32", "s0, s0, s0"), cycles.NOTHING, cycles.NOTHING)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("core", ["cortex-m3", "cortex-m4", "cortex-m7"])
def test_as_many_instructions_as_the_emulator_counts(core, seed, tmp_path):
    """With -icount shift=0 an instruction takes a nanosecond, and the board's timer runs at 25 MHz: a tick is 40 instructions."""
    machine("x86-64")  # its compiler makes the plugin
    network = random_network("twba", architecture=random_architecture(seed))
    images = np.random.RandomState(0).randint(0, 256, (3,) + network.architecture.picture_shape).astype(np.uint8)
    program, (qemu, *options) = machines.build(machine(core), network, tmp_path, "count.c"), machine(core).run
    counting = machine(core)._replace(run=[qemu, "-icount", "shift=0", *options])
    ticks = np.frombuffer(machines.run(counting, program, images), "<u4")
    counts = cycles.executed(machine(core), program, images)
    instructions = sum(times for times, _ in counts.values())
    assert abs(instructions - 40 * int(ticks.sum())) < 40 * len(images)
    if core in cycles.CORES:
        least, most, _ = cycles.cycles(core, program, counts)
        assert 0.9 < least / instructions < most / instructions < 2
