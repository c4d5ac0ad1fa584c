"""Bronze files as text: no value is lost or guessed, and every unusable file is explained."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ml.config import load_source
from ml.ingest import bronze, copy_log
from ml.storage import stores
from ml.storage.stores import Blob
from tests.support.data.bronze_days import DAY, Days, row

Read = Callable[..., list[bronze.BronzeFile]]
PATH = f"transactions/{DAY}/x.csv"
SOURCE = load_source("transactions")


@pytest.fixture
def days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Days:
    return Days(tmp_path, monkeypatch)


@pytest.fixture
def read(tmp_path: Path, days: Days) -> Read:
    """Read the bronze files of landed files of the day."""
    del days  # it has set up the stores
    (tmp_path / "work").mkdir()

    def read_files(*names: str, size: int = 1) -> list[bronze.BronzeFile]:
        return bronze.read(
            SOURCE, stores.lake(), [(DAY, Blob(name, size, "etag")) for name in names], tmp_path / "work"
        )

    return read_files


@pytest.mark.parametrize(
    ("column", "texts"),
    [
        pytest.param(pa.array(["007", " a ", ""]), ["007", " a ", ""], id="text-stays-as-received"),
        pytest.param(pa.array([17850.0, None]), ["17850", None], id="whole-doubles-are-integers"),
        pytest.param(pa.array([9007199254740991.0]), ["9007199254740991"], id="large-whole-double-keeps-every-digit"),
        pytest.param(pa.array([0.1 + 0.2, 1e300]), ["0.30000000000000004", "1e+300"], id="doubles-round-trip"),
        pytest.param(pa.array([2.55], pa.float32()), ["2.55"], id="single-precision-gets-no-invented-digits"),
        pytest.param(pa.array([np.float16(1.5)], pa.float16()), ["1.5"], id="half-precision"),
        pytest.param(pa.array([float("nan")]), [None], id="nan-is-null"),
        pytest.param(pa.array([float("inf")]), ["inf"], id="infinity-is-kept-and-refused-later"),
        pytest.param(pa.array([2**63 - 1]), ["9223372036854775807"], id="integers"),
        pytest.param(pa.array([Decimal("12.50"), Decimal("7.00")]), ["12.50", "7"], id="decimals"),
        pytest.param(pa.array([True]), ["true"], id="booleans"),
        pytest.param(pa.array([date(2011, 6, 28)]), ["2011-06-28"], id="dates"),
        pytest.param(
            pa.array([datetime.fromisoformat("2011-06-28T10:30:00.000007")]),
            ["2011-06-28 10:30:00.000007"],
            id="local-timestamps",
        ),
        pytest.param(
            pa.array([datetime(2011, 6, 28, 9, 30, tzinfo=UTC)], pa.timestamp("us", "Europe/London")),
            ["2011-06-28 10:30:00.000000+0100"],
            id="zoned-timestamps-keep-their-offset",
        ),
        pytest.param(pa.array(["a", "a"]).dictionary_encode(), ["a", "a"], id="dictionaries"),
        pytest.param(pa.nulls(1), [None], id="untyped-nulls"),
    ],
)
def test_any_plain_type_becomes_text(column: pa.Array, texts: list[str | None]) -> None:
    assert bronze.as_text(pa.chunked_array([column])).to_pylist() == texts


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_a_landed_file_has_one_place_in_bronze(kind: str) -> None:
    assert bronze.path(f"transactions/2011-06-28/a.b.{kind}") == f"bronze/transactions/{kind}/2011-06-28/a.b.parquet"


def test_rows_have_their_file_and_their_number_in_it(days: Days, read: Read) -> None:
    days.arrive("x.csv", [row(1), row(2)])
    (file,) = read(PATH)
    assert file.problem is None
    assert file.received == 2
    assert file.rows is not None
    assert file.rows.select(["_day", "_file", "_row"]).to_pylist() == [
        {"_day": DAY, "_file": f"landing/{PATH}", "_row": 1},
        {"_day": DAY, "_file": f"landing/{PATH}", "_row": 2},
    ]


def test_columns_in_another_order_without_optional_ones_are_accepted(days: Days, read: Read) -> None:
    days.arrive("x.csv", [{"amount": "1", "quantity": "1", "occurred_at": "2011-06-28", "customer_id": "7"}])
    (file,) = read(PATH)
    assert bronze.join_rows(SOURCE, [file]).select(SOURCE.column_names).to_pylist() == [
        dict.fromkeys(SOURCE.columns)
        | {"amount": "1", "quantity": "1", "occurred_at": "2011-06-28", "customer_id": "7"}
    ]


def test_extra_columns_are_reported_and_left_out(days: Days, read: Read) -> None:
    days.arrive("x.csv", [row(1, coupon="X", Country="UK")])
    (file,) = read(PATH)
    assert file.extra == ("Country", "coupon")
    assert file.rows is not None
    assert "coupon" not in file.rows.column_names


def test_a_byte_order_mark_does_not_hide_the_first_column(days: Days, read: Read) -> None:
    days.arrive("x.csv", [{"\ufefftransaction_id": "9", **{k: v for k, v in row().items() if k != "transaction_id"}}])
    (file,) = read(PATH)
    assert file.extra == ()
    assert bronze.join_rows(SOURCE, [file])["transaction_id"].to_pylist() == ["9"]


def test_an_empty_file_has_no_rows_whatever_an_earlier_copy_wrote(days: Days, read: Read) -> None:
    days.arrive("x.csv", [row(1)])
    (file,) = read(PATH, size=0)
    assert (file.received, file.rows, file.problem) == (0, None, None)


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        pytest.param(
            [{"CustomerID": "7", "occured_at": "2011-06-28", "quantity": "1", "amount": "1"}],
            [
                "lacks customer_id, occurred_at",
                "found CustomerID, occured_at, quantity, amount",
                "needed customer_id, occurred_at, quantity, amount",
                "rename 'CustomerID' to 'customer_id'",
                "rename 'occured_at' to 'occurred_at'",
            ],
            id="missing-columns-with-similar-ones",
        ),
        pytest.param(
            [{"customer_id": "7", "occurred_at": "2011-06-28", "quantity": "1"}],
            ["lacks amount", "ask upstream for 'amount'"],
            id="missing-column-without-similar-one",
        ),
        pytest.param([row(1, amount={"value": 1})], ["column amount holds struct<value: int64>"], id="nested-values"),
        pytest.param([row(1, quantity=[1])], ["column quantity holds list<"], id="lists"),
        pytest.param([row(1, country=b"\xff")], ["column country holds binary"], id="bytes"),
    ],
)
def test_an_unusable_file_says_what_was_found_and_what_to_do(
    days: Days, read: Read, rows: list[dict], why: list[str]
) -> None:
    days.arrive("x.csv", rows)
    (file,) = read(PATH)
    assert file.problem is not None
    assert file.problem.startswith(f"{PATH}: ")
    assert [part for part in why if part not in file.problem] == []


def test_a_column_given_twice_is_refused(days: Days, read: Read) -> None:
    table = pa.Table.from_pylist([row()])
    path = days.land("x.csv", b"x")
    days.copy(path, pa.Table.from_arrays([*table.columns, table["amount"]], names=[*table.column_names, "amount"]))
    assert "has amount more than once" in str(read(PATH)[0].problem)


def test_a_file_the_copy_did_not_write_is_named(days: Days, read: Read) -> None:
    days.land("x.csv", b"truncat")
    assert "the Copy did not write bronze/transactions/csv/2011-06-28/x.parquet" in str(read(PATH)[0].problem)


def test_a_broken_bronze_file_is_named(days: Days, read: Read) -> None:
    days.arrive("x.csv", [row(1)])
    where = bronze.path(PATH)
    stores.lake().write(where, stores.lake().read(where)[:-20])
    assert f"{where} is not readable parquet" in str(read(PATH)[0].problem)


def test_rows_that_claim_another_source_are_refused(days: Days, read: Read) -> None:
    days.arrive("other.csv", [row(1)])
    stores.lake().write(bronze.path(PATH), stores.lake().read(bronze.path(PATH.replace("x.csv", "other.csv"))))
    assert "says in _file that its rows are from ['landing/transactions/2011-06-28/other.csv']" in str(
        read(PATH)[0].problem
    )


def test_every_file_is_read_even_when_one_is_unusable(days: Days, read: Read) -> None:
    names = [days.arrive(f"{n}.csv", [row(n)]) for n in range(20)]
    days.land("bad.csv", b"bad")
    files = read(*names, f"transactions/{DAY}/bad.csv")
    assert [file.problem is None for file in files] == [True] * 20 + [False]
    assert bronze.join_rows(SOURCE, files)["transaction_id"].to_pylist() == [str(536365 + n) for n in range(20)]


def test_each_skipped_row_is_read_once_from_the_copy_log(days: Days, read: Read) -> None:
    days.skip(PATH, 3, '1,2,3,"a\nb"', log="bronze/_log/k/first")
    days.skip(PATH, 5, "4,5,6", log="bronze/_log/k/second")
    rows = copy_log.read_copy_log(stores.lake(), "bronze/_log/k", [(DAY, PATH)])
    assert [(skipped.name, skipped.file, skipped.item) for skipped in rows] == [
        (PATH, f"landing/{PATH}", '1,2,3,"a\nb"'),
        (PATH, f"landing/{PATH}", "4,5,6"),
    ]


def test_skipped_rows_of_files_that_are_not_landed_are_left_out(days: Days, read: Read) -> None:
    days.skip(f"transactions/{DAY}/gone.csv", 3, "1,2")
    assert copy_log.read_copy_log(stores.lake(), "bronze/_log/k", [(DAY, PATH)]) == []


@pytest.mark.parametrize(
    ("message", "why"),
    [
        pytest.param("something was wrong", "names no source", id="no-source"),
        pytest.param("source 'x.csv' with row number 3", "ingest these days one by one", id="source-of-several-days"),
    ],
)
def test_a_skipped_row_that_cannot_be_assigned_to_one_file_is_an_error(
    days: Days, read: Read, message: str, why: str
) -> None:
    log = f"Timestamp,Level,OperationName,OperationItem,Message\nnow,Warning,TabularRowSkip,row,{message}\n"
    stores.lake().write("bronze/_log/k/1.csv", log.encode())
    with pytest.raises(copy_log.UnknownSourceError, match=why):
        copy_log.read_copy_log(
            stores.lake(), "bronze/_log/k", [(DAY, PATH), (date(2011, 6, 29), "transactions/2011-06-29/x.csv")]
        )


def test_a_message_that_names_only_the_file_is_understood(days: Days, read: Read) -> None:
    log = (
        "Timestamp, Level, OperationName, OperationItem, Message\n"
        '2020-02-26 06:22:32.2586581, Warning, TabularRowSkip, """data1"", ""data2""", '
        "\"Error found when processing 'Csv/Tsv Format Text' source 'x.csv' with row number 3: found more columns\"\n"
    )
    stores.lake().write("bronze/_log/k/1.csv", log.encode())
    (skipped,) = copy_log.read_copy_log(stores.lake(), "bronze/_log/k", [(DAY, PATH)])
    assert (skipped.day, skipped.name, skipped.item) == (DAY, PATH, '"data1", "data2"')
