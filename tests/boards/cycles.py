"""Bound a program's cycles on a Cortex-M3 or M4: the instructions that it executes in QEMU, by Arm's tables of their timings.

A plugin of QEMU, executed.c, counts the instructions. The tables hold for memory without wait states and for aligned addresses:

- Cortex-M3 Technical Reference Manual r2p1 (DDI 0337I): the table of instructions (3-1), "Load/store timings";
- Cortex-M4 Technical Reference Manual r0p1 (100166): the tables of processor, DSP and FPU instructions, "Load/store timings".

Where they give a range, or a condition that the program's text does not settle, least and most differ. The Cortex-M7 issues two
instructions at once, and Arm publishes no table of it.
"""
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Dict, NamedTuple, Tuple

import numpy as np

from boards import machines

CORES = "cortex-m3", "cortex-m4"
TIMINGS = [  # kind, cycles (least, most) on each core, mnemonics. Each word of a list of registers takes one more
    ("rest", (1, 1), (1, 1), "adc add addw adr and asr bfc bfi bic clz cmn cmp eor lsl lsr mov movt movw mvn neg nop orn orr "
                             "rbit rev rev16 revsh ror rrx rsb sbc sbfx ssat sub subw sxtb sxth teq tst ubfx usat uxtb uxth"),
    ("rest", None, (1, 1), "pkhbt pkhtb sxtab sxtah uxtab uxtah"),
    ("rest", (0, 1), (0, 1), "it"),  # 0: folded onto the instruction before it
    ("taken branch", (1, 1), (1, 1), "b bl blx bx cbz cbnz"),
    ("taken branch", (2, 3), (2, 3), "tbb tbh"),
    ("load", (2, 2), (2, 2), "ldr ldrb ldrh ldrsb ldrsh"),
    ("load", (3, 3), (3, 3), "ldrd"),
    ("load", (1, 1), (1, 1), "ldm ldmia ldmdb pop"),
    ("store", (1, 2), (1, 2), "str strb strh"),
    ("store", (3, 3), (3, 3), "strd"),
    ("store", (1, 1), (1, 1), "stm stmia stmdb push"),
    ("multiply", (1, 1), (1, 1), "mul"),
    ("multiply", (2, 2), (1, 1), "mla mls"),
    ("multiply", (3, 5), (1, 1), "smull umull"),
    ("multiply", (4, 7), (1, 1), "smlal umlal"),
    ("multiply", None, (1, 1), "smlabb smlabt smlatb smlatt smmul smulbb smulbt smultb smultt umaal"),
    ("divide", (2, 12), (2, 12), "sdiv udiv"),
    ("load", None, (2, 2), "vldr"),
    ("load", None, (1, 1), "vldm vldmia vldmdb vpop"),
    ("store", None, (1, 2), "vstr"),
    ("store", None, (1, 1), "vstm vstmia vstmdb vpush"),
    ("float", None, (1, 1), "vabs vadd vcmp vcmpe vcvt vmrs vmsr vmul vneg vnmul vsub"),
    ("float", None, (1, 2), "vmov"),  # 2: some moves from and to the core's registers
    ("float", None, (3, 3), "vfma vfms vfnma vfnms vmla vmls vnmla vnmls"),
    ("float", None, (1, 14), "vdiv vsqrt"),  # 1: the integer instructions that follow do not wait for it
]
TABLE = {name: (kind, dict(zip(CORES, cycles))) for kind, *cycles, names in TIMINGS for name in names.split()}
REFILL = 1, 3  # what a taken branch adds: P of the tables
SINGLE = {"ldr", "ldrb", "ldrh", "ldrsb", "ldrsh", "vldr", "str", "strb", "strh", "vstr"}
ARITHMETIC = set("vadd vcvt vdiv vfma vfms vfnma vfnms vmla vmls vmul vnmla vnmls vnmul vsqrt vsub".split())

LINE = re.compile(r"^ *([0-9a-f]+):\t([\w.]+)(?:\t([^\t\n]*))?", re.MULTILINE)
MNEMONIC = re.compile(f"({'|'.join(TABLE)})s?(eq|ne|cs|cc|mi|pl|vs|vc|hi|ls|ge|lt|gt|le)?")
REGISTER = re.compile(r"\b(?:[rsd]\d+|sl|fp|ip|sp|lr|pc)\b")


class Instruction(NamedTuple):
    """name: the mnemonic in TABLE. conditional: a branch, or in an IT block. operands: as objdump writes them."""
    name: str
    conditional: bool
    operands: str


NOTHING = Instruction("nop", False, "")


class Cycles(NamedTuple):
    """Bounds, and how many instructions of each kind ran. A branch that is not taken is one of the rest."""
    least: int
    most: int
    kinds: Dict[str, int]


def executed(machine: machines.Machine, program: Path, images: np.ndarray) -> Dict[int, Tuple[int, int]]:
    """What a program executes between two calls of ticks(), for pictures uint8 [N, S, S, C].

    Gives for each instruction's address how often it ran, and how often it was not the next in memory that followed.
    """
    version = subprocess.check_output([machine.run[0], "--version"], universal_newlines=True)
    interface = 1 if int(re.search(r"\d+", version)[0]) < 9 else 2  # the version of the plugins' interface
    plugin, log = program.with_name("executed.so"), program.with_name("executed.log")
    subprocess.check_call([*machines.HOST.compiler, *machines.FLAGS, "-shared", "-fPIC", f"-DINTERFACE={interface}",
                           str(machines.HERE / "executed.c"), "-o", str(plugin)])
    ticks = int(re.search(r"^(\w+) <ticks>:$", objdump(program), re.MULTILINE)[1], 16)
    counting = ["-plugin", f"{plugin},ticks={ticks}", "-d", "plugin", "-D", str(log)]
    machines.run(machine._replace(run=[machine.run[0], *counting, *machine.run[1:]]), program, images)
    return {address: (times, jumps) for address, times, jumps in np.loadtxt(str(log), np.int64, ndmin=2).tolist()}


def objdump(program: Path) -> str:
    return subprocess.check_output(["arm-none-eabi-objdump", "-d", "--no-show-raw-insn", str(program)], universal_newlines=True)


def cycles(core: str, program: Path, counts: Dict[int, Tuple[int, int]]) -> Cycles:
    """Bound the cycles, on one of CORES, of what `executed` counted in a program. ValueError: TIMINGS lacks an instruction."""
    text = {int(address, 16): line for address, *line in LINE.findall(objdump(program))}
    ran = [(parse(*text[address]), *counts[address]) for address in sorted(counts)]
    ran.sort(key=lambda each: each[0].name != "it")  # first, so that they do not come between neighbours
    instructions = [NOTHING, *[instruction for instruction, _, _ in ran], NOTHING]
    least, most, kinds = 0, 0, Counter()
    for (instruction, times, jumps), before, after in zip(ran, instructions, instructions[2:]):
        fewest, greatest = timing(core, instruction, before, after)
        least += times * fewest + jumps * REFILL[0]
        most += times * greatest + jumps * REFILL[1]
        kind = TABLE[instruction.name][0]
        not_taken = times - jumps if kind == "taken branch" else 0
        kinds[kind] += times - not_taken
        kinds["rest"] += not_taken
    return Cycles(least, most, kinds)


def parse(mnemonic: str, operands: str) -> Instruction:
    found = MNEMONIC.fullmatch(re.sub("^it[te]+$", "it", mnemonic.split(".")[0]))
    if not found:
        raise ValueError(f"{mnemonic}: TIMINGS lacks it")
    return Instruction(found[1], bool(found[2]), operands)


def timing(core: str, instruction: Instruction, before: Instruction, after: Instruction) -> Tuple[int, int]:
    """The least and the most cycles of an instruction between two others, without a taken branch's refill."""
    name, conditional, operands = instruction
    kind, cores = TABLE[name]
    if cores[core] is None:
        raise ValueError(f"{name}: TIMINGS has no {core}'s")
    least, most = (bound + words(instruction) for bound in cores[core])
    if kind in ("load", "store"):
        most += delays(operands, before)
    if kind == "load" and {name, before.name} <= SINGLE:
        least -= 1  # pipelined with its neighbour
    if name in ARITHMETIC:
        most += operands.split(",")[0] in REGISTER.findall(after.operands)  # the next instruction waits for the result
    return min(least, 1) if conditional else least, most  # 1: if the condition fails


def words(instruction: Instruction) -> int:
    """The words that a list of registers adds; also, a double's second word."""
    listed = re.search("{(.*)}", instruction.operands)
    if not listed:
        return int(instruction.name in SINGLE and instruction.operands.startswith("d"))
    number = 0
    for each in listed[1].split(", "):
        first, *last = each.split("-")  # s16-s19
        number += int(last[0][1:]) - int(first[1:]) + 1 if last else 1
    return number * (2 if listed[1].startswith("d") else 1)


def delays(operands: str, before: Instruction) -> int:
    """The most cycles that a load or store waits: one if the instruction before may change its address, one in the code."""
    address = operands[operands.index("["):] if "[" in operands else "sp " + operands.split("{")[0]
    changed = re.sub(r"\[[^]]*\]$", "", before.operands)  # [an address] is only read, but [one]! and [one], #4 change it
    registers = set(REGISTER.findall(address))
    return bool(registers & set(REGISTER.findall(changed))) + ("pc" in registers)
