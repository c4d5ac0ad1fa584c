"""Digests of rows: equal rows have equal digests on every engine, and nothing else has."""

from __future__ import annotations

import random
import struct
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest

from ml.engine import Engine, QueryError, open_engine
from ml.engine.types import STRINGS, TIMESTAMP

DAY = date(2024, 2, 29)


def digest(**columns: Any) -> str:
    """The digest of rows of one day on DuckDB; a column is a list of values or an Arrow array."""
    rows = pa.table(columns)
    rows = rows.append_column("day", pa.repeat(pa.scalar(DAY), rows.num_rows))
    return open_engine("duckdb").digest(rows, "day")[DAY]


def odd_double(source: random.Random) -> float | None:
    """Doubles next to powers of two, denormal ones, infinities, any bits, and everyday amounts."""
    kind = source.randrange(6)
    if kind == 0:
        return source.choice([None, 0.0, -0.0, 1.0, float("inf"), float("-inf"), 5e-324, 1.7976931348623157e308])
    if kind == 1:
        return source.choice([1, -1]) * 2.0 ** source.randint(-1074, 1023)
    if kind == 2:
        bits = struct.unpack("q", struct.pack("d", 2.0 ** source.randint(-60, 60)))[0]
        return float(struct.unpack("d", struct.pack("q", bits + source.choice([-1, 1])))[0])
    if kind == 3:
        return float(struct.unpack("d", struct.pack("Q", source.getrandbits(64)))[0])
    return round(source.uniform(-1000, 1000), 2)


def odd_rows(count: int, seed: int) -> pa.Table:
    source = random.Random(seed)
    times = [
        None,
        datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2024, 3, 31, 1, 30, 0, 1, tzinfo=UTC),
    ]
    texts = [None, "", "1", "a'b", "ü😀", "a|b\x1f", "x:y=z", "\\"]
    lists = [None, [], ["a"], ["a", None], ["ab", "c"], ["a", "bc"]]

    def column(choose: Any, kind: pa.DataType) -> pa.Array:
        return pa.array([choose() for _ in range(count)], kind)

    return pa.table(
        {
            "day": column(lambda: date(2024, 2, source.randint(27, 29)), pa.date32()),
            "number": column(lambda: odd_double(source), pa.float64()),
            "count": column(lambda: source.choice([None, 0, 1, -5, 2**62]), pa.int64()),
            "text": column(lambda: source.choice(texts), pa.string()),
            "flag": column(lambda: source.choice([None, True, False]), pa.bool_()),
            "date": column(lambda: source.choice([None, date(1900, 1, 1), date(2100, 2, 3)]), pa.date32()),
            "time": column(lambda: source.choice(times), TIMESTAMP),
            "list": column(lambda: source.choice(lists), STRINGS),
            "_row": pa.array(range(count)),
        }
    )


@pytest.mark.parametrize("seed", range(3))
def test_both_engines_give_the_same_digests(spark: Engine, seed: int) -> None:
    rows = odd_rows(2000, seed)
    assert open_engine("duckdb").digest(rows, "day") == spark.digest(rows, "day")


def test_doubles_that_differ_in_one_bit_have_different_digests() -> None:
    source = random.Random(0)
    values = list(
        {value for value in (odd_double(source) for _ in range(3000)) if value is not None and value == value}
    )
    rows = pa.table({"key": pa.array(range(len(values))), "x": pa.array(values, pa.float64())})
    assert len(set(open_engine("duckdb").digest(rows, "key").values())) == len(values)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param({"x": [1]}, {"x": ["1"]}, id="integer and text"),
        pytest.param({"x": [1]}, {"x": [1.0]}, id="integer and number"),
        pytest.param({"x": [True]}, {"x": [1]}, id="bool and integer"),
        pytest.param({"x": [""]}, {"x": pa.nulls(1, pa.string())}, id="empty text and NULL"),
        pytest.param({"a": ["x"], "b": ["y"]}, {"a": ["y"], "b": ["x"]}, id="values exchanged between columns"),
        pytest.param({"a": ["xy"], "b": ["z"]}, {"a": ["x"], "b": ["yz"]}, id="a character moved to the next column"),
        pytest.param(
            {"a": ["1:b=s1:y"], "b": ["z"]}, {"a": ["1"], "b": ["y1:b=z"]}, id="text that looks like a column"
        ),
        pytest.param({"x": [["a", "b"]]}, {"x": [["ab"]]}, id="a list's elements joined"),
        pytest.param({"x": [["a"]]}, {"x": [["a", None]]}, id="a list with a NULL"),
        pytest.param({"x": [1, 1]}, {"x": [1]}, id="a row that is there twice"),
        pytest.param({"x": [1, 2], "y": [1, 2]}, {"x": [1, 2], "y": [2, 1]}, id="values exchanged between rows"),
        pytest.param({"x": [0.1]}, {"x": [0.1 + 2**-56]}, id="the last bit of a number"),
    ],
)
def test_other_rows_have_another_digest(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert digest(**one) != digest(**other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param({"x": [1, 2, 3]}, {"x": [3, 1, 2]}, id="the order of the rows"),
        pytest.param({"a": [1], "b": [2]}, {"b": [2], "a": [1]}, id="the order of the columns"),
        pytest.param({"x": [1]}, {"x": [1], "added": pa.nulls(1, pa.float64())}, id="an added column without values"),
        pytest.param({"x": [1], "_file": ["a.csv"]}, {"x": [1], "_file": ["b.csv"]}, id="where a row came from"),
        pytest.param({"x": [0.0]}, {"x": [-0.0]}, id="the sign of zero"),
        pytest.param({"x": ["a"]}, {"x": pa.array(["a"], pa.large_string())}, id="how Arrow holds a text"),
        pytest.param({"x": [1]}, {"x": pa.array([1], pa.int32())}, id="the width of an integer"),
    ],
)
def test_the_same_content_has_the_same_digest(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert digest(**one) == digest(**other)


def test_a_value_without_rows_has_no_digest() -> None:
    assert open_engine("duckdb").digest(odd_rows(0, 0), "day") == {}


@pytest.mark.parametrize(
    ("rows", "by", "why"),
    [
        pytest.param(pa.table({"x": [1]}), "day", "no column day to digest by; it has x", id="no such column"),
        pytest.param(pa.table({"day": [DAY], "x": [{"a": 1}]}), "day", "column x is struct", id="a nested column"),
        pytest.param(pa.table({"day": [DAY], "it's": [1]}), "day", "with a quote", id="a quote in a name"),
    ],
)
def test_what_cannot_be_digested_is_refused(rows: pa.Table, by: str, why: str) -> None:
    with pytest.raises(QueryError, match=why):
        open_engine("duckdb").digest(rows, by)
