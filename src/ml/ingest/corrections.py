"""Refused rows that a person has corrected: `corrections.json` in the day's folder of landing.

A correction replaces exactly the row that it corrects, identified by its file and by what was received; it adds no
row. So `received = silver + quarantined + exact duplicates` holds as before. It is part of what landed for the day:
it starts the day again, and is applied whenever the day is rebuilt. When upstream sends the file again, unchanged
rows stay corrected; for a row that upstream has changed, upstream's version counts and its correction is not applied.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ml.ingest.bronze import COLUMNS, SCHEMA, BronzeFile
from ml.ingest.copy_log import Skipped
from ml.storage.stores import Blob, Store

LINE = "line"  # the key of the record of a row that could not be parsed, in place of columns


class CorrectionsError(ValueError):
    """A corrections file that cannot be used; the message names it and what to do."""


@dataclass(frozen=True)
class Correction:
    """One row of a landed file: as it was received (columns, or its `line`), and its corrected columns."""

    file: str  # its path in landing
    record: dict[str, str | None]
    values: dict[str, str | None]

    @property
    def key(self) -> tuple[str, str]:
        return self.file, json.dumps(self.record, sort_keys=True)


def load_corrections(landing: Store, blob: Blob | None) -> list[Correction]:
    """The corrections of a day; empty without a file. Raises CorrectionsError."""
    if blob is None:
        return []
    try:
        rows = json.loads(landing.read(blob.name))["rows"]
        return [Correction(row["file"], _record(row["record"]), _values(row["values"])) for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise CorrectionsError(
            f"{blob.name} is not as ml reenter writes it ({type(error).__name__}: {error}); delete it and correct the "
            "rows again"
        ) from error


def dump_corrections(corrections: Iterable[Correction]) -> bytes:
    """The content of a corrections file; the same bytes whatever the order of the corrections."""
    rows = [
        {"file": correction.file, "record": correction.record, "values": correction.values}
        for correction in sorted(corrections, key=lambda correction: correction.key)
    ]
    return json.dumps({"rows": rows}, indent=1, ensure_ascii=False).encode()


def _record(record: Mapping[str, Any]) -> dict[str, str | None]:
    return {LINE: str(record[LINE])} if LINE in record else {name: record[name] for name in COLUMNS}


def _values(values: Mapping[str, Any]) -> dict[str, str | None]:
    if set(values) != set(COLUMNS):
        raise ValueError(f"columns {sorted(values)}")
    return {name: values[name] for name in COLUMNS}


class Overlay:
    """Corrections of some days, applied to the rows of their files. `used` has the keys of those whose row came."""

    def __init__(self, corrections: Mapping[date, Sequence[Correction]]) -> None:
        self._all = [correction for of_day in corrections.values() for correction in of_day]
        self._by_file: dict[str, dict[str, Correction]] = {}
        for correction in self._all:
            record = correction.record
            received = record[LINE] or "" if LINE in record else _join_record(record)
            self._by_file.setdefault(correction.file, {})[received] = correction
        self.used: set[tuple[str, str]] = set()

    def unused(self) -> list[Correction]:
        """Corrections whose row is no longer in its file: upstream has changed or withdrawn it."""
        return [correction for correction in self._all if correction.key not in self.used]

    def batches(self, file: BronzeFile) -> Iterator[pa.RecordBatch]:
        """The rows of a file, corrected."""
        corrections = self._by_file.get(file.name)
        for batch in file.batches():
            yield self._correct(batch, corrections) if corrections else batch

    def _correct(self, batch: pa.RecordBatch, corrections: dict[str, Correction]) -> pa.RecordBatch:
        received = _join_columns(batch)
        places = pc.indices_nonzero(pc.is_in(received, pa.array(list(corrections), pa.string()))).to_pylist()
        if not places:
            return batch
        columns = {name: batch[name].to_pylist() if name in COLUMNS else batch[name] for name in SCHEMA.names}
        for place in places:
            correction = corrections[received[place].as_py()]
            self.used.add(correction.key)
            for name in COLUMNS:
                columns[name][place] = correction.values[name]
        return pa.record_batch([pa.array(columns[f.name], f.type) for f in SCHEMA], schema=SCHEMA)

    def apply_to_skipped(self, skipped: Sequence[Skipped]) -> tuple[list[Skipped], pa.Table]:
        """Split rows that could not be parsed: those without a correction, and the corrected ones as bronze rows.

        A corrected row has the number that the Copy gave it, negated, because data rows are counted differently.
        """
        remaining, rows = [], []
        for number, row in enumerate(skipped, start=1):
            correction = self._by_file.get(row.name, {}).get(row.item)
            if correction is None or LINE not in correction.record:
                remaining.append(row)
                continue
            self.used.add(correction.key)
            rows.append({"_day": row.day, "_file": row.file, "_row": -(row.row or number), **correction.values})
        return remaining, pa.Table.from_pylist(rows, SCHEMA)


def _join_columns(rows: pa.RecordBatch) -> pa.Array:
    """One text per row, the same as `_join_record` makes of its record."""
    texts = [rows[name] for name in COLUMNS]
    return pc.binary_join_element_wise(*texts, "\x1f", null_handling="replace", null_replacement="\x00")


def _join_record(record: Mapping[str, str | None]) -> str:
    return "\x1f".join("\x00" if (value := record[name]) is None else value for name in COLUMNS)
