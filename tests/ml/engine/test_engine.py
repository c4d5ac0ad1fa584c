"""The engine: one text, bound parameters, lazy tables, plain types. test_parity.py compares both engines."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from ml.engine import QueryError, open_engine
from tests.support.resources import Resources

Write = Callable[[str], None]
NUMBERS = pa.table({"n": pa.array([1, 2, None], pa.int32()), "day": [date(2024, 2, 29)] * 3})


@pytest.fixture
def write_query(resources: Resources) -> Write:
    """Write the query `example`."""
    return lambda text: resources.write("sql", "example.sql", text) and None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        pytest.param("SELECT n / m FROM t", "nullif", id="division-differs-on-zero"),
        pytest.param("SELECT n / 0 FROM t", "nullif", id="division-by-zero"),
        pytest.param("SELECT n FROM", "not Spark SQL", id="not-sql"),
        pytest.param("SELECT 1; SELECT 2", "exactly one SELECT", id="two-statements"),
        pytest.param("DROP TABLE t", "exactly one SELECT", id="not-a-query"),
        pytest.param("-- nothing", "exactly one SELECT", id="empty"),
        pytest.param(
            "SELECT n FROM t WHERE n > :least AND n < :most", "needs :least, :most; given: none", id="unbound"
        ),
        pytest.param("SELECT o.n FROM t JOIN other AS o ON o.n = t.n", "reads other; given: t", id="table-not-given"),
        pytest.param("SELECT CAST('x' AS INT) AS n", "Could not convert", id="failing-cast"),
        pytest.param("SELECT struct(n) AS s FROM t", "column s is struct", id="struct-column"),
        pytest.param("SELECT nosuch FROM t", "nosuch", id="unknown-column"),
    ],
)
def test_a_query_that_cannot_run_names_its_file_and_the_cause(write_query: Write, text: str, why: str) -> None:
    write_query(text)
    with pytest.raises(QueryError, match=r"example\.sql") as refused:
        open_engine("duckdb").run("example", {"t": NUMBERS})
    assert why in str(refused.value)


def test_values_without_a_parameter_are_refused(write_query: Write) -> None:
    write_query("SELECT n FROM t")
    with pytest.raises(QueryError, match="needs none; given: :least"):
        open_engine("duckdb").run("example", {"t": NUMBERS}, {"least": 1})


@pytest.mark.parametrize("name", ["nosuch", "../secret", "Features"])
def test_an_unknown_query_is_refused(name: str) -> None:
    with pytest.raises(QueryError):
        open_engine("duckdb").run(name, {})


def test_an_unknown_engine_is_refused_with_what_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_ENGINE", "hive")
    with pytest.raises(QueryError, match="found 'hive'; allowed: duckdb, spark"):
        open_engine()


@pytest.mark.parametrize(
    "value",
    ["it's; DROP TABLE t --", "", date(2024, 2, 29), 7, 0.1, True],
    ids=["text-with-quote", "empty-text", "date", "int", "float", "bool"],
)
def test_bound_values_are_returned_unchanged(write_query: Write, value: date | float | str) -> None:
    write_query("SELECT :value AS value")
    assert open_engine("duckdb").run("example", {}, {"value": value})["value"].to_pylist() == [value]


def test_a_filter_on_a_lazy_table_reaches_the_scan(write_query: Write, tmp_path: Path) -> None:
    for n in (1, 2):
        folder = tmp_path / "table" / f"part={n}"
        folder.mkdir(parents=True)
        ds.write_dataset(pa.table({"n": [n]}), folder, format="parquet")
    next((tmp_path / "table" / "part=2").iterdir()).write_bytes(b"unreadable")
    parts = ds.dataset(tmp_path / "table", partitioning="hive", schema=pa.schema({"n": pa.int64(), "part": pa.int32()}))
    write_query("SELECT n FROM t ORDER BY n")
    result = open_engine("duckdb").run("example", {"t": parts.filter(ds.field("part") == 1)})
    assert result["n"].to_pylist() == [1]


def test_a_day_ends_at_midnight_utc_wherever_the_machine_is(
    write_query: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    late = datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=UTC)
    write_query("SELECT CAST(at AS DATE) AS day, at, CAST('2024-03-01 00:00:00' AS TIMESTAMP) AS read FROM t")
    result = open_engine("duckdb").run("example", {"t": pa.table({"at": pa.array([late], pa.timestamp("us", "UTC"))})})
    assert result.to_pylist() == [{"day": date(2024, 2, 29), "at": late, "read": datetime(2024, 3, 1, tzinfo=UTC)}]


def test_results_have_plain_types_only(write_query: Write) -> None:
    write_query(
        "SELECT n, sum(n) OVER () AS wide, CAST(n AS DECIMAL(9, 2)) AS d, day, array('a') AS list FROM t ORDER BY n"
    )
    result = open_engine("duckdb").run("example", {"t": NUMBERS})
    assert [str(kind) for kind in result.schema.types] == [
        "int64",
        "double",
        "double",
        "date32[day]",
        "list<item: string>",
    ]


def test_no_table_remains_after_a_query(write_query: Write) -> None:
    engine = open_engine("duckdb")
    write_query("SELECT n FROM t")
    engine.run("example", {"t": NUMBERS})
    with pytest.raises(QueryError, match="reads t; given: none"):
        engine.run("example", {})
