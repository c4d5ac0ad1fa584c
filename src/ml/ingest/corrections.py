"""Refused rows that a person has corrected: `corrections.json` in the day's folder of landing.

A correction replaces exactly the row that it corrects, identified by its file and by what was received; it adds no
row. So `received = silver + quarantined + exact duplicates` holds as before. It is part of what landed for the day:
it starts the day again, and is applied whenever the day is rebuilt. When upstream sends the file again, unchanged
rows stay corrected; for a row that upstream has changed, upstream's version counts and its correction is not applied.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ml.config import SourceConfig
from ml.ingest import bronze
from ml.ingest.bronze import BronzeFile
from ml.ingest.copy_log import Skipped
from ml.storage.stores import Blob, Store

LINE = "line"  # the only key of the record of a row that could not be parsed, in place of columns


class CorrectionsError(ValueError):
    """A corrections file that cannot be used; the message names it and what to do."""


@dataclass(frozen=True)
class Correction:
    """One row of a landed file: as it was received (columns, or its `line`), and its corrected columns."""

    file: str  # its path in landing
    record: dict[str, str | None]
    values: dict[str, str | None]

    @property
    def line(self) -> str | None:
        """The row's text, when it could not be parsed."""
        return (self.record[LINE] or "") if self.record.keys() == {LINE} else None

    @property
    def key(self) -> tuple[str, str]:
        return self.file, json.dumps(self.record, sort_keys=True)


def load_corrections(source: SourceConfig, landing: Store, blob: Blob | None) -> list[Correction]:
    """The corrections of a day; empty without a file. Raises CorrectionsError."""
    if blob is None:
        return []
    try:
        rows = json.loads(landing.read(blob.name))["rows"]
        return [_parse(source, row) for row in rows]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorrectionsError(
            f"{blob.name} is not as ml reenter writes it for the columns of {source.name} "
            f"({type(error).__name__}: {error}); delete it and correct the rows again"
        ) from error


def dump_corrections(corrections: Iterable[Correction]) -> bytes:
    """The content of a corrections file; the same bytes whatever the order of the corrections."""
    rows = [
        {"file": correction.file, "record": correction.record, "values": correction.values}
        for correction in sorted(corrections, key=lambda correction: correction.key)
    ]
    return json.dumps({"rows": rows}, indent=1, ensure_ascii=False).encode()


def _parse(source: SourceConfig, row: Mapping[str, Any]) -> Correction:
    record, values = row["record"], row["values"]
    # a source that got a column since then has no value in rows from before
    if not set(source.required_columns) <= set(values) <= set(source.columns):
        raise ValueError(f"columns {sorted(values)}")
    names = record.keys() if record.keys() == {LINE} else source.columns
    return Correction(
        row["file"], {name: record.get(name) for name in names}, {name: values.get(name) for name in source.columns}
    )


class Overlay:
    """Corrections of some days, applied to the rows of their files. `used` has the keys of those whose row came."""

    def __init__(self, source: SourceConfig, corrections: Mapping[date, Sequence[Correction]]) -> None:
        self._source = source
        self._all = [correction for of_day in corrections.values() for correction in of_day]
        self._rows: defaultdict[str, dict[str, Correction]] = defaultdict(dict)  # by file and joined columns
        self._lines: defaultdict[str, dict[str, Correction]] = defaultdict(dict)  # by file and text
        for correction in self._all:
            if correction.line is not None:
                self._lines[correction.file][correction.line] = correction
            else:
                self._rows[correction.file][_join_record(source, correction.record)] = correction
        self.used: set[tuple[str, str]] = set()

    def unused(self) -> list[Correction]:
        """Corrections whose row is no longer in its file: upstream has changed or withdrawn it."""
        return [correction for correction in self._all if correction.key not in self.used]

    def batches(self, file: BronzeFile) -> Iterator[pa.RecordBatch]:
        """The rows of a file, corrected."""
        corrections = self._rows.get(file.name)
        for batch in file.batches():
            yield self._correct(batch, corrections) if corrections else batch

    def _correct(self, batch: pa.RecordBatch, corrections: dict[str, Correction]) -> pa.RecordBatch:
        names = self._source.column_names
        received = _join_columns(self._source, batch)
        places = pc.indices_nonzero(pc.is_in(received, pa.array(list(corrections), pa.string()))).to_pylist()
        if not places:
            return batch
        columns = {name: batch[name].to_pylist() if name in names else batch[name] for name in batch.schema.names}
        for place in places:
            correction = corrections[received[place].as_py()]
            self.used.add(correction.key)
            for name in names:
                columns[name][place] = correction.values[name]
        fields = [pa.array(columns[field.name], field.type) for field in batch.schema]
        return pa.record_batch(fields, schema=batch.schema)

    def apply_to_skipped(self, skipped: Sequence[Skipped]) -> tuple[list[Skipped], pa.Table]:
        """Split rows that could not be parsed: those without a correction, and the corrected ones as bronze rows.

        A corrected row has the number that the Copy gave it, negated, because data rows are counted differently.
        """
        remaining, rows = [], []
        for number, row in enumerate(skipped, start=1):
            correction = self._lines.get(row.name, {}).get(row.item)
            if correction is None:
                remaining.append(row)
                continue
            self.used.add(correction.key)
            rows.append({"_day": row.day, "_file": row.file, "_row": -(row.row or number), **correction.values})
        return remaining, pa.Table.from_pylist(rows, bronze.schema(self._source))


def _join_columns(source: SourceConfig, rows: pa.RecordBatch) -> pa.Array:
    """One text per row, the same as `_join_record` makes of its record."""
    texts = [rows[name] for name in source.columns]
    return pc.binary_join_element_wise(*texts, "\x1f", null_handling="replace", null_replacement="\x00")


def _join_record(source: SourceConfig, record: Mapping[str, str | None]) -> str:
    return "\x1f".join("\x00" if (value := record[name]) is None else value for name in source.columns)
