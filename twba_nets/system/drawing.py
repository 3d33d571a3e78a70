"""Matplotlib with fixed settings, independent of the user's environment and files. Only modules that draw import this."""
import contextlib
import os
import sys
import warnings
from typing import Iterator, Optional

_foreign, _first = os.environ.pop("MPLBACKEND", None), "matplotlib" not in sys.modules
try:  # with a backend that is not installed, such as a notebook's, the import fails
    import matplotlib
    from matplotlib import image
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
finally:
    if _foreign is not None:
        os.environ["MPLBACKEND"] = _foreign
if _foreign and _first:
    with contextlib.suppress(ValueError):
        matplotlib.rcParams["backend"] = _foreign  # as without this module

imsave = image.imsave


@contextlib.contextmanager
def figure(width: float, height: float, settings: Optional[dict] = None) -> Iterator[Figure]:
    """An empty figure of width x height inches; draw and save it within. settings: rcParams on top of Matplotlib's defaults."""
    with contextlib.ExitStack() as own:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about deprecated settings
            names = set(matplotlib.rcParamsDefault) - {"backend"}
            own.enter_context(matplotlib.rc_context({name: matplotlib.rcParamsDefault[name] for name in names}))
        matplotlib.rcParams.update(settings or {})
        drawn = Figure(figsize=(width, height))
        FigureCanvasAgg(drawn)
        yield drawn
