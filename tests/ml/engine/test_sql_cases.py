"""Every query of `include/sql`, case by case on both engines; `tests/sql/<query>.yaml` has the cases.

With `ML_RESOURCES`, the queries and cases are those of that folder.
"""

from __future__ import annotations

from typing import Any

import pytest

from ml.engine import Engine, open_engine
from ml.resources import resource_dir
from tests.support.sql_cases import Case, Cases, QueryCase, read_cases

SQL = resource_dir("sql")
FOLDER = resource_dir("config").parent / "tests" / "sql"
CASES = read_cases(FOLDER)


def case_id(case: QueryCase) -> str:
    return f"{case.query}: {case.case.name}"


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_on_duckdb(case: QueryCase) -> None:
    case.check(case.run(open_engine("duckdb")))


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_on_spark(case: QueryCase, spark: Engine) -> None:
    case.check(case.run(spark))


def test_every_query_has_cases() -> None:
    queries = {path.relative_to(SQL).with_suffix("") for path in SQL.rglob("*.sql")}
    assert queries == {path.relative_to(FOLDER).with_suffix("") for path in FOLDER.rglob("*.yaml")}


@pytest.mark.parametrize("query", sorted({case.query for case in CASES}))
def test_names_say_what_each_case_shows(query: str) -> None:
    names = [case.case.name for case in CASES if case.query == query]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("rows", "expected", "why"),
    [
        pytest.param([{}], [], "1 rows", id="a-row-too-many"),
        pytest.param([], [{"orders": 1}], "0 rows", id="a-row-too-few"),
        pytest.param([{}], [{"recency_days": 1}], "found {'recency_days': 0}, expected {'recency_days': 1}", id="another-value"),
        pytest.param([{}], [{"recency_days": None}], "found {'recency_days': 0}", id="a-value-instead-of-null"),
        pytest.param([{}], [{"recency_days": "0"}], "found {'recency_days': 0}", id="a-number-instead-of-text"),
        pytest.param([{}], [{"recency": 0}], "the query gives no {'recency'}", id="a-misspelt-result"),
        pytest.param([{"dya": "2024-02-29"}], [], "no column {'dya'}", id="a-misspelt-column"),
    ],
)  # fmt: skip
def test_a_case_that_is_wrong_fails(rows: list[dict[str, Any]], expected: list[dict[str, Any]], why: str) -> None:
    of_customers = next(case for case in CASES if case.query == "features/customers")
    case = Case(name="wrong", rows={"customer_days": rows}, expected=expected)
    wrong = QueryCase("features/customers", of_customers.file, case)
    with pytest.raises(AssertionError) as caught:
        wrong.check(wrong.run(open_engine("duckdb")))
    assert why in str(caught.value)


def test_a_misspelt_key_of_a_file_is_refused() -> None:
    with pytest.raises(ValueError, match="expectd"):
        Cases.model_validate({"tables": {}, "cases": [{"name": "x", "expectd": []}]})
