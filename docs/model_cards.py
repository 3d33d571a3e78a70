"""Write the released networks' model cards from the files beside them: python docs/model_cards.py writes each MODEL_CARD.md."""
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

import jinja2

import tables
from twba_nets.network import quantisers
from twba_nets.runs import card, provenance, recipe as recipes
from twba_nets.system import places

WEIGHTS = {"twba": ("ternary", "{-1, 0, 1}"), "bwba": ("binary", "{-1, 1}")}
ACTIVATIONS = {"binary": "{0, 1}", "three-level": "{0, 1/2, 1}"}


def main() -> None:
    for name in places.RELEASED:
        path_of(name).write_text(text(name), encoding="utf-8")


def path_of(name: str) -> Path:
    return ROOT / places.RELEASED[name] / "MODEL_CARD.md"


def text(name: str) -> str:
    """The text of a released network's card."""
    folder = places.RELEASED[name]
    model = ROOT / folder / "model.npz"
    recorded, recipe = card.read(model), card.load_recipe(model)
    figures = json.loads((ROOT / folder / "spikes.json").read_text())
    report = json.loads((ROOT / folder / "report.json").read_text()) if quantisers.is_binary(recipe.activation) else None
    weights, levels = WEIGHTS[recipe.variant]
    found = [span["versions"] or {} for span in provenance.of_card(recorded)]
    versions = dict.fromkeys(f"{written} {version[name]}" for version in found
                             for name, written in (("torch", "PyTorch"), ("tensorflow", "TensorFlow")) if name in version)
    is_papers = dict(recipe.to_json(), seed=0) == recipes.Recipe(recipe.variant, recipe.activation).to_json()
    released = {card.read(path_of(other).parent / "model.npz")["sha256"]: f"`{other}`" for other in places.RELEASED}
    template = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True).from_string(
        (ROOT / "docs" / "model_card.j2").read_text(encoding="utf-8"))
    return template.render(
        name=name, recipe=recipe, recorded=recorded, figures=figures, report=report, weights=weights,
        levels={"weights": levels, "activations": ACTIVATIONS[recipe.activation]}, versions=", ".join(versions),
        minutes=tables._minutes(recorded), devices=tables._devices(recorded), commits=tables._commits(recorded),
        percent=tables._percent, reported=recipe.reported, zeros=tables._zeros(model), is_papers_recipe=is_papers,
        begun=tables.begun(recorded["recipe"]),
        spread=tables.spread(folder), seeds=(ROOT / folder / "seeds").exists(),
        teachers=[released[teacher["sha256"]] for teacher in recipe.teacher or ()],
        standard_error=100 * (figures["accuracy"] * (1 - figures["accuracy"]) / figures["images"]) ** 0.5,
        up="../" * len(Path(folder).parts))


if __name__ == "__main__":
    main()
