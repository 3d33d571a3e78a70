"""The card of a finished run, model.json beside model.npz: description, origin, digest."""
import os
import platform
import subprocess
from pathlib import Path
from typing import Dict, Optional, Sequence, Union

from twba_nets.network.architecture import MOST_SYNAPSES, Architecture
from twba_nets.runs import about as abouts, recipe as recipes
from twba_nets.runs.about import About
from twba_nets.system import places, streams
from twba_nets.system.errors import UserError
from twba_nets.system.files import Source, path_of as file_of, read_json, sha256, write_json
from twba_nets.runs.run_folder import MODEL_NAME

CODE = ("*.py", "*.c", "*.h", "*.html", "*.css", "*.js", "*.lock")  # in any folder


def path_of(model: Path) -> Path:
    """The card's path beside a model's npz."""
    return model.with_suffix(".json")


def write(folder: Path, recipe: recipes.Recipe, row: Dict[str, str], spans: Sequence[Dict], sha256: str) -> None:
    """Write the card of a finished run from its recipe and the last row of its log (journal.read_log).

    spans: which epochs were trained where (provenance.whole). sha256: of model.npz as written.
    """
    seconds = [span["seconds"] for span in spans]
    write_json(path_of(folder / MODEL_NAME), {
        "sha256": sha256,
        "recipe": recipe.to_json(),
        "epochs": int(row["epoch"]),
        "test_accuracy": float(row["test_accuracy"]),
        "test_loss": float(row["test_loss"]),
        "spikes_per_image": float(row["spikes_per_image"]),
        "training_seconds": None if None in seconds else sum(seconds),
        "provenance": spans,
    })


def write_saved(model: Path, about: About, sha256: str) -> None:
    """Write the card of a network that no run of this project trained."""
    write_json(path_of(model), {"sha256": sha256, "network": about.to_json()})


def warn_of_many_synapses(architecture: Architecture) -> None:
    """Tell which hidden stages make the network too large for an export."""
    for stage in architecture.hidden:
        if stage.fan_in > MOST_SYNAPSES:
            streams.tell_once(f"warning: {stage.conv}: a neuron has {stage.fan_in:,} synapses; the network can be trained, but "
                              f"an export holds only {MOST_SYNAPSES:,}: use more groups, or fewer channels in its input")


def remove(folder: Path) -> None:
    """Remove the card of a resumed run: its model is about to change."""
    path = path_of(folder / MODEL_NAME)
    if path.exists():
        path.unlink()


def read(source: Source) -> Optional[Dict]:
    """The card beside a model's npz, or None if there is none. Raises UserError if it is not that model's."""
    model = file_of(source)
    path = path_of(model)
    if model.suffix != ".npz" or not os.path.exists(path):  # os.path.exists is False for a name that is too long
        return None
    try:
        card = read_json(path)
        digest = card["sha256"]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise UserError(f"{path}: not the card of a model ({error!r}): restore it, or move it away")
    if (source is not model or model.exists()) and sha256(source) != digest:
        raise UserError(f"{model}: its sha256 is not the one in {path.name}: it was changed or damaged: restore it (git "
                        "checkout), or move the card away")
    return card


def load_recipe(source: Source) -> Optional[recipes.Recipe]:
    """The recipe of a checkpoint: from the card beside it, else from its folder's recipe.json, else None.

    Raises UserError, naming the file, if it cannot be read or if the card is another file's.
    """
    described = _described(file_of(source), read(source))
    return described if isinstance(described, recipes.Recipe) else None


def about_beside(checkpoint: Path, found: Optional[Dict]) -> Optional[About]:
    """A checkpoint's About, from its card, `found` by read(), or its folder's recipe.json; else None. Raises UserError."""
    described = _described(checkpoint, found)
    return described.about if isinstance(described, recipes.Recipe) else described


def _described(checkpoint: Path, found: Optional[Dict]) -> Union[recipes.Recipe, About, None]:
    path = checkpoint.parent / recipes.FILE_NAME
    if found:
        path = path_of(checkpoint)
    elif not path.exists():
        return None
    try:
        if found and "network" in found:
            return abouts.from_json(found["network"])
        return recipes.from_json(found["recipe"] if found else read_json(path))
    except (UserError, ValueError, TypeError, AttributeError, KeyError, OSError) as error:
        raise UserError(f"{path}: not a recipe of this project ({error}): restore it, or move it away")


def cpu_name() -> str:
    """The processor's name as the operating system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def gpu_name() -> str:
    """The first NVIDIA GPU's name as its driver gives it."""
    for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        for line in path.read_text(errors="replace").splitlines():
            if line.startswith("Model:"):
                return line.partition(":")[2].strip()
    return "GPU"


def commit() -> Optional[str]:
    """The commit of the code, ending in "-changed" if code differs from it; None outside a git checkout.

    Only changes of code count, not those of models, figures or texts.
    """
    if not (places.IS_CHECKOUT and (places.HOME / ".git").exists()):  # a package or source archive in another checkout
        return None
    try:
        new = [f":(glob)twba_*/**/{kind}" for kind in CODE]  # elsewhere users may write files, such as an exported .c
        changed = _git("diff", "--name-only", "HEAD", "--", *CODE) + _git("ls-files", "-o", "--exclude-standard", "--", *new)
        return _git("rev-parse", "HEAD") + ("-changed" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    reading = dict(os.environ, GIT_OPTIONAL_LOCKS="0")  # git writes nothing
    return subprocess.check_output(["git", *arguments], cwd=str(places.HOME), env=reading, stderr=subprocess.DEVNULL,
                                   universal_newlines=True).strip()
