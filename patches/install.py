#!/usr/bin/env python
"""Install this project's binary.py into TensorLayer 1.11.0, check it, or revert it.

    python patches/install.py            copy binary.py to tensorlayer/layers/, make tensorlayer.layers export it
    python patches/install.py --check    exit 0 if exactly this patch is installed, else print a reason and exit 1
    python patches/install.py --revert   restore TensorLayer's own files

Running it twice changes nothing. It accepts only TensorLayer 1.11.0 with the published layers/__init__.py,
and never overwrites a binary.py of another origin.
"""
import argparse
import hashlib
import importlib.util
import os
import re
import sys
from pathlib import Path

try:
    from importlib import metadata
except ImportError:  # Python 3.7
    import importlib_metadata as metadata

VERSION = "1.11.0"
# tensorlayer/layers/__init__.py as published
STOCK_SHA256 = "41483dc32ea3c76cb5db7cb2257f405d7d891d562c860f2c5dc6f295540eb3b0"
EXPORT = "from .binary import *  # TWBA-Nets patch, sha256 of binary.py: %s\n"
EXPORT_PATTERN = re.compile(re.escape(EXPORT).replace("%s", "([0-9a-f]{64})"))
SOURCE = Path(__file__).resolve().with_name("binary.py")


class Refusal(Exception):
    """The installed TensorLayer does not fit this patch."""


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def write_atomically(path, data):
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")  # two installations may run at once
    temporary.write_bytes(data)
    os.replace(str(temporary), str(path))


def find_layers():
    """The folder tensorlayer/layers of this Python, without importing TensorFlow. Raises Refusal if there is none."""
    try:
        version = metadata.version("tensorlayer")
    except metadata.PackageNotFoundError:
        raise Refusal(f"TensorLayer is not installed for {sys.executable}: remove .venv, then run `make setup`")
    if version != VERSION:
        raise Refusal(f"TensorLayer {version} is installed, but this patch is for {VERSION}: remove .venv, then run `make setup`")
    return Path(importlib.util.find_spec("tensorlayer").origin).parent / "layers"


def inspect(layers):
    """The installed state: (bytes of TensorLayer's own __init__.py, digest of our installed binary.py or None).

    Raises Refusal if a file is not as expected.
    """
    init, installed = layers / "__init__.py", layers / "binary.py"
    text = init.read_bytes().decode("utf-8")
    match = EXPORT_PATTERN.search(text)
    stock = EXPORT_PATTERN.sub("", text).encode("utf-8")
    if sha256(stock) != STOCK_SHA256:
        raise Refusal(f"{init} is not the one of TensorLayer {VERSION}: remove .venv, then run `make setup`")
    if not match:
        # a binary.py without the export line is from our interrupted install or revert, or of another origin
        title = SOURCE.read_bytes().splitlines()[0]
        if installed.exists() and not installed.read_bytes().startswith(title):
            raise Refusal(f"{installed} does not belong to this project: move it away first")
        return stock, None
    if not installed.exists() or sha256(installed.read_bytes()) != match.group(1):
        raise Refusal(f"{installed} was changed after it was installed: remove .venv, then run `make setup`")
    return stock, match.group(1)


def install(layers):
    stock, digest = inspect(layers)
    source = SOURCE.read_bytes()
    if digest == sha256(source):
        return f"TensorLayer {VERSION} is patched already: {layers / 'binary.py'}"
    # without the export line binary.py has no effect, so an interruption between the writes is harmless
    write_atomically(layers / "__init__.py", stock)
    write_atomically(layers / "binary.py", source)
    write_atomically(layers / "__init__.py", stock + (EXPORT % sha256(source)).encode("utf-8"))
    return "TensorLayer {} patched: {}".format(VERSION, layers / "binary.py")


def check(layers):
    _, digest = inspect(layers)
    if digest is None:
        raise Refusal(f"TensorLayer {VERSION} is not patched: run python patches/install.py")
    if digest != sha256(SOURCE.read_bytes()):
        raise Refusal("another version of the patch is installed: run python patches/install.py")
    return f"TensorLayer {VERSION} is patched with this binary.py (sha256 {digest})"


def revert(layers):
    stock, _ = inspect(layers)
    write_atomically(layers / "__init__.py", stock)
    if (layers / "binary.py").exists():
        (layers / "binary.py").unlink()
    return f"TensorLayer {VERSION} restored"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--check", dest="action", action="store_const", const=check, default=install)
    group.add_argument("--revert", dest="action", action="store_const", const=revert)
    try:
        print(parser.parse_args().action(find_layers()))
    except (Refusal, OSError) as error:
        sys.exit(f"patches/install.py: {error}")


if __name__ == "__main__":
    main()
