"""Inspection of a landed file: is it what its name says, is it whole, and is its size plausible?

A problem is a sentence for the person on call: what is wrong, where in the file, and what to do. Values are not
checked here; the cleaning query does that.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from ml.config.source import Landing
    from ml.storage.stores import Blob, Store

DELIMITERS = {"csv": ",", "tsv": "\t"}
DELIMITER_NAMES = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
HEAD_BYTES = 64 * 1024  # of a text file that are inspected
LONGEST_ROW = 1024 * 1024  # characters; the Copy refuses longer rows
MEGABYTE = 1024 * 1024
BATCH_ROWS = 20_000  # of a parquet file in memory at once
_SIGNATURES = (  # first bytes of files of other kinds
    (b"PK\x03\x04", "a zip archive, or a spreadsheet"),
    (b"\x1f\x8b", "gzip-compressed"),
    (b"PAR1", "parquet"),
    (b"%PDF", "a PDF"),
    (b"\xd0\xcf\x11\xe0", "an old spreadsheet"),
    (b"<", "HTML or XML, perhaps the page of an error"),
)


@dataclass(frozen=True)
class Inspection:
    """The result of an inspection: `problem` is a sentence that says why the file cannot be used, else None."""

    problem: str | None
    md5: bytes = b""


def inspect_file(landing: Store, blob: Blob, local: Path, limits: Landing) -> Inspection:
    """Inspect a landed file in a copy at `local`, which is deleted afterwards. An empty file has no problem here."""
    if not blob.size:
        return Inspection(None)
    if blob.size > limits.max_file_mb * MEGABYTE:
        megabytes = f"{blob.size / MEGABYTE:,.0f} MB"
        return Inspection(_too_large(megabytes, f"landing.max_file_mb ({limits.max_file_mb:,})"))
    landing.fetch(blob.name, local)
    try:
        md5 = _md5(local)
        if blob.md5 and md5 != blob.md5:
            return Inspection(
                f"is damaged: its content has MD5 {_base64(md5)}, but its writer declared {_base64(blob.md5)}; "
                "ask upstream to send it again"
            )
        kind = blob.name.rpartition(".")[2]
        if kind == "parquet":
            return Inspection(_find_parquet_problem(local, limits), md5)
        with local.open("rb") as file:
            return Inspection(_find_text_problem(file.read(HEAD_BYTES), kind), md5)
    finally:
        local.unlink()


def repeated_content(files: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, str]]:
    """Pairs of names out of `files` (name, MD5): a file that repeats the content of an earlier one, and that one."""
    first: dict[bytes, str] = {}
    for name, digest in files:
        if digest and first.setdefault(digest, name) != name:
            yield name, first[digest]


def _md5(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).digest()


def _base64(digest: bytes) -> str:
    return b64encode(digest).decode()


def _too_large(size: str, limit: str) -> str:
    return f"is too large to be a day's file: {size}; {limit} is the limit. Ask upstream what it is, or raise the limit"


def _find_parquet_problem(path: Path, limits: Landing) -> str | None:
    group = 0
    try:
        # verifies the checksum of each page that has one
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            metadata = file.metadata
            unpacked = sum(metadata.row_group(n).total_byte_size for n in range(metadata.num_row_groups)) / MEGABYTE
            if metadata.num_rows > limits.max_file_rows:
                return _too_large(f"{metadata.num_rows:,} rows", f"landing.max_file_rows ({limits.max_file_rows:,})")
            if unpacked > limits.max_file_mb:
                limit = f"landing.max_file_mb ({limits.max_file_mb:,})"
                return _too_large(f"{unpacked:,.0f} MB when unpacked", limit)
            rows = 0
            for group in range(metadata.num_row_groups):
                for batch in file.iter_batches(BATCH_ROWS, row_groups=[group]):
                    rows += batch.num_rows
            if rows != metadata.num_rows:
                return (
                    f"is damaged: its metadata says {metadata.num_rows:,} rows and it has {rows:,}; ask upstream to "
                    "send it again"
                )
    except (pa.ArrowException, OSError) as error:
        return (
            f"is not a whole parquet file (row group {group + 1}: {_short(error)}): it was cut off or damaged on the way; "
            "ask upstream to send it again"
        )
    return None


def _find_text_problem(head: bytes, kind: str) -> str | None:
    for start, name in _SIGNATURES:
        if head.startswith(start):
            return f"is not a {kind} file but {name}; ask upstream for {kind}, as text"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or head.count(0) > len(head) // 10:
        return "is written in UTF-16, or is not text at all; ask upstream to write it as UTF-8"
    if kind not in DELIMITERS:
        return None
    header = _header(head)
    expected = DELIMITERS[kind]
    if expected in header:
        return None
    other = max((d for d in DELIMITER_NAMES if d != expected), key=header.count)
    if header.count(other) == 0:
        return None
    return (
        f"has {DELIMITER_NAMES[other]} between its columns where {kind} has {DELIMITER_NAMES[expected]} (row 1: {header[:100]!r}); ask "
        f"upstream to write {DELIMITER_NAMES[expected]}"
        + (", or name the file .tsv" if (kind, other) == ("csv", "\t") else "")
    )


def _header(head: bytes) -> str:
    return re.split(r"\r\n|\n|\r", head.decode("utf-8-sig", "replace"), maxsplit=1)[0]


def explain_failed_copy(landing: Store, blob: Blob, local: Path) -> str | None:
    """Why the Copy could not read a text file, from a search of the whole file; None when nothing is found."""
    kind = blob.name.rpartition(".")[2]
    if kind == "parquet":
        return None
    landing.fetch(blob.name, local)
    try:
        if kind in DELIMITERS:
            with local.open(encoding="utf-8-sig", errors="replace", newline="") as file:
                return _find_csv_problem(file, DELIMITERS[kind])
        for number, line in enumerate(_read_lines(local), start=1):
            if len(line) > LONGEST_ROW:
                return _too_long(number)
        return None
    finally:
        local.unlink()


def _find_csv_problem(file: TextIO, delimiter: str) -> str | None:
    before = csv.field_size_limit(LONGEST_ROW)
    rows, line = csv.reader(file, delimiter=delimiter, strict=True), 0
    try:
        header = next(rows, [])
        if any(not name.strip() for name in header):
            return f"has no name for column {[bool(n.strip()) for n in header].index(False) + 1} in row 1; ask upstream"
        repeated = sorted({name for name in header if header.count(name) > 1})
        if repeated:
            return f"has the column {repeated[0]!r} more than once in row 1; ask upstream which one counts"
        unusable = [name for name in header if set(name) & set(",;{}()\n\t=")]
        if unusable:
            return f"has a column named {unusable[0]!r} in row 1, which is not possible; ask upstream for plain names"
        line = rows.line_num
        for row in rows:
            if sum(map(len, row)) > LONGEST_ROW:
                return _too_long(line + 1)
            line = rows.line_num
    except csv.Error as error:
        return (
            f"cannot be read as rows from line {line + 1} on ({error}); most often a quote is opened there and never "
            "closed. Ask upstream to correct the row and to send the file again"
        )
    finally:
        csv.field_size_limit(before)
    return None


def _read_lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8-sig", errors="replace", newline="\n") as file:
        yield from file


def _too_long(line: int) -> str:
    return f"has a row longer than {LONGEST_ROW:,} characters in line {line}; ask upstream to send the file again"


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:200]
