"""Labels that people gave in Azure ML Data Labeling, from the project's export.

An export is one file for all items so far: JSON lines with `label`, `label_confidence` and the item's address
(`image_url` or `text_url`), or a CSV of the same (`Url`, `Label`, `LabelConfidence`; whatever their case). The item's
address, or columns that the labelled table had, tell whom and which cut-off it is of. Of several files the one whose
name sorts last has the word: exports carry their time in their name.
Format: https://learn.microsoft.com/azure/machine-learning/how-to-create-text-labeling-projects#export-the-labels
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from ml.config import ModelConfig
from ml.config.sections import LabelExport
from ml.errors import StageError
from ml.storage import stores

log = logging.getLogger(__name__)

ADDRESSES = ("image_url", "text_url", "url")
SKIPPED = ("", "skipped", "skip")  # an item that the labeller passed over has no label
MAX_NAMED = 10  # refused lines that are told in full


@dataclass(frozen=True)
class HumanLabels:
    """What an export says: (key, cut-off) → 0 or 1. `digest` changes whenever what was read does."""

    of: Mapping[tuple[str, date], int]
    digest: str
    unsure: int  # labels below the confidence asked for
    skipped: int
    refused: tuple[str, ...]  # a sentence each: file, line, field, remedy


def read(model: ModelConfig) -> HumanLabels:
    """The labels of the model's export. Raises StageError when there is none, or nothing in it can be used."""
    export = model.label.export
    assert export is not None  # whoever calls has looked
    lake, names = stores.lake(), []
    names = sorted(blob.name for blob in lake.list(f"{export.folder}/") if blob.name.endswith((".csv", ".jsonl")))
    if not names:
        raise StageError(
            f"no export in {export.folder}/ of the lake: export the labelling project as CSV or JSON lines, and copy the "
            "file there (label.export.folder)"
        )
    digest, of = hashlib.sha256(), {}
    unsure = skipped = 0
    refused: list[str] = []
    for name in names:
        content = lake.read(name)
        digest.update(f"{name}\n".encode() + hashlib.sha256(content).digest())
        for line, row in _rows(name, content, refused):
            try:
                label = _label(export, row)
                if label is None:
                    skipped += 1
                elif _confidence(row) < export.min_confidence:
                    unsure += 1
                else:
                    of[_item(model, export, row)] = label
            except ValueError as error:
                refused.append(f"{name} line {line}: {error}")
    for sentence in refused[:MAX_NAMED]:
        log.warning(sentence)
    if not of:
        first = f"; the first refusal: {refused[0]}" if refused else ""
        raise StageError(
            f"{', '.join(names)}: no usable label: {len(refused)} refused, {unsure} below label.export.min_confidence, "
            f"{skipped} skipped{first}"
        )
    return HumanLabels(of, digest.hexdigest()[:16], unsure, skipped, tuple(refused))


def _rows(name: str, content: bytes, refused: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each line with its number, names in lower case; a line that cannot be read is noted in `refused`."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        refused.append(f"{name}: not UTF-8 ({error}): export it again")
        return
    if name.endswith(".csv"):
        for number, row in enumerate(csv.DictReader(io.StringIO(text, newline="")), start=2):
            yield number, {str(key).strip().lower(): value for key, value in row.items()}
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            told = json.loads(line)
        except ValueError as error:
            refused.append(f"{name} line {number}: not JSON ({error})")
            continue
        if isinstance(told, dict):
            yield number, {str(key).lower(): value for key, value in told.items()}
        else:
            refused.append(f"{name} line {number}: found {type(told).__name__}; an object is needed")


def _label(export: LabelExport, row: Mapping[str, Any]) -> int | None:
    if "label" not in row:
        raise ValueError(f"no field 'label'; there are: {', '.join(row)}")
    said = row["label"]
    if said is None or str(said).strip().lower() in SKIPPED:
        return None
    if not isinstance(said, str):
        raise ValueError(f"label is {said!r}: one class per item is needed, exported from a project of single labels")
    for value, classes in ((1, export.positive), (0, export.negative)):
        if said.strip() in classes:
            return value
    raise ValueError(f"label {said!r} is neither in label.export.positive nor in label.export.negative")


def _confidence(row: Mapping[str, Any]) -> float:
    """Labels of people have 1 or nothing; those of the assisting model have its confidence."""
    said = row.get("label_confidence", row.get("labelconfidence"))
    try:
        return 1.0 if said in (None, "") else float(str(said))
    except ValueError as error:
        raise ValueError(f"label_confidence is {said!r}: a number is needed") from error


def _item(model: ModelConfig, export: LabelExport, row: Mapping[str, Any]) -> tuple[str, date]:
    """Whose label it is, and as of when."""
    key = model.features.key
    if key in row and "as_of" in row:
        who, when = str(row[key]), str(row["as_of"])
    else:
        address = next((str(row[name]) for name in ADDRESSES if row.get(name)), None)
        if address is None:
            raise ValueError(
                f"neither {key} and as_of nor an address ({', '.join(ADDRESSES)}); there are: {', '.join(row)}"
            )
        found = re.search(export.item, address)
        if found is None:
            raise ValueError(f"{address!r} does not look like label.export.item, {export.item!r}")
        who, when = found["key"], found["as_of"]
    try:
        return who, date.fromisoformat(when)
    except ValueError as error:
        raise ValueError(f"as_of is {when!r}: YYYY-MM-DD is needed") from error
