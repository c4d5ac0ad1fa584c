"""The file formats that Data Factory's Copy activity reads, each as a stream of record batches.

A reader reads one file on disk and holds a few megabytes of it in memory at most.
"""

from __future__ import annotations

import codecs
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

# Bytes of a delimited file that are read at once: also the maximum length of a row. Arrow reads several blocks ahead:
# with blocks of 4 MiB a copy needed 250 MB instead of 110.
_BLOCK = 1024 * 1024
_JSON_ROWS = 20_000  # rows per batch
# A last line that is appended to every delimited file. To pyarrow the end of the file closes an open quote, so the
# rest of the file would become one value without an error: in that case this line is missing from the rows.
_END = "\x1eend of file\x1e"


class CopyError(Exception):
    """A Copy activity fails: the service's error code and a message with file and row."""

    def __init__(self, code: str, message: str, failure_type: str = "UserError") -> None:
        super().__init__(
            f"ErrorCode={code},'Type=Microsoft.DataTransfer.Common.Shared.HybridDeliveryException,"
            f"Message={message},Source=Microsoft.DataTransfer.Common,'"
        )
        self.code = code
        self.failure_type = failure_type


@dataclass(frozen=True)
class BadRow:
    """A row that does not match its file: its text as received, and the error."""

    text: str
    error: CopyError


@dataclass(frozen=True)
class Rows:
    """The columns and rows of a file. Iterating the rows may raise CopyError."""

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]


Skip = Callable[[BadRow], None]  # receives each row that is skipped
Reader = Callable[[Path, str, dict[str, Any], Skip | None], Rows]


def delimited_text(path: Path, name: str, properties: dict[str, Any], skip: Skip | None) -> Rows:
    """Delimited text such as CSV. Every column is text; an empty value without quotes is null.

    `properties` are those of the DelimitedText dataset. A row with more or fewer values than the first is passed to
    `skip`; without `skip` it fails the copy.
    """
    failure: list[CopyError] = []
    met_end = False

    def bad_row(row: pa_csv.InvalidRow) -> str:
        nonlocal met_end
        if row.text == _END:
            met_end = True
            return "skip"
        difference = "more" if row.actual_columns > row.expected_columns else "fewer"
        error = CopyError(
            f"DelimitedText{difference.capitalize()}ColumnsThanDefined",
            f"Error found when processing 'Csv/Tsv Format Text' source '{name}' with row number {row.number}: "
            f"found {difference} columns than expected column count {row.expected_columns}.",
        )
        if skip is not None:
            skip(BadRow(row.text, error))
            return "skip"
        failure.append(error)
        return "error"

    header = bool(properties.get("firstRowAsHeader", False))
    encoding = str(properties.get("encodingName", "UTF-8"))
    content = _Recoded(path.open("rb"), encoding)
    try:
        reader = pa_csv.open_csv(
            io.BufferedReader(content, _BLOCK),
            read_options=pa_csv.ReadOptions(use_threads=False, block_size=_BLOCK, autogenerate_column_names=not header),
            parse_options=_parse_options(properties, bad_row),
            convert_options=pa_csv.ConvertOptions(
                default_column_type=pa.string(),
                null_values=[str(properties.get("nullValue", ""))],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid as error:
        if content.empty:  # pyarrow raises the same error for a header whose quote is never closed
            return Rows(pa.schema([]), iter(()))
        raise failure[0] if failure else _bad_text(name, 1, str(error)) from error
    names = reader.schema.names if header else [f"Prop_{n}" for n in range(len(reader.schema))]
    if any(_END in column for column in names):
        raise _bad_text(name, 1, "a quote is never closed")
    _check_header(names, name)
    schema = pa.schema([(column, pa.string()) for column in names])

    def batches() -> Iterator[pa.RecordBatch]:
        nonlocal met_end
        rows_read = 1 if header else 0
        while True:
            try:
                batch = reader.read_next_batch()
            except StopIteration:
                if not met_end:
                    raise _bad_text(name, rows_read, "a quote is never closed") from None
                return
            except pa.ArrowInvalid as error:
                raise failure[0] if failure else _bad_text(name, rows_read + 1, str(error)) from error
            if len(schema) == 1 and batch.num_rows and batch.column(0)[-1].as_py() == _END:
                met_end = True
                batch = batch.slice(0, batch.num_rows - 1)
            rows_read += batch.num_rows
            yield pa.record_batch(batch.columns, schema=schema)

    return Rows(schema, batches())


def _parse_options(properties: dict[str, Any], bad_row: Callable[[pa_csv.InvalidRow], str]) -> pa_csv.ParseOptions:
    quote, escape = str(properties.get("quoteChar", '"')), str(properties.get("escapeChar", "\\"))
    return pa_csv.ParseOptions(
        delimiter=str(properties.get("columnDelimiter", ",")),
        quote_char=quote or False,
        # The same character for both: a quote inside quotes is written twice.
        double_quote=bool(quote) and escape == quote,
        escape_char=escape if escape and escape != quote else False,
        newlines_in_values=True,
        invalid_row_handler=bad_row,
    )


def _check_header(names: list[str], name: str) -> None:
    for index, column in enumerate(names):
        if not column.strip():
            raise CopyError(
                "DelimitedTextColumnNameNotAllowNull",
                f"The name of column index {index} is empty in the header row of '{name}'. Make sure column name is "
                "properly specified in the header row.",
            )
    check_unique(names, name)


def check_unique(names: list[str], name: str) -> None:
    duplicates = sorted({column for column in names if names.count(column) > 1})
    if duplicates:
        raise CopyError(
            "UserErrorDuplicateColumnName",
            f"'{name}' has the column name '{duplicates[0]}' more than once. Make sure that column names are unique.",
        )


def _bad_text(name: str, row: int, error: str) -> CopyError:
    return CopyError(
        "DelimitedTextBadDataDetected",
        f"Bad data is found in '{name}' at row number {row} or after it: {error}. Make sure that every quote is closed "
        f"and no row is longer than {_BLOCK} bytes.",
    )


class _Recoded(io.RawIOBase):
    """A binary file of any encoding, read as UTF-8, with `_END` appended unless it is empty.

    Bytes that cannot be decoded become U+FFFD, as in the service.
    """

    def __init__(self, file: IO[bytes], encoding: str) -> None:
        self._file = file
        known = codecs.lookup(encoding).name
        self._decode = codecs.getincrementaldecoder("utf-8-sig" if known == "utf-8" else known)("replace").decode
        self._pending = b""
        self.empty = True  # until text is read
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._pending and not self._ended:
            chunk = self._file.read(len(buffer))
            self._ended = not chunk
            self._pending = self._decode(chunk, final=self._ended).encode()
            self.empty = self.empty and not self._pending.strip()
            if self._ended and not self.empty:
                self._pending += f"\n{_END}\n".encode()
        size = min(len(buffer), len(self._pending))
        buffer[:size] = self._pending[:size]
        self._pending = self._pending[size:]
        return size

    def close(self) -> None:
        self._file.close()
        super().close()


def json_lines(path: Path, name: str, properties: dict[str, Any], _skip: Skip | None) -> Rows:
    """One JSON object per line. The columns are the keys of all objects; a column with several types is text.

    A line that is not a JSON object fails the copy, as in the service, even when bad rows are skipped.
    Objects and lists inside a row become JSON text.
    """
    encoding = str(properties.get("encodingName", "UTF-8"))
    kinds: dict[str, str] = {}
    for record in _json_records(path, name, encoding):
        for key, value in record.items():
            kind = _kind(value)
            known = kinds.get(key, "null")
            kinds[key] = kind if known in ("null", kind) else known if kind == "null" else _common_kind(known, kind)
    types = {"bool": pa.bool_(), "int": pa.int64(), "float": pa.float64()}
    schema = pa.schema([(key, types.get(kind, pa.string())) for key, kind in kinds.items()])

    def batch(records: list[dict[str, Any]]) -> pa.RecordBatch:
        columns = [
            pa.array([_converted(r.get(field.name), field.type) for r in records], type=field.type) for field in schema
        ]
        return pa.record_batch(columns, schema=schema)

    def batches() -> Iterator[pa.RecordBatch]:
        records: list[dict[str, Any]] = []
        for record in _json_records(path, name, encoding):
            records.append(record)
            if len(records) == _JSON_ROWS:
                yield batch(records)
                records = []
        if records:
            yield batch(records)

    return Rows(schema, batches())


def _json_records(path: Path, name: str, encoding: str) -> Iterator[dict[str, Any]]:
    known = codecs.lookup(encoding).name
    with path.open(encoding="utf-8-sig" if known == "utf-8" else known, errors="replace", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line, parse_constant=_no_constant)
            except ValueError as error:
                raise _bad_json(name, number, str(error)) from error
            if not isinstance(record, dict):
                raise _bad_json(name, number, f"found {type(record).__name__}, not an object")
            yield record


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _bad_json(name: str, number: int, problem: str) -> CopyError:
    return CopyError(
        "JsonInvalidDataFormat",
        f"Error occurred when deserializing source JSON file '{name}' at row number {number}: {problem}. Check if the "
        "data is in valid JSON object format, one object per line.",
    )


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if -(2**63) <= value < 2**63 else "text"
    return "float" if isinstance(value, float) else "text"


def _common_kind(kind: str, other: str) -> str:
    return "float" if {kind, other} == {"int", "float"} else "text"


def _converted(value: Any, kind: pa.DataType) -> Any:
    if pa.types.is_string(kind) and value is not None and not isinstance(value, str):
        return json.dumps(value)
    return float(value) if pa.types.is_floating(kind) and value is not None else value


def parquet(path: Path, name: str, _properties: dict[str, Any], _skip: Skip | None) -> Rows:
    """Parquet, with its own types."""
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise _bad_parquet(name, error) from error

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            yield from file.iter_batches()
        except (pa.ArrowInvalid, OSError) as error:
            raise _bad_parquet(name, error) from error

    return Rows(file.schema_arrow, batches())


def _bad_parquet(name: str, error: Exception) -> CopyError:
    return CopyError(
        "ParquetInvalidFile", f"File '{name}' is not a valid Parquet file: {error}. Send the whole file again."
    )


READERS: dict[str, Reader] = {"DelimitedText": delimited_text, "Json": json_lines, "Parquet": parquet}
