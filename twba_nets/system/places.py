"""Where things are: in a checkout of the repository, or installed as a package."""
from pathlib import Path
from typing import Union

_PACKAGE = Path(__file__).resolve().parents[1]
IS_CHECKOUT = (_PACKAGE.parent / "pyproject.toml").is_file()
# data/ and runs/ are there: in the checkout, or where the user works
HOME = _PACKAGE.parent if IS_CHECKOUT else Path()
# a wheel has the released models, and the tables of networks, within the package
_RELEASED = _PACKAGE.parent if IS_CHECKOUT else _PACKAGE / "released"
NETWORKS = (_PACKAGE.parent if IS_CHECKOUT else _PACKAGE) / "networks"  # tables of networks, in TOML
RELEASED = {"twba": "TWBA", "bwba": "BWBA", "twba-published": "TWBA/published", "bwba-published": "BWBA/published"}
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"  # of PyTorch, without CUDA's libraries


def released(name: str) -> Path:
    """The folder of a released model, one of RELEASED."""
    return _RELEASED / RELEASED[name]


def recorded(path: Union[str, Path]) -> str:
    """A path as records have it: what lies in the checkout is named from there, whosever machine it is on."""
    path = Path(path)
    return str(path.relative_to(HOME) if HOME in path.parents else path)


def install(extra: str) -> str:
    """What installs an extra of the package (pyproject.toml): a clone does, since no index has the package."""
    of_torch = f"; for a CPU, without CUDA's 5.8 GB, first pip install torch --index-url {CPU_WHEELS}"
    return f"pip install '.[{extra}]' in a clone of the repository" + of_torch * (extra == "torch")


def model(source: Union[str, Path]) -> Path:
    """The path that `source` names: a released model's name, as a text, or a path (of a file of that name: ./twba)."""
    return released(source) if isinstance(source, str) and source in RELEASED else Path(source)
