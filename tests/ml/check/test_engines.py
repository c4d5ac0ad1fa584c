"""Each query of every business runs on DuckDB and on Spark, and a difference between them is found."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ml.check import check_project, engines
from tests.support.data.businesses import BUSINESSES, install
from tests.support.resources import Resources


@pytest.mark.parametrize("names", [(), tuple(BUSINESSES)], ids=["the-project-alone", "with-other-businesses"])
def test_every_file_of_a_business_is_right(resources: Resources, names: tuple[str, ...]) -> None:
    install(resources, *names)
    checked = check_project()
    assert [str(problem) for problem in checked.problems] == []
    assert list(checked.notes) == []
    assert list(checked.engines) == ["duckdb", "spark"]
    assert checked.queries == len(list((resources.folder / "sql").rglob("*.sql")))


def test_a_query_that_spark_answers_otherwise_is_found(project: Any) -> None:
    """A double as text is written in another way by each engine."""
    project.change(
        "include/sql/features/members.sql",
        "count(*) AS total,",
        "CAST(CAST(count(*) AS DOUBLE) * 1e20 AS STRING) AS total,",
    )
    problems = [str(problem) for problem in check_project().problems]
    assert len(problems) == 1, problems
    assert "DuckDB and Spark differ: " in problems[0]
    assert "write it so that both give the same" in problems[0]


def test_without_spark_it_says_so(project: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_is_installed", lambda module: False)
    checked = check_project()
    assert list(checked.notes) == ["the queries were not run on Spark: pyspark is not installed here"]
    assert list(checked.engines) == ["duckdb"]


def test_the_server_of_a_check_ends_with_it(project: Any) -> None:
    before = os.environ.get("SPARK_REMOTE")
    check_project([str(Path(project.path("config/sources/visits.yaml")))])
    assert os.environ.get("SPARK_REMOTE") == before
