"""The tables of README and docs, from the files that hold their figures: python docs/tables.py writes them anew.

A table stands between two comments, <!-- table: NAME --> and <!-- end -->. NAME is a function below.
"""
import json
import re
import sys
from pathlib import Path
from typing import Dict, Iterable, List

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np

from twba_nets import architecture as arch, card, npz, places, spike_statistics

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
REPORTED = {"twba": 0.8819, "bwba": 0.8650}  # by the paper, after 600 epochs


def main() -> None:
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")


def filled(text: str) -> str:
    """A page with its tables as they should be."""
    def table(found: "re.Match") -> str:
        return f"{found.group(1)}\n{globals()[found.group(2)]()}\n<!-- end -->"
    return re.sub(r"(<!-- table: (\w+) -->)\n.*?<!-- end -->", table, text, flags=re.DOTALL)


def results() -> str:
    """The released networks: their cards, and TensorFlow 1.15's evaluation (spikes.json) of each."""
    rows = [["variant", "activations", "reported", "here", "gap", "spikes an image", "zero weights", "training", "model"]]
    for folder in places.RELEASED.values():
        recorded, figures = card.read(ROOT / folder / "model.npz"), _json(f"{folder}/spikes.json")
        recipe = recorded["recipe"]
        reported, halves = REPORTED[recipe["variant"]], recipe["activation"] == "published"
        rows.append([recipe["variant"].upper(), recipe["activation"] + ": {0, 1/2, 1}" * halves, f"{100 * reported:.2f} %",
                     f"**{100 * figures['accuracy']:.2f} %**", _gap(figures["accuracy"] - reported),
                     f"{figures['total']['spikes_mean']:,.0f}" + " (halves added)" * halves, _zeros(ROOT / folder / "model.npz"),
                     f"{recorded['epochs']} epochs, {recorded['training_seconds'] / 60:.0f} min on {_hardware(recorded)}",
                     f"[`{folder}/model.npz`]({folder}/model.npz)"])
    return _table(rows)


def _gap(difference: float) -> str:
    return f"{abs(100 * difference):.1f} points {'above' if difference > 0 else 'below'}"


def _zeros(model: Path) -> str:
    weights = np.concatenate([value.ravel() for name, value in npz.read_model(model).items() if arch.is_quantised(name)])
    return f"{100 * (weights == 0).mean():.1f} %" if (weights == 0).any() else "none"


def _hardware(recorded: dict) -> str:
    return "two CPU cores, beside other work" if "tensorflow" in recorded["versions"] else "one CPU core"


def spikes() -> str:
    """What TWBA/cifar10_twba_spikes.py prints of the released network, but for most of its 50 sums."""
    figures = _json("TWBA/spikes.json")
    sums = [f"{total:.10g}" for total in figures["batch_sums"][:2]]
    accuracy = f"test loss {figures['loss']:.6f}, test accuracy {100 * figures['accuracy']:.2f}%"
    return "\n".join(["```", *sums, "...", "", accuracy, "", spike_statistics.table(figures), "```"])


def report() -> str:
    """TWBA's cost on a chip (twba-nets report), then its energy and robustness in words."""
    found = _json("TWBA/report.json")
    rows = [["map", "neurons", "fan-in (nonzero)", "fan-out", "zeros", "spikes an image", "firing rate", "SOPs an image",
             "of dense MACs", f"{found['core']['axons']} x {found['core']['neurons']} cores (parts)"]]
    for row in found["maps"] + [found["total"]]:
        rows.append([row["map"], f"{row['neurons']:,}", _cell("{fan_in:,} ({fan_in_nonzero:.0f})", row),
                     _cell("{fan_out:.0f}", row), _cell("{weight_sparsity:.1%}", row), f"{row['spikes_mean']:,.0f}",
                     f"{row['firing_rate']:.1%}", _cell("{sops_mean:,.0f}", row), _cell("{sops_over_macs:.1%} of {macs:,}", row),
                     _cell("{cores:,} ({parts})" if row["parts"] else "{cores:,}", row)])
    energy, curve = found["energy"], found["robustness"]
    drops = ", ".join(f"{100 * accuracy:.1f} % ({100 * dropped:.0f} %)" for dropped, accuracy
                      in zip(curve["dropped"], curve["accuracy"]))
    return _table(rows) + (
        f"\n\nArithmetic alone, in 45 nm: {energy['sops_microjoule']:.1f} uJ an image ({energy['picojoule_per_sop']:g} pJ a SOP) "
        f"against {energy['macs_microjoule']:.0f} uJ ({energy['picojoule_per_mac']:g} pJ a float32 MAC). Accuracy on the first "
        f"{curve['images']:,} images with this share of spikes dropped at random in every map: {drops}.")


SIDES = {"engine": "engine", "engine_avx2": "engine, built for AVX2", "onnxruntime": "ONNX Runtime",
         "openvino": "OpenVINO, float32", "openvino_bf16": "OpenVINO, its default (bfloat16)",
         "litert": "LiteRT (XNNPACK, int8)", "pytorch": "PyTorch, plain", "pytorch_int8": "PyTorch, our int8",
         "tensorflow": "TensorFlow 1.15, our graph", "published": "TensorFlow 1.15, the published graph"}


def inference() -> str:
    """All sides on a quiet machine (make bench)."""
    found = _json("benchmarks/inference.json")
    quiet = [row for row in found["measurements"] if row["busy_processes"] == 0]
    batches = sorted({row["batch"] for row in quiet})
    rows = [["", "threads", *(cell for batch in batches for cell in (f"batch {batch}: images/s", "engine is")), "one image",
             "as the engine", "accuracy"]]
    for side, threads in dict.fromkeys((row["side"], row["threads"]) for row in quiet):
        own = [row for row in quiet if (row["side"], row["threads"]) == (side, threads)]
        quality = found["sides"][side]
        speeds = [cell for row in own for cell in (f"{row['images_per_second']['median']:,.0f}",
                                                   f"{row['engine_is_faster_by']:.2f}x")]
        rows.append([SIDES[side], str(threads), *speeds, f"{own[0]['median_milliseconds']:.2f} ms",
                     f"{100 * quality['predictions_as_the_engines']:.1f} %", f"{100 * quality['accuracy']:.1f} %"])
    return _table(rows) + _bench_conditions(found)


def inference_busy() -> str:
    """One image at a time beside busy processes."""
    found = _json("benchmarks/inference.json")
    alone = [row for row in found["measurements"] if row["batch"] == 1]
    loads = sorted({row["busy_processes"] for row in alone})
    rows = [["", "threads", *(cell for load in loads for cell in (f"{load} busy: images/s", "p99"))]]
    for side, threads in dict.fromkeys((row["side"], row["threads"]) for row in alone if row["busy_processes"]):
        own = [row for row in alone if (row["side"], row["threads"]) == (side, threads)]
        rows.append([SIDES[side], str(threads), *(cell for row in own for cell in (
            f"{row['images_per_second']['median']:,.0f}", f"{row['p99_milliseconds']:.2f} ms ({row['p99_over_median']:.1f}x)"))])
    return _table(rows)


def roofline() -> str:
    """The engine's stages against the processor's limit."""
    batches = _json("benchmarks/inference.json")["roofline"]
    rows = [["stage", *(cell for batch in batches for cell in (f"batch {batch}: us an image", "of the limit"))]]
    rows += [[name, *(cell for found in batches.values() for cell in (
        f"{found[name]['microseconds']:.1f}", f"{100 * found[name]['share_of_limit']:.0f} %"))] for name in batches["1"]]
    return _table(rows)


def _bench_conditions(found: dict) -> str:
    versions = ", ".join(f"{SIDES[side]}: {row['version']}" for side, row in found["sides"].items()
                         if side in ("engine", "onnxruntime", "openvino", "litert", "pytorch"))
    return (f"\n\n{found['machine']}, {found['cores']} cores, medians of {found['rounds']} turns, load average before: "
            f"{found['load_average_before']:.1f}, commit {found['commit'][:7]}; {versions}; "
            "[record](../benchmarks/inference.json).")


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
    return _table(rows) + _conditions(found, "machine", "benchmarks/training.json")


def training_torch() -> str:
    """PyTorch's training by its parts (make bench-torch)."""
    found = _json("benchmarks/training_torch.json")
    names = {"plain": "plain PyTorch (eager, float32, `groups=`)", "exact": "hidden stages in small integers",
             "fused": "operations fused", "exact, fused": "both: the trainer"}
    speeds, limit = found["images_per_second"], found["matrix_product_gflops"]["float32"]
    rows = [["", "images/s", "ratio", "GFLOP/s", "of a float32 matrix product's"]]
    rows += [[names[side], f"{speed:.0f}", f"{speed / speeds['plain']:.1f}", f"{found['gflops'][side]:.0f}",
              f"{100 * found['gflops'][side] / limit:.0f} %"] for side, speed in speeds.items()]
    return _table(rows) + _conditions(found, "device", "benchmarks/training_torch.json")


def _conditions(found: dict, machine: str, record: str) -> str:
    return (f"\n\n{found[machine]}, {found['threads']} threads, batch 200, commit {found['commit'][:7]}; [record](../{record}).")


def _cell(text: str, row: Dict) -> str:
    """A cell, empty where a figure that it needs is null."""
    needed = re.findall(r"{(\w+)", text)
    return "" if any(row[name] is None for name in needed) else text.format(**row)


def _table(rows: Iterable[List[str]]) -> str:
    """Rows of cells as a table in Markdown, the first its head."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * lines[0].count(" | ") + "---|", *lines[1:]])


def _json(name: str) -> dict:
    return json.loads((ROOT / name).read_text())


if __name__ == "__main__":
    main()
