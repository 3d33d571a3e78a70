"""Rewrite the tables of README and docs from the files that hold their figures: .venv/bin/python docs/tables.py.

A table is between two comments, <!-- table: NAME --> and <!-- end -->. NAME is a function below, one of TABLES.
"""
import json
import re
import sys
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, Tuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np

from twba_chip.report import tables as report_tables
from twba_nets.network import architecture as arch, quantisers
from twba_nets.network.architecture import PAPER
from twba_nets.runs import card, journal, npz, provenance, spike_statistics
from twba_nets.system import places
from twba_nets.runs.recipe import REPORTED

PAGES = [ROOT / "README.md", ROOT / "REPRODUCTION.md", *sorted((ROOT / "docs").glob("*.md"))]
SIDES = {"engine": "engine", "engine_avx2": "engine, built for AVX2", "onnxruntime": "ONNX Runtime",
         "openvino": "OpenVINO, float32", "openvino_bf16": "OpenVINO, its default (bfloat16)",
         "litert": "LiteRT (XNNPACK, int8)", "pytorch": "PyTorch, plain", "pytorch_int8": "PyTorch, our int8",
         "tensorflow": "TensorFlow 1.15, our graph", "published": "TensorFlow 1.15, the published graph"}


def main() -> None:
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")


def filled(text: str) -> str:
    """A page with its tables filled in."""
    def table(found: "re.Match") -> str:
        return f"{found.group(1)}\n{TABLES[found.group(2)]()}\n<!-- end -->"
    return re.sub(r"(<!-- table: (.*?) -->)\n.*?<!-- end -->", table, text, flags=re.DOTALL)


def results() -> str:
    """The released networks, from their cards and TensorFlow 1.15's evaluation (spikes.json) of each."""
    rows = [["variant", "activations", "reported", "here", "mean ± sd over seeds", "spikes per image", "zero weights", "training",
             "model"]]
    for folder, recorded, _ in _kept(places.RELEASED.values()):
        figures, recipe = _json(f"{folder}/spikes.json"), recorded["recipe"]
        reported, activation = REPORTED[recipe["variant"]], quantisers.canonical(recipe["activation"])
        halves = not quantisers.is_binary(activation)
        rows.append([recipe["variant"].upper(), activation + ": {0, 1/2, 1}" * halves, _percent(reported),
                     f"**{_percent(figures['accuracy'])}**", spread(folder),
                     f"{figures['total']['spikes_mean']:,.0f}" + " (1/2 counts half)" * halves,
                     _zeros(ROOT / folder / "model.npz"),
                     f"{recorded['epochs']} epochs{_origin(recipe)}, {_minutes(recorded)} on {_devices(recorded)}",
                     f"[`{folder}/model.npz`]({folder}/model.npz)"])
    return _table(rows)


def runs() -> str:
    """The recorded runs, and the accuracy of their last epoch's weights by three implementations."""
    rows = [["network", "reported", "PyTorch, `log.csv`", "TensorFlow 1.15, `spikes.json`", "engine, `report.json`", "epochs",
             "training", "commit", "finished"]]
    for folder, recorded, log in _kept(places.RELEASED.values()):
        variant, activation = recorded["recipe"]["variant"], quantisers.canonical(recorded["recipe"]["activation"])
        by_tensorflow = _percent(_json(f"{folder}/spikes.json")["accuracy"])
        by_engine = "" if quantisers.is_binary(activation) else "refused"  # empty if there is no report
        if (ROOT / folder / "report.json").exists():
            by_engine = _percent(_json(f"{folder}/report.json")["accuracy"])
        rows.append([f"[`{folder}/`]({folder}): {variant.upper()}, {activation}", _percent(REPORTED[variant]),
                     _percent(recorded["test_accuracy"]), f"**{by_tensorflow}**", by_engine, str(recorded["epochs"]),
                     _minutes(recorded), _commits(recorded), log[-1]["finished_at"][:10]])
    return _table(rows)


def compared() -> str:
    """Recipes on held-out training images."""
    rows = [["recipe", "epochs", "training", "held out, moving statistics", "held out, averaged statistics"]]
    accuracies = ("train_accuracy", "held_out_moving", "held_out_averaged")
    rows += [[row["recipe"], str(row["epochs"]), *("" if row[key] is None else _percent(row[key]) for key in accuracies)]
             for row in _json("TWBA/compared.json")]
    return _table(rows)


def along_the_way() -> str:
    """Training and test accuracy of the recorded runs after some epochs."""
    epochs = [1, 5, 10, 18, 22, 30, 40, 60, 80, 100, 200, 300, 400, 500, 600]
    rows = [["after epoch", *map(str, epochs)]]
    for folder, _, log in _kept(places.RELEASED.values()):
        for kind in ("train", "test"):
            reached = [_percent(float(log[epoch - 1][f"{kind}_accuracy"])) for epoch in epochs if epoch <= len(log)]
            rows.append([f"`{folder}/`, {kind}", *reached, *[""] * (len(epochs) - len(reached))])
    return _table(rows)


def _kept(folders: Iterable[str]) -> Iterator[Tuple[str, dict, List[Dict[str, str]]]]:
    """For the run in each folder: the folder, its card, the rows of its log."""
    for folder in folders:
        yield folder, card.read(ROOT / folder / "model.npz"), journal.read_log(ROOT / folder)


def seeds() -> str:
    """TWBA's last run with several seeds."""
    rows = [["seed", "training accuracy", "PyTorch, `log.csv`", "TensorFlow 1.15, `spikes.json`", "spikes per image", "model"]]
    for folder, recorded, log in _kept(_seeds("TWBA")):
        figures = _json(f"{folder}/spikes.json")
        rows.append([str(recorded["recipe"]["seed"]), _percent(float(log[-1]["train_accuracy"])),
                     _percent(recorded["test_accuracy"]), _percent(figures["accuracy"]),
                     f"{figures['total']['spikes_mean']:,.0f}", f"[`{folder}/`]({folder})"])
    return _table(rows) + f"\n\nMean and standard deviation by TensorFlow: {spread('TWBA')}."


def _seeds(folder: str) -> List[str]:
    """The folders of a released network and of the same run with other seeds."""
    return [folder, *(str(path.relative_to(ROOT)) for path in sorted((ROOT / folder / "seeds").glob("*")))]


def spread(folder: str) -> str:
    """Mean and standard deviation of the accuracy over the seeds of a released network's last run."""
    accuracies = [100 * _json(f"{each}/spikes.json")["accuracy"] for each in _seeds(folder)]
    if len(accuracies) == 1:
        return "one run"
    return f"{np.mean(accuracies):.2f} ± {np.std(accuracies, ddof=1):.2f} % ({len(accuracies)} seeds)"


def _origin(recipe: dict) -> str:
    """The network that training began with, and whether others taught."""
    return f" from {begun(recipe)}" * bool(recipe.get("initial_weights")) + " with two teachers" * bool(recipe.get("teacher"))


def begun(recipe: dict) -> str:
    """The network that training began with: a run's name, as each has a training.npz; or an earlier released model.npz."""
    file = Path((recipe.get("initial_weights") or {}).get("file", ""))
    return file.parent.name if file.name == "training.npz" else "its earlier version"


def _minutes(recorded: dict) -> str:
    seconds = recorded["training_seconds"]
    return "?" if seconds is None else f"{seconds / 60:.0f} min"


def _devices(recorded: dict) -> str:
    """The processor that a run was trained on; if there are several, each with its number of epochs."""
    epochs = {}
    for span in provenance.of_card(recorded):
        first, last = span["epochs"]
        epochs[span["device"] or "?"] = epochs.get(span["device"] or "?", 0) + last + 1 - first
    return " and ".join(f"{device} ({number})" if len(epochs) > 1 else device for device, number in epochs.items())


def _commits(recorded: dict) -> str:
    return ", ".join(dict.fromkeys((span["commit"] or "?")[:7] for span in provenance.of_card(recorded)))


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _zeros(model: Path) -> str:
    weights = np.concatenate([value.ravel() for name, value in npz.read_model(model, PAPER).items() if arch.is_quantised(name)])
    return f"{100 * (weights == 0).mean():.1f} %" if (weights == 0).any() else "none"


def spikes() -> str:
    """The output of TWBA/cifar10_twba_spikes.py for the released network, without most of its 50 sums and 8 maps."""
    figures = _json("TWBA/spikes.json")
    accuracy = f"test loss {figures['loss']:.6f}, test accuracy {100 * figures['accuracy']:.2f}%"
    head, first, *_, total = spike_statistics.table(figures).splitlines()
    return "\n".join(["```", f"{figures['batch_sums'][0]:.10g}", "...", accuracy, head, first, "...", total, "```"])


def report() -> str:
    """TWBA's cost on a chip (twba-nets report), then its energy and robustness in words."""
    found = _json("TWBA/report.json")
    core = _on_chip(found, found["chip"])
    rows = [["map", "neurons", "fan-in (nonzero)", "fan-out", "zeros", "spikes per image", "firing rate", "SOPs per image",
             "of dense MACs", f"{core['axons']} x {core['neurons']} cores (parts)"]]
    for row in found["maps"] + [found["total"]]:
        rows.append([row["map"], f"{row['neurons']:,}", _cell("{fan_in:,} ({fan_in_nonzero:.0f})", row),
                     _cell("{fan_out:.0f}", row), _cell("{weight_sparsity:.1%}", row), f"{row['spikes_mean']:,.0f}",
                     f"{row['firing_rate']:.1%}", _cell("{sops_mean:,.0f}", row), _cell("{sops_over_macs:.1%} of {macs:,}", row),
                     _cell("{cores:,} ({parts})" if row["parts"] else "{cores:,}", row)])
    curve = found["robustness"]
    (int32, float32), (dense_int8, dense_float32) = found["energy"]["sops"], found["energy"]["macs"]
    drops = ", ".join(f"{100 * accuracy:.1f} % ({100 * dropped:.0f} %)" for dropped, accuracy
                      in zip(curve["dropped"], curve["accuracy"]))
    return _table(rows) + (
        f"\n\nArithmetic only, in 45 nm, per image: {int32['microjoule']:.2f} uJ with int32 additions ({int32['picojoule']:g} pJ "
        f"per SOP), {float32['microjoule']:.1f} uJ with the literature's {float32['picojoule']:g} pJ, a float32 addition's. "
        f"Computed densely: {dense_int8['microjoule']:.1f} uJ in int8 ({dense_int8['picojoule']:g} pJ per MAC), "
        f"{dense_float32['microjoule']:.0f} uJ in float32 ({dense_float32['picojoule']:g} pJ).\n\nAccuracy on the first "
        f"{curve['images']:,} images with this share of spikes dropped at random in every map: {drops}.")


def who_fits() -> str:
    """Which chips TWBA fits, and its energy by their published figures."""
    rows = [["chip", "axons", "neurons per core", "weight bits", "fits", "cores needed", "of", "time steps", "pJ per SOP",
             "uJ per image"]]
    found = _json("TWBA/report.json")["chips"]
    for row in found:
        cells = report_tables.chip_cells(row)[:-1]
        cells[4] += "" if row["fits"] else f": {'; '.join(row['why'])}"
        rows.append(cells)
    return _table(rows) + "\n\nSources:\n\n" + "\n".join(f"- {row['title']}: {row['source']}." for row in found[1:])


def _on_chip(found: dict, name: str) -> dict:
    return next(row for row in found["chips"] if row["chip"] == name)


def chip() -> str:
    """TWBA's cost on a chip in a sentence."""
    found = _json("TWBA/report.json")
    total, paicore, (int8, float32) = found["total"], _on_chip(found, "paicore"), found["energy"]["macs"]
    fan_in = max(row["fan_in"] or 0 for row in found["maps"])
    return (f"TWBA takes {paicore['cores']:,} of the {paicore['chip_cores']:,} cores of one PAICORE and one time step per stage. "
            f"A neuron has up to {fan_in:,} inputs and an int16 threshold.\nAn image causes {total['spikes_mean']:,.0f} spikes "
            f"and {total['sops_mean'] / 1e6:.1f} million synaptic operations. Their additions take "
            f"{found['energy']['sops'][0]['microjoule']:.1f} uJ in 45 nm, or {paicore['microjoule']:.1f} uJ by\nPAICORE's own "
            f"figure. Computed densely, the same layers take {int8['microjoule']:.0f} uJ in int8 and "
            f"{float32['microjoule']:.0f} in float32.")


def bwba() -> str:
    """BWBA's cost beside TWBA's, in two sentences."""
    found = _json("BWBA/report.json")
    curve = found["robustness"]
    accuracy, paicore = dict(zip(curve["dropped"], curve["accuracy"]))[0.1], _on_chip(found, "paicore")
    return (f"BWBA has no zero weights, so it takes more operations: {found['total']['sops_mean'] / 1e6:.1f} million, "
            f"{found['energy']['sops'][0]['microjoule']:.1f} uJ, by PAICORE's figure {paicore['microjoule']:.1f} uJ."
            f"\nWith 10 % of the spikes lost at random its accuracy falls to {100 * accuracy:.1f} %.")


def stages() -> str:
    """The network's table."""
    rows = [["stage", "input map", "groups", "filters per group", "kernel", "stride", "padding", "output map", "weights"]]
    for stage in PAPER.stages:
        kernel = stage.kernel_shape
        rows.append([stage.conv, f"{stage.size} x {stage.size} x {stage.channels}", str(stage.groups), str(stage.filters),
                     f"{stage.kernel} x {stage.kernel} x {kernel[2]}", str(stage.stride), str(stage.margin),
                     f"{stage.map}: {' x '.join(map(str, stage.map_shape))}", f"{stage.groups * int(np.prod(kernel)):,}"])
    return _table(rows) + (f"\n\nThen a dense layer from {PAPER.features} spikes to {PAPER.classes} classes. Group i of G reads "
                           "the channels i, i + G, i + 2G, ... of its input map.")


def inference() -> str:
    """All sides on a quiet machine (make bench)."""
    found = _json("benchmarks/inference.json")
    rows = {(row["side"], row["threads"], row["batch"]): row for row in found["measurements"] if row["busy_processes"] == 0}
    batches = sorted({batch for _, _, batch in rows})
    lines = [["", "threads", *(cell for batch in batches for cell in (f"batch {batch}: images/s", "engine is faster by"))]]
    for side, threads in dict.fromkeys(key[:2] for key in rows):
        own = [rows[side, threads, batch] for batch in batches]
        lines.append([_named(side, threads, found), str(threads), *(cell for row in own for cell in (
            f"{row['images_per_second']['median']:,.0f}",
            "" if (side, threads) == ("engine", found["threads"]) else f"{row['engine_is_faster_by']:.2f}x"))])
    return _table(lines) + (
        f"\n\n{found['machine']}, {found['cores']} cores, medians of {found['rounds']} turns, load average before: "
        f"{found['load_average_before']:.1f}, commit {_commit(found)}; [record](../benchmarks/inference.json).")


def inference_sides() -> str:
    """Each side's version and accuracy."""
    rows = [["", "version", "predictions as the engine's", "accuracy on the first 1,000 test images"]]
    for side, found in _json("benchmarks/inference.json")["sides"].items():
        version = re.sub(r"-\d+-[0-9a-f]{7,}.*", "", found["version"])  # without OpenVINO's build
        rows.append([SIDES[side], version, f"{100 * found['predictions_as_the_engines']:.1f} %",
                     _cell("{accuracy:.1%}", found).replace("%", " %")])
    return _table(rows)


def inference_busy() -> str:
    """One image at a time beside busy processes."""
    found = _json("benchmarks/inference.json")
    rows = {(row["side"], row["threads"], row["busy_processes"]): row for row in found["measurements"] if row["batch"] == 1}
    loads = sorted({load for _, _, load in rows})
    lines = [["", "threads", *(cell for load in loads for cell in (f"{load} busy: images/s", "p99"))]]
    for side, threads in dict.fromkeys(key[:2] for key in rows if key[2]):
        own = [rows[side, threads, load] for load in loads]
        lines.append([_named(side, threads, found), str(threads), *(cell for row in own for cell in (
            f"{row['images_per_second']['median']:,.0f}", f"{row['p99_milliseconds']:.2f} ms ({row['p99_over_median']:.1f}x)"))])
    return _table(lines)


def _named(side: str, threads: int, found: dict) -> str:
    return SIDES[side] + ", default" * (side == "engine" and threads == found["threads"])


def roofline() -> str:
    """The engine's stages against the processor's limit."""
    batches = _json("benchmarks/inference.json")["roofline"]
    rows = [["stage", *(cell for batch in batches for cell in (f"batch {batch}: us per image", "of the limit"))]]
    rows += [["cnn1 to cnn11 together" if name == "hidden" else name, *(cell for found in batches.values() for cell in (
        f"{found[name]['microseconds']:.1f}", f"{100 * found[name]['share_of_limit']:.0f} %"))] for name in batches["1"]]
    return _table(rows)


def training() -> str:
    """TensorFlow's training and evaluation (make bench-train)."""
    found = _json("benchmarks/training.json")
    names = {"ours": "this graph", "published": "the published code's graph", "pytorch": "plain (eager, `groups=`)",
             "pytorch_memory": "the same, memory kept as here"}
    rows = [["", "training: images/s", "ours is", "evaluation: images/s", "ours is", "first step after", "peak memory"]]
    for side, row in found["sides"].items():
        cells = [cell for kind in ("train", "evaluate") for cell in (
            f"{row[kind]['images_per_second']['median']:.0f}",
            "" if side == "ours" else f"{row[kind]['ours_is_faster_by']:.2f}x")]
        rows.append([f"{names[side]}, {row['version']}", *cells, f"{row['first_step_seconds']:.1f} s",
                     f"{row['peak_megabytes'] / 1e3:.1f} GB"])
    return _table(rows) + _conditions(found, "training")


def training_torch() -> str:
    """PyTorch's training by its parts (make bench-torch)."""
    found = _json("benchmarks/training_torch.json")
    names = {"plain": "plain PyTorch (eager, float32, `groups=`), memory kept as here",
             "exact": "hidden stages in small integers", "fused": "operations fused", "exact, fused": "both: the trainer"}
    speeds, limit = found["images_per_second"], found["matrix_product_gflops"]["float32"]
    rows = [["", "images/s", "ratio", "GFLOP/s", "of a float32 matrix product's"]]
    rows += [[names[side], f"{speed:.0f}", f"{speed / speeds['plain']:.1f}", f"{found['gflops'][side]:.0f}",
              f"{100 * found['gflops'][side] / limit:.0f} %"] for side, speed in speeds.items()]
    return _table(rows) + _conditions(found, "training_torch")


def _conditions(found: dict, record: str) -> str:
    return (f"\n\n{found['machine']}, threads: {found['threads']}, batch 200, commit {_commit(found)}; "
            f"[record](../benchmarks/{record}.json).")


def _commit(found: dict) -> str:
    commit, _, changed = (found["commit"] or "not known").partition("-")
    return commit[:7] + " with uncommitted changes" * bool(changed)


def _cell(text: str, row: Dict) -> str:
    """A cell's text; empty if a figure that it needs is null."""
    needed = re.findall(r"{(\w+)", text)
    return "" if any(row[name] is None for name in needed) else text.format(**row)


def _table(rows: List[List[str]]) -> str:
    """Rows of cells as a Markdown table. The first row is its head."""
    head, *lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *lines])


def _json(name: str) -> dict:
    return json.loads((ROOT / name).read_text())


TABLES = {table.__name__: table for table in (
    results, runs, seeds, compared, along_the_way, spikes, chip, bwba, stages, report, who_fits, inference, inference_sides,
    inference_busy, roofline, training, training_torch)}

if __name__ == "__main__":
    main()
