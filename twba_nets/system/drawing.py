"""Matplotlib with settings of our own, whatever variables and files of the user's say. Who draws imports this, no other does."""
import contextlib
import os
import sys
import warnings
from typing import Iterator, Optional

_foreign, _first = os.environ.pop("MPLBACKEND", None), "matplotlib" not in sys.modules
try:  # a backend that is not installed here, as a notebook's, would end the import
    import matplotlib
    from matplotlib import image
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
finally:
    if _foreign is not None:
        os.environ["MPLBACKEND"] = _foreign
if _foreign and _first:
    with contextlib.suppress(ValueError):
        matplotlib.rcParams["backend"] = _foreign  # as if we had not been here

imsave = image.imsave


@contextlib.contextmanager
def figure(width: float, height: float, settings: Optional[dict] = None) -> Iterator[Figure]:
    """An empty figure of so many inches, to be drawn and saved within. settings: which are not Matplotlib's defaults."""
    with contextlib.ExitStack() as own:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of settings that are on their way out
            names = set(matplotlib.rcParamsDefault) - {"backend"}
            own.enter_context(matplotlib.rc_context({name: matplotlib.rcParamsDefault[name] for name in names}))
        matplotlib.rcParams.update(settings or {})
        drawn = Figure(figsize=(width, height))
        FigureCanvasAgg(drawn)
        yield drawn
