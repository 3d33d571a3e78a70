"""Which epochs of a run were trained where: provenance.json, updated after each epoch.

A list of consecutive spans, {"epochs": [first, last], "device": the processor's name, "versions": package -> version,
"commit": the code's}. Epochs outside all spans were trained by older code without this record, so nothing is known of them.
You may add such a span by hand.
"""
import platform
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

from twba_nets.runs import card
from twba_nets.system.errors import UserError
from twba_nets.system.files import read_json, write_json

FILE_NAME = "provenance.json"
FACTS = ("device", "versions", "commit")


def of_this_process(device: str, versions: Mapping[str, object]) -> Dict[str, object]:
    """The facts of the epochs that this process trains. Call it at the start: the checkout may change later."""
    return dict(zip(FACTS, (device, dict(versions, python=platform.python_version()), card.commit())))


def read(folder: Path) -> List[Dict]:
    """The spans of a run's folder; [] if there is no such file. Raises UserError if it is damaged."""
    path, last = folder / FILE_NAME, 0
    try:
        spans = read_json(path) if path.exists() else []
        for span in spans:
            if set(span) != {"epochs", *FACTS} or not all(type(epoch) is int for epoch in span["epochs"]):
                raise ValueError(f"{span} is not {{epochs, {', '.join(FACTS)}}}")
            before, (first, last) = last, span["epochs"]
            if not before < first <= last:
                raise ValueError(f"epochs {first} to {last} come after {before}")
    except (ValueError, TypeError, OSError) as error:
        raise UserError(f"{path}: damaged ({error}): restore it, or move it away and lose the record of the earlier epochs")
    return spans


def carry(source: Path, folder: Path, epochs: int) -> None:
    """Copy the spans of a run's first `epochs` epochs from the folder `source` to `folder`."""
    spans = [dict(span, epochs=[span["epochs"][0], min(span["epochs"][1], epochs)])
             for span in read(source) if span["epochs"][0] <= epochs]
    if spans != read(folder):
        write_json(folder / FILE_NAME, spans)


def record(folder: Path, epoch: int, facts: Dict[str, object]) -> None:
    """Record the facts of the latest epoch, counted from 1."""
    spans = read(folder)
    if spans and spans[-1] == dict(facts, epochs=[spans[-1]["epochs"][0], epoch - 1]):
        spans[-1]["epochs"][1] = epoch
    else:
        spans.append(dict(epochs=[epoch, epoch], **facts))
    write_json(folder / FILE_NAME, spans)


def whole(folder: Path, epochs: int, rows: Sequence[Dict[str, str]]) -> List[Dict]:
    """The spans of all epochs for a card: unknown facts are None, and `seconds` is None if the log lacks one of the epochs.

    rows: of the log (journal.read_log).
    """
    spans: List[Dict[str, Any]] = []
    last = 0
    for span in read(folder) + [{"epochs": [epochs + 1, epochs + 1]}]:
        if span["epochs"][0] > last + 1:
            spans.append(dict(epochs=[last + 1, span["epochs"][0] - 1], **dict.fromkeys(FACTS)))
        spans.append(span)
        last = span["epochs"][1]
    return [dict(span, seconds=seconds(rows, *span["epochs"])) for span in spans[:-1]]


def seconds(rows: Sequence[Dict[str, str]], first: int, last: int) -> Optional[float]:
    """Duration of the epochs first to last, from the log's rows; None if one is missing."""
    found = [float(row["seconds"]) for row in rows if first <= int(row["epoch"]) <= last]
    return sum(found) if len(found) == last - first + 1 else None


def of_card(recorded: Dict) -> List[Dict]:
    """The spans in a card; an older card without spans gives one for all its epochs."""
    facts = {fact: recorded.get(fact) for fact in FACTS}
    return recorded.get("provenance") or [
        dict(epochs=[1, recorded["epochs"]], **facts, seconds=recorded["training_seconds"])]
