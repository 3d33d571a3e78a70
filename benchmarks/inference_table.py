"""The figures of inference.py as text."""
from typing import Dict, List

OURS = ("engine", "engine_avx2")


def table(figures: dict) -> str:
    """figures: as inference.measure gives them."""
    lines = ["{machine}, {cores} cores, commit {commit}, {variant}, medians of {rounds} turns; load average before: "
             "{load_average_before:.1f}".format(**figures)]
    lines += [f"{side} is left out: {why}" for side, why in figures["missing"].items()]
    rows = figures["measurements"]
    for busy in sorted({row["busy_processes"] for row in rows}):
        lines += ["", *_speeds([row for row in rows if row["busy_processes"] == busy], busy)]
    return "\n".join([*lines, "", *_sides(figures["sides"]), "", *_roofline(figures["roofline"])])


def _speeds(rows: List[dict], busy: int) -> List[str]:
    """A line for each side and number of threads, then the engine against the best of the others."""
    batches = sorted({row["batch"] for row in rows})
    title = f"beside {busy} busy process{'' if busy == 1 else 'es'}" if busy else "with nothing beside it"
    cells = "".join(f"{f'batch {batch}':>13}{'engine is':>11}" for batch in batches)
    lines = [f"{title:24}{'threads':>8}{cells}{'one image':>13}{'p99':>11}"]
    for side, threads in dict.fromkeys((row["side"], row["threads"]) for row in rows):
        own = {row["batch"]: row for row in rows if (row["side"], row["threads"]) == (side, threads)}
        cells = "".join(f"{own[batch]['images_per_second']['median']:11.0f}/s{own[batch]['engine_is_faster_by']:10.2f}x"
                        for batch in batches)
        lines.append(f"{side:24}{threads:8}{cells}{own[1]['median_milliseconds']:10.3f} ms{own[1]['p99_over_median']:10.1f}x")
    return lines + [_against_the_best(rows, batches, ours) for ours in OURS if any(row["side"] == ours for row in rows)]


def _against_the_best(rows: List[dict], batches: List[int], ours: str) -> str:
    """How much faster than the fastest of the others, whatever its number of threads, this build with all threads is."""
    cells = []
    for batch in batches:
        some = [row for row in rows if row["batch"] == batch]
        own = [row["engine_is_faster_by"] for row in some if row["side"] == ours][-1]
        best = min((row for row in some if row["side"] not in OURS), key=lambda row: row["engine_is_faster_by"], default=None)
        if best:
            cells.append(f"batch {batch} {best['engine_is_faster_by'] / own:.2f}x {best['side']}")
    return f"{ours} against the best of the others: {', '.join(cells)}"


def _sides(sides: Dict[str, dict]) -> List[str]:
    lines = [f"{'':24}{'as the engine':>14}{'accuracy':>10}  version"]
    for side, found in sides.items():
        accuracy = "" if found["accuracy"] is None else f"{found['accuracy']:.1%}"
        lines.append(f"{side:24}{found['predictions_as_the_engines']:14.1%}{accuracy:>10}  {found['version']}")
    return lines


def _roofline(batches: Dict[int, Dict[str, dict]]) -> List[str]:
    lines = [f"{'engine':14}" + "".join(f"{f'batch {batch}: us an image':>26}{'share of limit':>16}" for batch in batches)]
    for name in next(iter(batches.values())):
        rows = [found[name] for found in batches.values()]
        lines.append(f"{name:14}" + "".join(f"{row['microseconds']:26.1f}{row['share_of_limit']:16.0%}" for row in rows))
    return lines
