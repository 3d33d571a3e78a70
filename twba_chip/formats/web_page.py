"""Write a page that classifies a dropped picture in the browser: python -m twba_chip.formats.web_page NETWORK OUT.html

The page is one file and needs no server. It contains the network as WebAssembly, compiled from c_source's C. web_page.html is
the template. The style is the report's.
"""
from twba_nets.system import interrupts

if __name__ == "__main__":
    interrupts.exit_at_once()  # the imports below take a second

import argparse
import base64
import json
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Sequence

import twba_nets
from twba_chip.formats import c_source
from twba_chip.spiking import opening
from twba_chip.spiking.file import SpikingNetwork
from twba_nets import command_line
from twba_nets.system import places
from twba_nets.system.errors import UserError, compiler_message
from twba_nets.system.files import atomic_write, make_folder

NAME = "network"  # of the C function: the page calls network_classify
HERE = Path(__file__).parent
STYLE = HERE.parent / "report" / "page.css"
BEGINNING = "<!DOCTYPE html>\n<!-- Written by twba-nets to-page"
# freestanding 32-bit WebAssembly: no library, no main; the browser sees these four exports and the memory
FLAGS = ["--target=wasm32-freestanding", "-std=c99", "-O2", "-fno-builtin", "-nostdlib", "-Wl,--no-entry",
         *(f"-Wl,--export={name}" for name in (f"{NAME}_classify", "image", "logits", "maps"))]
COMPILERS = "install clang and lld, or install ziglang by pip and add --compiler 'python -m ziglang cc'"


def main(argv: Sequence[str] = None) -> None:
    parser = argparse.ArgumentParser(
        prog="twba-nets to-page",
        description="Write a page, one HTML file, that classifies a dropped picture in the browser and shows the spikes of each "
        "map. It contains the network as WebAssembly and needs no server. clang and lld compile it; other compilers may work.")
    command_line.add_network(parser)
    parser.add_argument("out", type=command_line.path, help="the file to write, such as twba.html")
    parser.add_argument("--compiler", default="clang", metavar="COMMAND",
                        help="a C compiler for wasm32-freestanding that takes clang's flags, such as 'python -m ziglang cc' "
                        "(default: clang)")
    args = parser.parse_args(argv)
    with interrupts.one_line_for_mistakes("stopped"):
        _export(args.network, args.out, args.compiler)


def _export(source: Path, out: Path, compiler: str) -> None:
    command_line.check_out(out, places.model(source))
    command_line.check_kind(out, BEGINNING.encode())
    network = opening.open_network(source)
    channels = network.architecture.channels
    if channels not in (1, 3):
        raise UserError(f"{source}: its pictures have {channels} channels, but the page supports only three, or one of grey: "
                        "write it as C (to-c)")
    c_source.check_pictures(source, network)
    text = render(network, compile_wasm(network, compiler))
    make_folder(out.parent)
    with atomic_write(out, "w") as file:
        file.write(text)
    print(f"{out}: {out.stat().st_size / 1e6:.2f} MB: open it in a browser")


def render(network: SpikingNetwork, wasm: bytes) -> str:
    """The page's HTML. wasm: compile_wasm's result."""
    architecture = network.architecture
    facts = {"variant": network.variant.upper(), "sha256": network.meta["sha256"], "version": twba_nets.__version__,
             "size": architecture.picture_size, "crop": architecture.image_size, "channels": architecture.channels,
             "classes": opening.about(network).class_names,
             "maps": [{"name": stage.map, "size": stage.output_size, "channels": stage.output_channels}
                      for stage in (architecture.encoder, *architecture.hidden)],
             "wasm": base64.b64encode(wasm).decode("ascii")}
    in_script = json.dumps(facts).replace("<", "\\u003c")  # a name may be </script>
    page = (HERE / "web_page.html").read_text(encoding="utf-8").replace("/* STYLE */", STYLE.read_text(encoding="utf-8"))
    return f"{BEGINNING} -->\n{page.replace('/* NETWORK */', in_script)}"


def compile_wasm(network: SpikingNetwork, compiler: str) -> bytes:
    """The network as WebAssembly: network_classify, and the arrays of maps.c. Raises UserError if it cannot be compiled."""
    with tempfile.TemporaryDirectory() as folder:
        write_sources(Path(folder), NAME, network)
        try:
            done = subprocess.run([*shlex.split(compiler), *FLAGS, "maps.c", "-o", "maps.wasm"], cwd=folder,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True, errors="replace")
        except (OSError, ValueError):
            raise UserError(f"{compiler}: no such compiler: {COMPILERS}")
        wasm = Path(folder, "maps.wasm")
        if done.returncode or not wasm.is_file():
            raise UserError(f"{compiler}: cannot compile WebAssembly ({compiler_message(done.stdout)}): {COMPILERS}")
        return wasm.read_bytes()


def write_sources(folder: Path, name: str, network: SpikingNetwork) -> None:
    """Write maps.c, which exposes the spikes, and the files that it includes."""
    maps = (HERE / "maps.c").read_text(encoding="utf-8").replace("NAME", name)
    texts = {f"{name}.c": c_source.program(name, network), f"{name}.h": c_source.header(name, network), "maps.c": maps}
    for file, text in texts.items():
        (folder / file).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
