"""Which columns a write may add to a table, leave out, or replace."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake.exceptions import DeltaError

from ml.storage import tables

FIRST, SECOND = date(2024, 1, 1), date(2024, 1, 2)
TABLE = "gold.table"


@pytest.fixture(autouse=True)
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKE_URI", tmp_path.as_uri())
    write(FIRST, a=1, b=2)


def write(day: date, may_lack: bool = False, **values: object) -> int:
    rows = pa.table({"day": [day], **{name: [value] for name, value in values.items()}})
    where = tables.day_predicate("day", [day])
    return tables.replace(TABLE, rows, where, partition_by=["day"], may_lack=may_lack)


def rows() -> list[dict[str, object]]:
    listed: list[dict[str, object]] = tables.read(TABLE).sort_by("day").to_pylist()
    return listed


@pytest.mark.parametrize("values", [{"a": 1}, {"a": 1, "c": 3}], ids=["fewer", "other"])
def test_rows_that_lack_a_column_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(DeltaError):
        write(SECOND, **values)
    assert rows() == [{"day": FIRST, "a": 1, "b": 2}]


def test_rows_may_lack_a_column_where_the_caller_says_so() -> None:
    write(SECOND, may_lack=True, a=1, c=3)
    assert rows() == [
        {"day": FIRST, "a": 1, "b": 2, "c": None},
        {"day": SECOND, "a": 1, "b": None, "c": 3},
    ]


def test_a_column_of_another_type_is_refused_either_way() -> None:
    for may_lack in (False, True):
        with pytest.raises(DeltaError):
            write(SECOND, may_lack=may_lack, a="one", b=2)


def test_an_added_column_is_null_in_earlier_rows() -> None:
    write(SECOND, a=1, b=2, c=3)
    assert [row["c"] for row in rows()] == [None, 3]


def test_a_table_is_replaced_whole_with_its_columns_and_keeps_its_past() -> None:
    version = tables.replace_all(TABLE, pa.table({"day": [SECOND], "b": ["text"]}), partition_by=["day"])
    assert rows() == [{"day": SECOND, "b": "text"}]
    assert tables.read(TABLE, version=version - 1).to_pylist() == [{"day": FIRST, "a": 1, "b": 2}]
    assert tables.table(TABLE).metadata().partition_columns == ["day"]


def test_a_table_that_does_not_exist_is_created() -> None:
    assert tables.replace_all("gold.other", pa.table({"a": [1]})) == 0
    assert tables.read("gold.other").to_pylist() == [{"a": 1}]
