"""A landed file as a file: is it what its name says, whole, and of a size that can be?

What is found is said in words for whoever is on call: what, where in the file, and what to do. Nothing here
judges values: that is `clean.sql`'s.
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
    from ml.config.sections import Landing
    from ml.storage.stores import Blob, Store

DELIMITERS = {"csv": ",", "tsv": "\t"}
NAMES = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
HEAD = 64 * 1024  # bytes of a text that are looked at
LONGEST_ROW = 1024 * 1024  # characters; the Copy takes no longer ones
MEGABYTE = 1024 * 1024
ROWS = 20_000  # of a parquet file in memory at once
_KINDS = (  # how files of other kinds begin
    (b"PK\x03\x04", "a zip archive, or a spreadsheet"),
    (b"\x1f\x8b", "gzip-compressed"),
    (b"PAR1", "parquet"),
    (b"%PDF", "a PDF"),
    (b"\xd0\xcf\x11\xe0", "an old spreadsheet"),
    (b"<", "HTML or XML, perhaps the page of an error"),
)


@dataclass(frozen=True)
class Inspection:
    """What a landed file is found to be: `problem` says in a sentence why it cannot be used, if it cannot."""

    problem: str | None
    md5: bytes = b""


def inspect_file(landing: Store, blob: Blob, local: Path, limits: Landing) -> Inspection:
    """Inspect a landed file through a copy at `local`, which is gone afterwards. An empty one has no such problem."""
    if not blob.size:
        return Inspection(None)
    if blob.size > limits.max_file_mb * MEGABYTE:
        megabytes = f"{blob.size / MEGABYTE:,.0f} MB"
        return Inspection(_too_large(megabytes, f"landing.max_file_mb ({limits.max_file_mb:,})"))
    landing.fetch(blob.name, local)
    try:
        found = _md5(local)
        if blob.md5 and found != blob.md5:
            return Inspection(
                f"is damaged: its content has MD5 {_told(found)}, but whoever wrote it said {_told(blob.md5)}; "
                "ask upstream to send it again"
            )
        kind = blob.name.rpartition(".")[2]
        if kind == "parquet":
            return Inspection(_parquet_problem(local, limits), found)
        with local.open("rb") as file:
            return Inspection(_text_problem(file.read(HEAD), kind), found)
    finally:
        local.unlink()


def same(files: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, str]]:
    """Of files (name, MD5): the name of each that repeats another one's content, and that other."""
    first: dict[bytes, str] = {}
    for name, digest in files:
        if digest and first.setdefault(digest, name) != name:
            yield name, first[digest]


def _md5(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).digest()


def _told(digest: bytes) -> str:
    return b64encode(digest).decode()


def _too_large(found: str, limit: str) -> str:
    return (
        f"is too large to be a day's file: {found}; {limit} is the limit. Ask upstream what it is, or raise the limit"
    )


def _parquet_problem(path: Path, limits: Landing) -> str | None:
    group = 0
    try:
        # checks each page's sum, where its writer gave one
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            about = file.metadata
            unpacked = sum(about.row_group(n).total_byte_size for n in range(about.num_row_groups)) / MEGABYTE
            if about.num_rows > limits.max_file_rows:
                return _too_large(f"{about.num_rows:,} rows", f"landing.max_file_rows ({limits.max_file_rows:,})")
            if unpacked > limits.max_file_mb:
                limit = f"landing.max_file_mb ({limits.max_file_mb:,})"
                return _too_large(f"{unpacked:,.0f} MB when unpacked", limit)
            rows = 0
            for group in range(about.num_row_groups):
                for batch in file.iter_batches(ROWS, row_groups=[group]):
                    rows += batch.num_rows
            if rows != about.num_rows:
                return f"is damaged: it says it has {about.num_rows:,} rows and has {rows:,}; ask upstream to send it again"
    except (pa.ArrowException, OSError) as error:
        return (
            f"is no whole parquet file (row group {group + 1}: {_short(error)}): it was cut off or damaged on the way; "
            "ask upstream to send it again"
        )
    return None


def _text_problem(head: bytes, kind: str) -> str | None:
    for start, name in _KINDS:
        if head.startswith(start):
            return f"is no {kind} file but {name}; ask upstream for {kind}, as text"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or head.count(0) > len(head) // 10:
        return "is written in UTF-16, or is no text at all; ask upstream to write it as UTF-8"
    if kind not in DELIMITERS:
        return None
    header = _header(head)
    wanted = DELIMITERS[kind]
    if wanted in header:
        return None
    other = max((d for d in NAMES if d != wanted), key=header.count)
    if header.count(other) == 0:
        return None
    return (
        f"has {NAMES[other]} between its columns where {kind} has {NAMES[wanted]} (row 1: {header[:100]!r}); ask "
        f"upstream to write {NAMES[wanted]}" + (", or name the file .tsv" if (kind, other) == ("csv", "\t") else "")
    )


def _header(head: bytes) -> str:
    return re.split(r"\r\n|\n|\r", head.decode("utf-8-sig", "replace"), maxsplit=1)[0]


def why_not_copied(landing: Store, blob: Blob, local: Path) -> str | None:
    """Why the Copy could not read a text file, looked for in all of it; None when nothing is found."""
    kind = blob.name.rpartition(".")[2]
    if kind == "parquet":
        return None
    landing.fetch(blob.name, local)
    try:
        if kind in DELIMITERS:
            with local.open(encoding="utf-8-sig", errors="replace", newline="") as file:
                return _csv_problem(file, DELIMITERS[kind])
        for number, line in enumerate(_lines(local), start=1):
            if len(line) > LONGEST_ROW:
                return _too_long(number)
        return None
    finally:
        local.unlink()


def _csv_problem(file: TextIO, delimiter: str) -> str | None:
    before = csv.field_size_limit(LONGEST_ROW)
    rows, line = csv.reader(file, delimiter=delimiter, strict=True), 0
    try:
        header = next(rows, [])
        if any(not name.strip() for name in header):
            return f"has no name for column {[bool(n.strip()) for n in header].index(False) + 1} in row 1; ask upstream"
        twice = sorted({name for name in header if header.count(name) > 1})
        if twice:
            return f"has the column {twice[0]!r} more than once in row 1; ask upstream which one counts"
        bad = [name for name in header if set(name) & set(",;{}()\n\t=")]
        if bad:
            return f"has a column named {bad[0]!r} in row 1, which cannot be; ask upstream for plain names"
        line = rows.line_num
        for row in rows:
            if sum(map(len, row)) > LONGEST_ROW:
                return _too_long(line + 1)
            line = rows.line_num
    except csv.Error as error:
        return (
            f"cannot be read as rows from line {line + 1} on ({error}); most often a quote is opened there and never "
            "closed. Ask upstream to mend the row and to send the file again"
        )
    finally:
        csv.field_size_limit(before)
    return None


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8-sig", errors="replace", newline="\n") as file:
        yield from file


def _too_long(line: int) -> str:
    return f"has a row longer than {LONGEST_ROW:,} characters in line {line}; ask upstream to send the file again"


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:200]
