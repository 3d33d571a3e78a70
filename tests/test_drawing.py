"""Figures are drawn under settings of our own, and the user's stay as they are."""
import os
import subprocess
import sys

import pytest
from helpers import REPOSITORY

from twba_nets.runs import journal

DRAW = """
import sys
from pathlib import Path
import numpy as np
from twba_chip.report import examples, figures
from twba_nets.runs import journal, recipe
folder = Path(sys.argv[1])
journal.draw_curve(folder, recipe.paper("twba"))
curve = {"images": 10, "dropped": [0, 0.5], "accuracy": [0.9, 0.1], "standard_error": [0.1, 0.1]}
(folder / "figure.svg").write_text(figures.svg(figures.robustness, {"robustness": curve, "class_names": [*"abcd"]}))
(folder / "picture").write_text(examples.data_uri(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)))
"""
SETTINGS = "text.usetex: True\nimage.origin: lower\nfont.size: 30\nsvg.fonttype: path\nsavefig.dpi: 7\naxes.grid: True\n"
NAMES = ("learning_curve.png", "figure.svg", "picture")


def draw(folder, **environment):
    folder.mkdir(parents=True)
    row = dict.fromkeys(journal.FIELDS, "1")
    (folder / "log.csv").write_text("".join(",".join(line) + "\n" for line in (row, row.values())))
    subprocess.check_call([sys.executable, "-W", "ignore", "-c", DRAW, str(folder)], cwd=str(REPOSITORY),
                          env=dict(os.environ, **environment))
    return [(folder / name).read_bytes() for name in NAMES]


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "module://none.such", "nonsense", "TkAgg"])
def test_the_environment_changes_no_figure(backend, tmp_path):
    """Backends of a notebook, of nobody, of a screen that is not there; a matplotlibrc that asks for TeX."""
    (tmp_path / "matplotlibrc").write_text(SETTINGS)
    environment = {name: value for name, value in os.environ.items() if name not in ("MPLBACKEND", "MATPLOTLIBRC")}
    plain = draw(tmp_path / "plain" / "in" / "run", **environment)
    assert draw(tmp_path / "own" / "in" / "run", MPLBACKEND=backend, MATPLOTLIBRC=str(tmp_path)) == plain


@pytest.mark.parametrize("before", ["", "import matplotlib; matplotlib.rcParams['font.size'] = 33; "])
def test_the_users_settings_stay(before):
    """Also those of a program that draws, whichever of the two imports Matplotlib first."""
    code = before + ("from twba_nets.system import drawing\nwith drawing.figure(3, 2, {'font.size': 9}): pass\n"
                     "import matplotlib, os\nprint(matplotlib.get_backend(), os.environ['MPLBACKEND'], "
                     "matplotlib.rcParams['font.size'])")
    found = subprocess.check_output([sys.executable, "-W", "ignore", "-c", code], cwd=str(REPOSITORY),
                                    env=dict(os.environ, MPLBACKEND="svg"), universal_newlines=True)
    assert found.split() == ["svg", "svg", "33.0" if before else "10.0"]
