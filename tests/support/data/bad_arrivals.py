"""Bad arrivals and their outcomes, as data: the rows of docs/bad-arrivals.md."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from tests.support.data.bronze_days import row

Row = Mapping[str, Any]
Account = tuple[int, int, int, int]  # received, silver, quarantined, exact duplicates
HEADER = ",".join(row())


def rows(day: date, *numbers: int, **changed: Any) -> list[dict[str, Any]]:
    return [row(n, **{"occurred_at": f"{day}T10:00:00", **changed}) for n in numbers or (1, 2)]


def as_csv(lines: Sequence[Row], delimiter: str = ",") -> bytes:
    sink = io.BytesIO()
    table = pa.Table.from_pylist([dict(line) for line in lines])
    csv.write_csv(table, sink, csv.WriteOptions(delimiter=delimiter, quoting_style="needed"))
    return sink.getvalue()


def as_jsonl(lines: Sequence[Row]) -> bytes:
    return "".join(json.dumps(dict(line)) + "\n" for line in lines).encode()


def as_parquet(lines: Sequence[Row] | pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    table = lines if isinstance(lines, pa.Table) else pa.Table.from_pylist([dict(line) for line in lines])
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def _flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :]


def _bomb(day: date) -> bytes:
    """A hundred thousand rows, in a few hundred bytes per column."""
    values = rows(day, 1)[0]
    return as_parquet(pa.table({name: pa.repeat(value, 100_000) for name, value in values.items()}))


@dataclass(frozen=True)
class Arrival:
    """`files` returns the day's files by name. `reasons` are parts of the reasons of a held day.

    `columns` are the columns for which rows were refused (None: the row could not be parsed). `md5` is declared for
    the files in place of their own. `landing` are settings of the config's section.
    """

    id: str
    files: Callable[[date], dict[str, bytes]]
    outcome: Literal["held", "taken"] = "taken"
    reasons: tuple[str, ...] = ()
    account: Account = (0, 0, 0, 0)
    columns: tuple[str | None, ...] = ()
    md5: bytes = b""
    landing: Mapping[str, Any] = field(default_factory=dict)


def _one_file(name: str, content: Callable[[date], bytes]) -> Callable[[date], dict[str, bytes]]:
    return lambda day: {name: content(day)}


def _beside_good_file(name: str, content: Callable[[date], bytes]) -> Callable[[date], dict[str, bytes]]:
    return lambda day: {"good.csv": as_csv(rows(day, 8, 9)), name: content(day)}


def _refused(*columns: str | None, good: int = 2, **changed: Any) -> dict[str, Any]:
    """A csv file with good rows and one bad row."""
    return {
        "files": _one_file("x.csv", lambda day: as_csv([*rows(day, *range(good)), *rows(day, 99, **changed)])),
        "account": (good + 1, good, 1, 0),
        "columns": columns,
    }


ARRIVALS = [
    # files that cannot be used hold their day
    Arrival("empty-file", _beside_good_file("x.csv", lambda _: b""), "held", ("x.csv has no rows",)),
    Arrival("empty-parquet-file", _one_file("x.parquet", lambda _: b""), "held", ("x.parquet has no rows",)),
    Arrival("header-only", _one_file("x.csv", lambda _: f"{HEADER}\n".encode()), "held", ("x.csv has no rows",)),
    Arrival(
        "truncated-parquet",
        _beside_good_file("x.parquet", lambda day: as_parquet(rows(day))[:-60]),
        "held",
        ("x.parquet is not a whole parquet file", "cut off or damaged", "send it again"),
    ),
    Arrival(
        "flipped-bit-in-parquet",
        _one_file("x.parquet", lambda day: _flipped(as_parquet(rows(day), write_page_checksum=True), 60)),
        "held",
        ("x.parquet is not a whole parquet file", "row group 1", "send it again"),
    ),
    Arrival(
        "other-content-than-its-checksum-says",
        _one_file("x.csv", lambda day: as_csv(rows(day))),
        "held",
        ("x.csv is damaged: its content has MD5", "send it again"),
        md5=b"0123456789abcdef",
    ),
    Arrival(
        "semicolons-in-csv",
        _one_file("x.csv", lambda day: as_csv(rows(day), ";")),
        "held",
        ("x.csv has semicolons between its columns where csv has commas", "row 1", "write commas"),
    ),
    Arrival("bars-in-csv", _one_file("x.csv", lambda day: as_csv(rows(day), "|")), "held", ("x.csv has bars between",)),
    Arrival("tabs-in-csv", _one_file("x.csv", lambda day: as_csv(rows(day), "\t")), "held", ("or name the file .tsv",)),
    Arrival("commas-in-tsv", _one_file("x.tsv", lambda day: as_csv(rows(day))), "held", ("x.tsv has commas between",)),
    Arrival(
        "utf-16",
        _one_file("x.csv", lambda day: as_csv(rows(day)).decode().encode("utf-16")),
        "held",
        ("x.csv is written in UTF-16", "UTF-8"),
    ),
    Arrival(
        "utf-16-without-byte-order-mark",
        _one_file("x.jsonl", lambda day: as_jsonl(rows(day)).decode().encode("utf-16-le")),
        "held",
        ("x.jsonl is written in UTF-16",),
    ),
    Arrival("gzip-named-csv", _one_file("x.csv", lambda day: gzip.compress(as_csv(rows(day)))), "held", ("gzip-compressed",)),
    Arrival("zip-named-csv", _one_file("x.csv", lambda _: b"PK\x03\x04" + bytes(99)), "held", ("a zip archive",)),
    Arrival("error-page-named-csv", _one_file("x.csv", lambda _: b"<html>503</html>"), "held", ("HTML or XML",)),
    Arrival(
        "quote-never-closed",
        _one_file("x.csv", lambda day: as_csv(rows(day)) + b'7,"17850,and so on\n8,17850,to the end\n'),
        "held",
        ("x.csv cannot be read as rows from line 4 on", "quote"),
    ),
    Arrival(
        "row-longer-than-a-megabyte",
        _one_file("x.csv", lambda day: as_csv([*rows(day, 1), *rows(day, 2, country="x" * 3_000_000)])),
        "held",
        ("x.csv cannot be read as rows from line 3 on",),
    ),
    Arrival(
        "missing-column",
        _one_file("x.csv", lambda day: as_csv([{k: v for k, v in r.items() if k != "amount"} for r in rows(day)])),
        "held",
        ("x.csv: lacks amount", "ask upstream for 'amount'"),
    ),
    Arrival(
        "renamed-column",
        _one_file("x.jsonl", lambda day: as_jsonl([{k.replace("customer_id", "client_id"): v for k, v in r.items()} for r in rows(day)])),
        "held",
        ("x.jsonl: lacks customer_id", "rename 'client_id' to 'customer_id'"),
    ),
    Arrival(
        "renamed-optional-column",
        _one_file("x.csv", lambda day: as_csv([{k.replace("country", "Country"): v for k, v in r.items()} for r in rows(day)])),
        "held",
        ("x.csv: has columns under another name: rename 'Country' to 'country'",),
    ),
    Arrival(
        "column-given-twice",
        _one_file("x.csv", lambda day: as_csv(rows(day)).replace(b'"country"', b'"amount"').replace(b"country", b"amount")),
        "held",
        ("x.csv has the column 'amount' more than once in row 1",),
    ),
    Arrival(
        "nested-values-in-parquet",
        _one_file("x.parquet", lambda day: as_parquet(rows(day, amount=[1.0]))),
        "held",
        ("x.parquet: column amount holds list",),
    ),
    Arrival(
        "no-json-at-all",
        _one_file("x.jsonl", lambda day: as_csv(rows(day, *range(20)))),
        "held",
        ("21 of 21 rows were refused", "the row could not be parsed (21)"),
    ),
    Arrival(
        "all-rows-refused",
        _one_file("x.csv", lambda _: as_csv(rows(date(1970, 1, 1), *range(20)))),
        "held",
        ("20 of 20 rows were refused", "occurred_at is not on the day it was landed for (20)"),
    ),
    Arrival(
        "parquet-bomb",
        _one_file("x.parquet", _bomb),
        "held",
        ("x.parquet is too large to be a day's file: 100,000 rows", "landing.max_file_rows"),
        landing={"max_file_rows": 50_000},
    ),
    Arrival(
        "compressed-file",
        _beside_good_file("x.csv.gz", lambda day: gzip.compress(as_csv(rows(day)))),
        "held",
        ("x.csv.gz cannot be used (format not known",),
    ),
    Arrival("spreadsheet", _beside_good_file("x.xlsx", lambda _: b"PK"), "held", ("x.xlsx cannot be used",)),
    Arrival("path-climbs", _beside_good_file("..\\x.csv", lambda day: as_csv(rows(day))), "held", ("cannot be used",)),
    Arrival("folder-below-the-day", _beside_good_file("a/x.csv", lambda day: as_csv(rows(day))), "held", ("a/x.csv cannot",)),
    Arrival("wildcard-in-a-name", _beside_good_file("x*.csv", lambda day: as_csv(rows(day))), "held", ("character",)),
    # rows that cannot be used go to quarantine, the others to silver
    Arrival("row-of-latin-1", _one_file("x.csv", lambda day: as_csv([*rows(day), *rows(day, 3, country="España")]).decode().encode("latin-1")), account=(3, 2, 1, 0), columns=("country",)),
    Arrival("decimal-comma", **_refused("amount", amount="15,30")),
    Arrival(
        "decimal-comma-without-quotes",
        _one_file("x.csv", lambda day: as_csv(rows(day)) + b"7,17850,,,,,,6,2,55,15,30\n"),
        account=(3, 2, 1, 0),
        columns=(None,),
    ),
    Arrival(
        "one-broken-row-among-many-good-ones",
        _one_file("x.csv", lambda day: as_csv(rows(day, *range(20_000))).replace(b"\n", b"\n1,2,3\n", 2).replace(b"1,2,3\n", b"", 1)),
        account=(20_001, 20_000, 1, 0),
        columns=(None,),
    ),
    Arrival(
        "one-broken-line-among-many-good-ones",
        _one_file("x.jsonl", lambda day: as_jsonl(rows(day, *range(5_000))) + b'{"transaction_id": "7", \n' + as_jsonl(rows(day, 7_000))),
        account=(5_002, 5_001, 1, 0),
        columns=(None,),
    ),
    Arrival("not-a-number-in-json", _one_file("x.jsonl", lambda day: as_jsonl([*rows(day), *rows(day, 3, amount=float("nan"))])), account=(3, 2, 1, 0), columns=(None,)),
    Arrival("words-for-numbers", **_refused("quantity", quantity="six")),
    Arrival("absurd-date", **_refused("occurred_at", occurred_at="9999-12-31")),
    Arrival("date-of-a-locale", **_refused("occurred_at", occurred_at="28/06/2011")),
    Arrival("absurd-amount", **_refused("amount", amount="1e12")),
    Arrival("absurd-quantity", **_refused("quantity", quantity="9999999")),
    Arrival("null-in-a-key", **_refused("customer_id", customer_id=None)),
    Arrival(
        "one-transaction-of-two-customers",
        _one_file("x.csv", lambda day: as_csv([*rows(day, 1, 2), *rows(day, 1, customer_id="x", product_id="y")])),
        account=(3, 1, 2, 0),
        columns=("customer_id", "customer_id"),
    ),
    # unusual arrivals that are accepted
    Arrival("byte-order-mark", _one_file("x.csv", lambda day: b"\xef\xbb\xbf" + as_csv(rows(day))), account=(2, 2, 0, 0)),
    Arrival("line-break-in-quotes", _one_file("x.csv", lambda day: as_csv(rows(day, category="a\nb"))), account=(2, 2, 0, 0)),
    Arrival("extra-column", _one_file("x.csv", lambda day: as_csv(rows(day, coupon="X"))), account=(2, 2, 0, 0)),
    Arrival("columns-in-another-order", _one_file("x.csv", lambda day: as_csv([dict(reversed(r.items())) for r in rows(day)])), account=(2, 2, 0, 0)),
    Arrival("duplicate-rows", _one_file("x.csv", lambda day: as_csv([*rows(day, 1, 2), *rows(day, 1)])), account=(3, 2, 0, 1)),
    Arrival("same-file-under-two-names", lambda day: {n: as_csv(rows(day)) for n in ("x.csv", "y.csv")}, account=(4, 2, 0, 2)),
    Arrival("same-rows-in-two-formats", lambda day: {"x.csv": as_csv(rows(day)), "y.jsonl": as_jsonl(rows(day)), "z.parquet": as_parquet(rows(day))}, account=(6, 2, 0, 4)),
    Arrival("transaction-of-several-lines", _one_file("x.csv", lambda day: as_csv([*rows(day, 1), *rows(day, 1, amount="1"), *rows(day, 1, product_id="x")])), account=(3, 3, 0, 0)),
    Arrival("marker-of-a-tool", _beside_good_file("_SUCCESS", lambda _: b""), account=(2, 2, 0, 0)),
]  # fmt: skip
