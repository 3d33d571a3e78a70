"""Write an exported network as C99, for a microcontroller: python -m twba_chip.formats.c_source NETWORK OUT.c

It also writes OUT.h, and OUT_test.c, which classifies one picture. The code needs no library and allocates nothing. A weight
takes two bits, or one if weights are binary. Hidden stages are integers; the float convolutions and the classifier are float32.
network.c is the forward pass; this module writes the tables that it reads.
"""
from twba_nets.system import interrupts

if __name__ == "__main__":
    interrupts.exit_at_once()  # the imports below take a second

import argparse
import re
from pathlib import Path
from typing import Dict, Iterable, List, Sequence

import numpy as np

from twba_chip.spiking import reference
from twba_chip.spiking.file import SpikingNetwork
from twba_chip.spiking.opening import open_network
from twba_nets import command_line
from twba_nets.network.architecture import OUTPUT, Stage
from twba_nets.network.quantisers import WEIGHTS
from twba_nets.system import places
from twba_nets.system.errors import UserError
from twba_nets.system.files import atomic_write, make_folder

FORWARD = Path(__file__).with_name("network.c")
BEGINNING = "/* Written by twba-nets to-c"
A_LINE = 12  # numbers per line
PICTURES = 64  # noise pictures from which the test chooses
MOST_VALUES = 1 << 24  # of a crop: times 255, their sum fits into 32 bits
STRUCTS = """
typedef struct {
    int size, channels, filters, kernel, stride, margin, output_size;
    int first_row;               /* offset in float_rows of the rows that it reads */
    const float *weights;        /* [row][column][channel][filter] */
    const float *scale, *offset; /* [filter] */
} FloatStage;

typedef struct {
    int size, groups;                                 /* of the map that it reads */
    int words;                                        /* per position of that map and group */
    int filters, kernel, stride, margin, output_size; /* filters: of one group */
    const uint32_t *weights;                          /* [group][filter][row][column][word]: 1; unless BINARY then [...]: -1 */
    const int16_t *thresholds;                        /* [group][filter] */
} HiddenStage;
"""


def main(argv: Sequence[str] = None) -> None:
    parser = argparse.ArgumentParser(
        prog="twba-nets to-c",
        description="Write an exported network as C99 that needs no library and allocates nothing: OUT.c, OUT.h, and OUT_test.c, "
        "a program that classifies one picture and checks the logits. OUT_classify(image, logits) takes uint8 "
        "[row][column][channel] and returns the class. A weight takes two bits, or one if weights are binary. Hidden stages are "
        "integers, the rest is float. docs/chip.md has sizes and times.")
    command_line.add_network(parser)
    parser.add_argument("out", type=command_line.path, help="the file to write, such as twba.c; it names the function")
    args = parser.parse_args(argv)
    with interrupts.one_line_for_mistakes("stopped"):
        _export(args.network, args.out)


def _export(source: Path, out: Path) -> None:
    if not re.match(r"[A-Za-z][A-Za-z0-9_]*\.c\Z", out.name):
        raise UserError(f"{out}: does not name a C function: use letters, digits and _, and .c at the end")
    command_line.check_out(out, places.model(source))
    names = [out, out.with_suffix(".h"), out.with_name(f"{out.stem}_test.c")]
    for path in names:
        command_line.check_kind(path, BEGINNING.encode())
    network = open_network(source)
    check_pictures(source, network)
    make_folder(out.parent)
    texts = [program(out.stem, network), header(out.stem, network), check_program(out.stem, network)]
    for path, text in zip(names, texts):
        with atomic_write(path, "w") as file:
            file.write(f"{BEGINNING}: {network.variant.upper()}, sha256 {network.meta['sha256']} */\n{text}")
    constant, working = sizes(network)
    print(f"{out}: {constant / 1e6:.2f} MB of constants, {working / 1e3:.0f} KB of working memory")


def header(name: str, network: SpikingNetwork) -> str:
    """The text of the .h file."""
    architecture = network.architecture
    pixels = " * ".join(map(str, architecture.picture_shape))
    return f"""#ifndef {name.upper()}_H
#define {name.upper()}_H
#include <stdint.h>

/* image: [row][column][channel]. logits: [class]. Returns the class of the largest logit. Working memory is static: one call at a
   time. */
int {name}_classify(const uint8_t image[{pixels}], float logits[{architecture.classes}]);
#endif
"""


def check_pictures(source: Path, network: SpikingNetwork) -> None:
    """Raise UserError, naming the source, if the C's 32 bits are too few for the pictures."""
    if network.architecture.image_size ** 2 * network.architecture.channels > MOST_VALUES:
        raise UserError(f"{source}: its crops have more than {MOST_VALUES:,} values, whose sum the C's 32 bits may not hold: "
                        "train a network for smaller ones")


def program(name: str, network: SpikingNetwork) -> str:
    """The text of the .c file."""
    numbers = [f"    {key} = {value}," for key, value in _numbers(network).items()]
    lines = [f'#include "{name}.h"', "", "enum {", *numbers, "};", STRUCTS]
    lines += _float_tables(network) + _hidden_tables(network) + _affine_tables(network, "classifier", OUTPUT)
    return "\n".join(lines) + FORWARD.read_text(encoding="utf-8").replace("NAME", name)


def _numbers(network: SpikingNetwork) -> Dict[str, int]:
    architecture = network.architecture
    floats, hidden, last = architecture.stages[:architecture.float_stages], architecture.hidden, architecture.hidden[-1]
    return {
        "IMAGE": architecture.picture_size, "CROP": architecture.image_size, "CHANNELS": architecture.channels,
        "CLASSES": architecture.classes, "FLOAT_STAGES": len(floats), "HIDDEN_STAGES": len(hidden),
        "BINARY": int(_is_binary(network)), "LAST_CHANNELS": last.output_channels,
        "FLOAT_ROWS": sum(_kept(stage) for stage in floats),
        "SPIKE_WORDS": max([_map_words(stage) for stage in hidden] + [last.output_size ** 2 * _words(last.output_channels)]),
        "SEEN_WORDS": max(stage.kernel ** 2 * _words(stage.channels // stage.groups) for stage in hidden)}


def _float_tables(network: SpikingNetwork) -> List[str]:
    lines, rows, first = [], [], 0
    for stage in network.architecture.stages[:network.architecture.float_stages]:
        lines += _affine_tables(network, stage.conv, stage.conv)
        rows.append(_row(stage.size, stage.channels, stage.filters, stage.kernel, stage.stride, stage.margin, stage.output_size,
                         first, *(f"{stage.conv}_{part}" for part in ("weights", "scale", "offset"))))
        first += _kept(stage)
    return lines + ["static const FloatStage float_stages[FLOAT_STAGES] = {", *rows, "};", ""]


def _hidden_tables(network: SpikingNetwork) -> List[str]:
    lines, rows, last = [], [], network.architecture.hidden[-1]
    for stage in network.architecture.hidden:
        lines += _array("uint32_t", f"{stage.conv}_weights", (f"{value:#x}" for value in _bits(network, stage).ravel()))
        lines += _array("int16_t", f"{stage.conv}_thresholds", map(str, network.arrays[f"{stage.conv}/thresholds"]))
        rows.append(_row(stage.size, stage.groups, _words(stage.channels // stage.groups), stage.filters, stage.kernel,
                         stage.stride, stage.margin, stage.output_size, f"{stage.conv}_weights", f"{stage.conv}_thresholds"))
    # the classifier reads the last map as one group
    rows.append(_row(last.output_size, 1, _words(last.output_channels), 0, 0, 0, 0, 0, 0, 0))
    return lines + ["static const HiddenStage hidden_stages[HIDDEN_STAGES + 1] = {", *rows, "};", ""]


def _affine_tables(network: SpikingNetwork, name: str, arrays: str) -> List[str]:
    """Weights, scale and offset of a float layer."""
    return [line for part, called in (("kernel", "weights"), ("scale", "scale"), ("offset", "offset"))
            for line in _array("float", f"{name}_{called}", map(_float, network.arrays[f"{arrays}/{part}"].ravel()))]


def check_program(name: str, network: SpikingNetwork) -> str:
    """The text of a program that classifies one picture and compares its logits with the NumPy reference's."""
    image = surest_picture(network)
    spikes = reference.encode(network, reference.central_crop(image[None], network.architecture))
    maps = reference.forward(network, spikes)
    logits, = reference.classify(network, maps[network.architecture.stages[-1].map])
    tables = _array("uint8_t", "image", map(str, image.ravel())) + _array("float", "expected", map(_float, logits))
    return f"""#include "{name}.h"
#include <stdio.h>

""" + "\n".join(tables) + f"""
int main(void) {{
    float logits[{len(logits)}];
    int wrong = {name}_classify(image, logits) != {int(logits.argmax())};
    for (int k = 0; k < {len(logits)}; k++) {{
        float error = logits[k] - expected[k];
        printf("class %d: %f, expected %f\\n", k, (double)logits[k], (double)expected[k]);
        wrong += !(error < 1e-3f && error > -1e-3f);
    }}
    printf(wrong ? "wrong\\n" : "right\\n");
    return wrong != 0;
}}
"""


def surest_picture(network: SpikingNetwork) -> np.ndarray:
    """The noise picture, uint8 [S, S, C], whose input spikes depend least on rounding."""
    def distance(picture: np.ndarray) -> float:
        return np.abs(reference.input_potentials(network, reference.central_crop(picture[None], network.architecture))).min()

    random = np.random.RandomState(0)  # one at a time, since pictures and float maps may be large
    pictures = (random.randint(0, 256, network.architecture.picture_shape).astype(np.uint8) for _ in range(PICTURES))
    return max(pictures, key=distance)


def sizes(network: SpikingNetwork) -> tuple:
    """Bytes of constants, and of working memory without the stack, which takes a few hundred bytes."""
    numbers = _numbers(network)
    constant = sum(4 * _bits(network, stage).size + 2 * stage.output_channels for stage in network.architecture.hidden)
    constant += sum(array.nbytes for array in network.arrays.values() if array.dtype == np.float32)
    return constant, 4 * (numbers["FLOAT_ROWS"] + 2 * numbers["SPIKE_WORDS"] + numbers["SEEN_WORDS"])


def _is_binary(network: SpikingNetwork) -> bool:
    return 0 not in WEIGHTS[network.variant].levels


def _kept(stage: Stage) -> int:
    """Floats in the rows that a float stage reads at a time."""
    return stage.kernel * stage.size * stage.channels


def _words(channels: int) -> int:
    return -(-channels // 32)


def _map_words(stage: Stage) -> int:
    """Words in the map that a hidden stage reads."""
    return stage.size ** 2 * stage.groups * _words(stage.channels // stage.groups)


def _bits(network: SpikingNetwork, stage: Stage) -> np.ndarray:
    """A stage's weights, uint32 [O, parts * k * k * words]: a part for 1 and, unless they are binary, one for -1."""
    weights = network.arrays[f"{stage.conv}/weights"]
    parts = [weights > 0] if _is_binary(network) else [weights > 0, weights < 0]
    return np.concatenate([_pack(part.transpose(3, 0, 1, 2)).reshape(stage.output_channels, -1) for part in parts], axis=1)


def _pack(bits: np.ndarray) -> np.ndarray:
    """bool [..., n] -> uint32 [..., words], the lowest bit first; zeros pad the last word."""
    padding = [(0, 0)] * (bits.ndim - 1) + [(0, -bits.shape[-1] % 32)]
    bits = np.pad(bits, padding, mode="constant").reshape(bits.shape[:-1] + (-1, 32))
    return (bits.astype(np.uint32) << np.arange(32, dtype=np.uint32)).sum(-1, dtype=np.uint32)


def _float(value: float) -> str:
    text = f"{value:.9g}"
    return text + ("f" if re.search(r"[.e]", text) else ".0f")


def _row(*values: object) -> str:
    return f"    {{{', '.join(map(str, values))}}},"


def _array(kind: str, name: str, values: Iterable[str]) -> List[str]:
    texts = list(values)
    lines = ["    " + ", ".join(texts[start:start + A_LINE]) + "," for start in range(0, len(texts), A_LINE)]
    return [f"static const {kind} {name}[{len(texts)}] = {{", *lines, "};", ""]


if __name__ == "__main__":
    main()
