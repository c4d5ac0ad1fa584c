"""Features, populations and labels that look further than they may, and queries that give another result each time."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ml.check.text import load_text
from tests.support.resources import Resources

LABEL = "include/sql/labels/lapse.sql"
FEATURES = "include/sql/features/members.sql"
POPULATION = "include/sql/populations/lapse.sql"
SOURCE = "include/sql/sources/visits.sql"


def only(problems: list[str]) -> str:
    assert len(problems) == 1, problems
    return problems[0]


def test_the_business_as_written_has_no_problem(project: Any) -> None:
    checked = project.check()
    assert (list(checked.problems), list(checked.notes)) == ([], [])
    assert checked.queries == 4


@pytest.mark.parametrize("further", [1, 30, 400])
def test_a_label_that_looks_further_than_its_horizon_is_found(project: Any, further: int) -> None:
    project.change(LABEL, "<= :horizon_days", f"<= :horizon_days + {further}")
    problem = only(project.problems())
    assert problem.startswith(f"{LABEL}: it looks further than horizon_days (30) after as_of: ")
    assert re.search(r"\d+ of \d+ rows differ, such as entity_id \d+, as_of 202\d-\d\d-\d\d: inactive [01] ", problem)
    assert "raise label.horizon_days" in problem


def test_a_label_that_looks_for_ever_is_found(project: Any) -> None:
    project.change(LABEL, "      AND datediff(visits.day, population.as_of) <= :horizon_days\n", "")
    assert any("it looks further" in problem or "no :horizon_days" in problem for problem in project.problems())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("WHERE day <= :as_of AND", "WHERE", id="no-limit"),
        pytest.param("WHERE day <= :as_of AND", "WHERE day <= date_add(:as_of, 1) AND", id="one-day-too-far"),
        pytest.param("WHERE day <= :as_of AND", "WHERE (day <= :as_of OR amount > 100) AND", id="some-rows-only"),
        pytest.param("FROM visits", "FROM (SELECT *, count(*) OVER () AS n FROM visits) AS v", id="none-of-its-values"),
    ],
)
def test_a_feature_table_that_reads_later_days_is_found(project: Any, old: str, new: str) -> None:
    project.change(FEATURES, old, new)
    problems = project.problems()
    if "count(*) OVER" in new:
        assert problems == [], "reading later rows is not wrong as long as no value depends on them"
        return
    problem = only(problems)
    assert problem.startswith(f"{FEATURES}: it looks past as_of: ")
    assert "rows differ, such as entity_id" in problem
    assert "WHERE day <= :as_of" in problem


def test_a_feature_that_depends_on_later_rows_through_a_window_is_found(project: Any) -> None:
    project.change(FEATURES, "FROM visits", "FROM (SELECT *, max(day) OVER () AS newest FROM visits) AS v")
    project.change(FEATURES, "count(DISTINCT day) AS days,", "min(datediff(newest, day)) AS days,")
    assert "it looks past as_of" in only(project.problems())


def test_a_population_that_depends_on_later_days_is_found(project: Any) -> None:
    project.change(
        POPULATION, "FROM members\n", "FROM members\nWHERE as_of = (SELECT max(m.as_of) FROM members AS m)\n"
    )
    assert "the population of a day depends on later days" in only(project.problems())


def test_a_newer_snapshot_has_no_influence(project: Any) -> None:
    """The rows that a query gets of a snapshot are those as known on the day, whatever comes later."""
    snapshot(project)
    assert project.problems() == []


def snapshot(project: Any) -> None:
    """Add `levels`: a snapshot of what a category costs, which the feature table joins."""
    source = project.path("config/sources/visits.yaml").read_text()
    source = source.replace("source: visits", "source: levels").replace("kind: facts ", "kind: snapshot ")
    source = source.replace("time: happened_at", "#").replace("sources/visits", "sources/levels")
    project.write("config/sources/levels.yaml", source)
    project.write("include/sql/sources/levels.sql", project.path(SOURCE).read_text())
    project.change(
        "config/features/members.yaml", "missing: wait}", "missing: wait}\n  silver.levels: {missing: carry}"
    )
    project.change(FEATURES, "FROM visits\n", "FROM visits\nLEFT JOIN known USING (entity_id)\n")
    project.change(FEATURES, "SELECT\n  entity_id", KNOWN + "SELECT\n  entity_id")
    project.change(FEATURES, "count(*) AS total,", "count(*) AS total, max(level) AS level,")


KNOWN = "WITH known AS (SELECT entity_id, max(amount) AS level FROM levels GROUP BY entity_id)\n\n"


def test_a_feature_of_a_snapshot_is_checked_too(project: Any) -> None:
    snapshot(project)
    project.change(FEATURES, "WHERE day <= :as_of AND", "WHERE")
    assert "it looks past as_of" in only(project.problems())


@pytest.mark.parametrize(
    ("text", "function"),
    [
        ("current_date()", "current_date()"),
        ("current_date", "current_date()"),
        ("now()", "now()"),
        ("current_timestamp", "current_timestamp()"),
        ("localtimestamp()", "localtimestamp()"),
        ("unix_timestamp()", "current_timestamp()"),
        ("curdate()", "current_date()"),
        ("rand()", "rand()"),
        ("rand(7)", "rand()"),
        ("random()", "rand()"),
        ("randn()", "randn()"),
        ("uuid()", "uuid()"),
        ("shuffle(array(1, 2))", "shuffle()"),
        ("monotonically_increasing_id()", "monotonically_increasing_id()"),
        ("current_user()", "current_user()"),
        ("DATE 'today'", "'today'"),
        ("CAST('now' AS TIMESTAMP)", "'now'"),
    ],
)
def test_a_function_of_clock_or_chance_is_known(resources: Resources, text: str, function: str) -> None:
    resources.write("sql", "example.sql", f"SELECT n FROM t WHERE {text} IS NOT NULL")
    assert load_text("example").unstable_functions == [function]


@pytest.mark.parametrize("file", [LABEL, FEATURES, POPULATION, SOURCE])
def test_a_query_with_such_a_function_is_refused_by_name(project: Any, file: str) -> None:
    project.change(file, "\nORDER BY", "\nORDER BY current_date(),")
    problem = only(project.problems())
    assert problem.startswith(f"{file}: current_date() gives another result in every run")


@pytest.mark.parametrize(
    "text", ["to_date('2024-02-29')", "datediff(:as_of, day)", "unix_timestamp(day)", "user", "'now'"]
)
def test_what_only_looks_like_one_is_not(resources: Resources, text: str) -> None:
    resources.write("sql", "example.sql", f"SELECT {text} AS x FROM t")
    assert load_text("example").unstable_functions == []


def test_a_result_that_depends_on_the_order_of_the_rows_is_found(project: Any) -> None:
    project.change(FEATURES, "count(*) AS total,", "count(*) AS total, first(category) AS some,")
    assert "two runs over the same rows in another order give different results" in only(project.problems())


def test_a_sum_of_doubles_is_found(project: Any) -> None:
    project.change(FEATURES, "count(*) AS total,", "count(*) AS total, sum(amount * 1.1) AS amount,")
    assert "add up integers only" in only(project.problems())


def test_rows_without_an_order_are_found(project: Any) -> None:
    project.change(FEATURES, "ORDER BY entity_id", "ORDER BY since_first")
    assert "the rows are equal, but in another order" in only(project.problems())


def test_a_day_that_depends_on_other_days_is_found(project: Any) -> None:
    project.change(SOURCE, "PARTITION BY _day, entity_id, happened_at, category, amount", "PARTITION BY entity_id")
    project.change(SOURCE, "ORDER BY _file, _row", "ORDER BY _day, _file, _row")
    assert f"{SOURCE}: a day depends on the rows of other days: " in only(project.problems())
