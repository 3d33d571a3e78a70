"""Paths of data, runs, networks and released models, in a checkout or an installed package."""
from pathlib import Path
from typing import Union

_PACKAGE = Path(__file__).resolve().parents[1]
# a wheel holds the released models, and the tables of networks, inside the package
IS_CHECKOUT = not (_PACKAGE / "released").is_dir()
# the folder of data/ and runs/: the checkout, or the current directory
HOME = _PACKAGE.parent if IS_CHECKOUT else Path()
_RELEASED = _PACKAGE.parent if IS_CHECKOUT else _PACKAGE / "released"
NETWORKS = (_PACKAGE.parent if IS_CHECKOUT else _PACKAGE) / "networks"  # tables of networks, in TOML
RELEASED = {"twba": "TWBA", "bwba": "BWBA", "twba-paper": "TWBA/paper", "twba-published": "TWBA/published",
            "bwba-published": "BWBA/published"}
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"  # of PyTorch, without CUDA's libraries


def released(name: str) -> Path:
    """The folder of a released model, one of RELEASED."""
    return _RELEASED / RELEASED[name]


def recorded(path: Union[str, Path]) -> str:
    """A path for records: relative to the checkout if it lies within, so that it is the same on every machine."""
    path = Path(path)
    return str(path.relative_to(HOME) if HOME in path.parents else path)


def install(extra: str) -> str:
    """The command that installs an extra of the package (pyproject.toml). It needs a clone, as no index has the package."""
    of_torch = f"; for a CPU, without CUDA's 5.8 GB, first pip install torch --index-url {CPU_WHEELS}"
    return f"pip install '.[{extra}]' in a clone of the repository" + of_torch * (extra == "torch")


def model(source: Union[str, Path]) -> Path:
    """The path that `source` names: a released model's name, or a path. ./twba is always a path."""
    return released(source) if isinstance(source, str) and source in RELEASED else Path(source)
