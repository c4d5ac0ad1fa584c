"""Labels that people gave in Azure ML Data Labeling, from the project's export.

An export is one file with all items labelled so far: JSON lines with `label`, `label_confidence` and the item's address
(`image_url` or `text_url`), or a CSV of the same (`Url`, `Label`, `LabelConfidence`, in any case). The key and the cut-off
of an item come from its address, or from columns of the labelled table. When several files label an item, the file whose
name sorts last counts: exports have their time in their name.
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
SKIPPED = ("", "skipped", "skip")  # values of `label` for an item without one
MAX_NAMED = 10  # refused lines that are logged and returned in full


@dataclass(frozen=True)
class ExportedLabels:
    """The content of a model's exports."""

    labels: Mapping[tuple[str, date], int]  # (key, cut-off) → 0 or 1
    digest: str  # of the files' names and contents, 16 hex digits
    unsure: int  # labels below label.export.min_confidence
    skipped: int
    refused: tuple[str, ...]  # a sentence each: file, line, field, remedy


def read_export(config: ModelConfig) -> ExportedLabels:
    """The labels of the model's exports. Raises StageError when there is no export, or no usable label in it.

    The config must have the section `label.export`.
    """
    export = config.label.export
    assert export is not None
    lake = stores.lake()
    names = sorted(blob.name for blob in lake.list(f"{export.folder}/") if blob.name.endswith((".csv", ".jsonl")))
    if not names:
        raise StageError(
            f"no export in {export.folder}/ of the lake: export the labelling project as CSV or JSON lines, and copy the "
            "file there (label.export.folder)"
        )
    digest, labels = hashlib.sha256(), {}
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
                    labels[_item(config, export, row)] = label
            except ValueError as error:
                refused.append(f"{name} line {line}: {error}")
    for sentence in refused[:MAX_NAMED]:
        log.warning(sentence)
    if not labels:
        first = f"; the first refused line: {refused[0]}" if refused else ""
        raise StageError(
            f"{', '.join(names)}: no usable label: {len(refused)} refused, {unsure} below label.export.min_confidence, "
            f"{skipped} skipped{first}"
        )
    return ExportedLabels(labels, digest.hexdigest()[:16], unsure, skipped, tuple(refused))


def _rows(name: str, content: bytes, refused: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each line's number and fields, with names in lower case; lines that cannot be read are added to `refused`."""
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
            fields = json.loads(line)
        except ValueError as error:
            refused.append(f"{name} line {number}: not JSON ({error})")
            continue
        if isinstance(fields, dict):
            yield number, {str(key).lower(): value for key, value in fields.items()}
        else:
            refused.append(f"{name} line {number}: found {type(fields).__name__}; an object is needed")


def _label(export: LabelExport, row: Mapping[str, Any]) -> int | None:
    """0, 1, or None for a skipped item. Raises ValueError for a class that the config does not name."""
    if "label" not in row:
        raise ValueError(f"no field 'label'; there are: {', '.join(row)}")
    label = row["label"]
    if label is None or str(label).strip().lower() in SKIPPED:
        return None
    if not isinstance(label, str):
        raise ValueError(f"label is {label!r}: one class per item is needed, exported from a project of single labels")
    for value, classes in ((1, export.positive), (0, export.negative)):
        if label.strip() in classes:
            return value
    raise ValueError(f"label {label!r} is neither in label.export.positive nor in label.export.negative")


def _confidence(row: Mapping[str, Any]) -> float:
    """1 when the field is missing or empty: labels by people have 1 or no value, those by the assisting model its confidence."""
    confidence = row.get("label_confidence", row.get("labelconfidence"))
    try:
        return 1.0 if confidence in (None, "") else float(str(confidence))
    except ValueError as error:
        raise ValueError(f"label_confidence is {confidence!r}: a number is needed") from error


def _item(config: ModelConfig, export: LabelExport, row: Mapping[str, Any]) -> tuple[str, date]:
    """Key and cut-off of the labelled item."""
    key = config.entity
    if key in row and "as_of" in row:
        key_value, as_of = str(row[key]), str(row["as_of"])
    else:
        address = next((str(row[name]) for name in ADDRESSES if row.get(name)), None)
        if address is None:
            raise ValueError(
                f"neither {key} and as_of nor an address ({', '.join(ADDRESSES)}); there are: {', '.join(row)}"
            )
        match = re.search(export.item, address)
        if match is None:
            raise ValueError(f"{address!r} does not match label.export.item, {export.item!r}")
        key_value, as_of = match["key"], match["as_of"]
    try:
        return key_value, date.fromisoformat(as_of)
    except ValueError as error:
        raise ValueError(f"as_of is {as_of!r}: YYYY-MM-DD is needed") from error
