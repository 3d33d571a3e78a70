"""The figures of inference.py as text."""
from typing import Dict, List

OURS = ("engine", "engine_avx2")


def table(figures: dict) -> str:
    """The tables as text. figures: from inference.measure."""
    lines = ["{machine}, {cores} cores, commit {commit}, {variant}, medians of {rounds} turns; load average before: "
             "{load_average_before:.1f}".format(**figures)]
    lines += [f"{side} is left out: {why}" for side, why in figures["missing"].items()]
    rows = figures["measurements"]
    for busy in sorted({row["busy_processes"] for row in rows}):
        lines += ["", *_speeds([row for row in rows if row["busy_processes"] == busy], busy)]
    return "\n".join([*lines, "", *_sides(figures["sides"]), "", *_roofline(figures["roofline"])])


def _speeds(rows: List[dict], busy: int) -> List[str]:
    """A line per side and number of threads, then the engine against the best of the others."""
    batches = sorted({row["batch"] for row in rows})
    title = f"beside {busy} busy process{'' if busy == 1 else 'es'}" if busy else "with nothing beside it"
    cells = "".join(f"{f'batch {batch}':>13}{'engine is':>11}" for batch in batches)
    lines = [f"{title:24}{'threads':>8}{cells}{'one image':>13}{'p99':>11}"]
    for side, threads in dict.fromkeys((row["side"], row["threads"]) for row in rows):
        own = {row["batch"]: row for row in rows if (row["side"], row["threads"]) == (side, threads)}
        cells = "".join(f"{own[batch]['images_per_second']['median']:11.0f}/s{own[batch]['engine_is_faster_by']:10.2f}x"
                        for batch in batches)
        lines.append(f"{side:24}{threads:8}{cells}{own[1]['median_milliseconds']:10.3f} ms{own[1]['p99_over_median']:10.1f}x")
    others = [row for row in rows if row["side"] not in OURS]
    return lines + [_against_the_best(own, others) for own in _of_all_threads(rows) if others]


def _of_all_threads(rows: List[dict]) -> List[List[dict]]:
    """The rows of each build of the engine with all threads."""
    threads = max(row["threads"] for row in rows)
    builds = [[row for row in rows if (row["side"], row["threads"]) == (side, threads)] for side in OURS]
    return [build for build in builds if build]


def _against_the_best(own: List[dict], others: List[dict]) -> str:
    """How much faster a build is than the fastest of the others, with any number of threads."""
    cells = []
    for row in own:
        best = min((other for other in others if other["batch"] == row["batch"]), key=lambda other: other["engine_is_faster_by"])
        cells.append(f"batch {row['batch']} {best['engine_is_faster_by'] / row['engine_is_faster_by']:.2f}x {best['side']}")
    return f"{own[0]['side']} against the best of the others: {', '.join(cells)}"


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
