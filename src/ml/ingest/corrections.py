"""Refused rows as a person has mended them: `corrections.json` in the day's folder of landing.

A correction takes the place of the very row it mends, told by its file and what was received; it adds none.
So `received = silver + quarantined + exact duplicates` holds as before. It is part of what landed for the day:
it starts the day again, and it is there when the day is rebuilt. When upstream sends the file again, rows that
are still the same stay corrected; a row that upstream has changed is upstream's word, and its correction rests.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ml.ingest.bronze import COLUMNS, SCHEMA, BronzeFile
from ml.ingest.copy_log import Skipped
from ml.storage.stores import Blob, Store

LINE = "line"  # what a row that could not be parsed has in place of columns


class CorrectionsError(ValueError):
    """A corrections file that cannot be used; the message names it and what to do."""


@dataclass(frozen=True)
class Correction:
    """One row of a landed file: as it was received (columns, or its `line`), and the columns it has now."""

    file: str  # its path in landing
    record: dict[str, str | None]
    values: dict[str, str | None]

    @property
    def key(self) -> tuple[str, str]:
        return self.file, json.dumps(self.record, sort_keys=True)


def load_corrections(landing: Store, blob: Blob | None) -> list[Correction]:
    """The corrections of a day, which may have none. Raises CorrectionsError."""
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
    """The same corrections give the same bytes, in whatever order they are."""
    rows = sorted(corrections, key=lambda one: one.key)
    told = [{"file": one.file, "record": one.record, "values": one.values} for one in rows]
    return json.dumps({"rows": told}, indent=1, ensure_ascii=False).encode()


def _record(found: Any) -> dict[str, str | None]:
    return {LINE: str(found[LINE])} if LINE in found else {name: found[name] for name in COLUMNS}


def _values(found: Any) -> dict[str, str | None]:
    if set(found) != set(COLUMNS):
        raise ValueError(f"columns {sorted(found)}")
    return {name: found[name] for name in COLUMNS}


class Overlay:
    """The corrections of some days, laid over the rows of their files. `used` are those that met their row."""

    def __init__(self, corrections: dict[date, list[Correction]]) -> None:
        self._by_file: dict[str, dict[str, Correction]] = {}
        for some in corrections.values():
            for one in some:
                key = one.record[LINE] or "" if LINE in one.record else _joined_record(one.record)
                self._by_file.setdefault(one.file, {})[key] = one
        self.used: set[tuple[str, str]] = set()
        self._all = [one for some in corrections.values() for one in some]

    def unused(self) -> list[Correction]:
        """Corrections whose row is not there any more: upstream has sent it anew, or withdrawn it."""
        return [one for one in self._all if one.key not in self.used]

    def batches(self, file: BronzeFile) -> Iterator[pa.RecordBatch]:
        """The rows of a file, corrected."""
        mended = self._by_file.get(file.name)
        for batch in file.batches():
            yield self._mend(batch, mended) if mended else batch

    def _mend(self, batch: pa.RecordBatch, mended: dict[str, Correction]) -> pa.RecordBatch:
        texts = _joined(batch)
        places = pc.indices_nonzero(pc.is_in(texts, pa.array(list(mended), pa.string()))).to_pylist()
        if not places:
            return batch
        columns = {name: batch[name].to_pylist() if name in COLUMNS else batch[name] for name in SCHEMA.names}
        for place in places:
            correction = mended[texts[place].as_py()]
            self.used.add(correction.key)
            for name in COLUMNS:
                columns[name][place] = correction.values[name]
        return pa.record_batch([pa.array(columns[f.name], f.type) for f in SCHEMA], schema=SCHEMA)

    def parsed(self, skipped: Sequence[Skipped]) -> tuple[list[Skipped], pa.Table]:
        """The rows that still could not be parsed, and those that a person has written anew.

        The latter have the row's number as the Copy told it, made negative: data rows are counted otherwise.
        """
        left, rows = [], []
        for number, row in enumerate(skipped, start=1):
            correction = self._by_file.get(row.name, {}).get(row.item)
            if correction is None or LINE not in correction.record:
                left.append(row)
                continue
            self.used.add(correction.key)
            rows.append({"_day": row.day, "_file": row.file, "_row": -(row.row or number), **correction.values})
        return left, pa.Table.from_pylist(rows, SCHEMA)


def _joined(rows: pa.RecordBatch) -> pa.Array:
    texts = [rows[name] for name in COLUMNS]
    return pc.binary_join_element_wise(*texts, "\x1f", null_handling="replace", null_replacement="\x00")


def _joined_record(record: dict[str, str | None]) -> str:
    return "\x1f".join("\x00" if (value := record[name]) is None else value for name in COLUMNS)
