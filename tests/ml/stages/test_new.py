"""`new` writes files that are right at once, and overwrites nothing."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from ml import cli
from ml.check import check_project
from ml.check.scaffold.yaml_edit import edit
from ml.config import load_project, load_source
from ml.engine import open_engine
from tests.support.resources import Resources
from tests.support.sql_cases import read_cases


@pytest.fixture(autouse=True)
def copied(resources: Resources) -> Resources:
    resources.copy_all()
    return resources


def new(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[Path]:
    cli.main(["new", *arguments])
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    return [Path(file) for file in facts["files"]]


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        cli.main(["new", *arguments])
    assert ended.value.code == 1
    refused: str = json.loads(capsys.readouterr().out.splitlines()[-1])["refused"]
    return refused


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "name", ["Visits", "../visits", "visits-2", "2visits", "", "v" * 51, "silver.visits", "visits\n"]
)
@pytest.mark.parametrize("kind", ["source", "features", "model"])
def test_a_bad_name_is_refused(capsys: pytest.CaptureFixture[str], resources: Resources, kind: str, name: str) -> None:
    before = content(resources.folder)
    assert "lower-case letters, digits and _ only" in refusal(capsys, kind, name)
    assert content(resources.folder) == before


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        pytest.param(["source", "transactions"], "already there, and not overwritten", id="source-that-exists"),
        pytest.param(["features", "customers"], "already there, and not overwritten", id="table-that-exists"),
        pytest.param(["model", "churn"], "already there, and not overwritten", id="model-that-exists"),
        pytest.param(["model", "customers", "--on", "customers"], "is also a feature table", id="model-called-as-a-table"),
        pytest.param(["model", "silver", "--on", "customers"], "the name of a layer", id="model-called-as-a-layer"),
        pytest.param(["features", "f"], "say on which table of facts it is built, with --on silver.…", id="which-table"),
        pytest.param(["features", "f", "--on", "silver.products"], "no such table of facts", id="on-a-snapshot"),
        pytest.param(["features", "f", "--on", "silver.transaction"], "did you mean silver.transactions?", id="on-misspelt"),
        pytest.param(["source", "s", "--on", "silver.products"], "leave --on out", id="source-on-something"),
        pytest.param(["source", "s", "--like", "transaction"], "did you mean transactions?", id="like-misspelt"),
        pytest.param(["model", "m", "--like", "customers"], "there is no model customers to copy", id="like-another-kind"),
        pytest.param(["model", "m", "--on", "customers", "--entity", "x"], "--entity is for a source", id="entity-of-a-model"),
        pytest.param(["source", "s", "--entity", "Whose"], "lower-case letters, digits and _ only", id="bad-entity"),
        pytest.param(["model", "m", "--like", "churn", "--on", "customers"], "--on is for a template", id="like-and-on"),
    ],
)  # fmt: skip
def test_what_cannot_be_written_leaves_nothing_behind(
    capsys: pytest.CaptureFixture[str], resources: Resources, arguments: list[str], why: str
) -> None:
    before = content(resources.folder)
    assert why in refusal(capsys, *arguments)
    assert content(resources.folder) == before


def test_a_file_in_the_way_is_not_overwritten(capsys: pytest.CaptureFixture[str], resources: Resources) -> None:
    query = resources.write("sql", "sources/visits.sql", "SELECT 1")
    before = content(resources.folder)
    assert str(query) in refusal(capsys, "source", "visits")
    assert content(resources.folder) == before


def test_a_business_from_templates_is_right_at_once(capsys: pytest.CaptureFixture[str], resources: Resources) -> None:
    files = new(capsys, "source", "visits")
    files += new(capsys, "features", "guests", "--on", "silver.visits")
    files += new(capsys, "model", "lapse", "--on", "guests")
    names = {str(file.relative_to(resources.folder)) for file in files}
    assert names == {
        "config/sources/visits.yaml", "sql/sources/visits.sql", "expectations/visits/arrival.yaml",
        "expectations/visits/silver.yaml", "examples/visits/2024-02-29/visits.csv", "tests/sql/sources/visits.yaml",
        "config/features/guests.yaml", "sql/features/guests.sql", "tests/sql/features/guests.yaml",
        "config/models/lapse.yaml", "sql/populations/lapse.sql", "sql/labels/lapse.sql",
        "tests/sql/populations/lapse.yaml", "tests/sql/labels/lapse.yaml",
    }  # fmt: skip
    assert [str(problem) for problem in check_project(spark=False).problems] == []
    assert load_project().models["lapse"].features == {
        "guests": ("since_last", "since_first", "days", "total", "recent")
    }
    assert all("TODO" in file.read_text() for file in files if file.suffix == ".yaml" and file.parts[-3] == "config")


def test_a_copy_is_right_at_once_and_touches_no_table_of_the_original(capsys: pytest.CaptureFixture[str]) -> None:
    new(capsys, "source", "sales", "--like", "transactions")
    new(capsys, "features", "shoppers", "--like", "customers")
    new(capsys, "model", "leaving", "--like", "churn")
    assert [str(problem) for problem in check_project(spark=False).problems] == []
    project = load_project()
    assert project.sources["sales"].tables == ("silver.sales", "silver.sales_customer_days")
    copied, original = project.models["leaving"], project.models["churn"]
    assert copied.train.params == original.train.params
    assert not {copied.train.table, copied.score.table, copied.monitor.table} & {
        original.train.table, original.score.table, original.monitor.table
    }  # fmt: skip


def test_a_copy_keeps_comments(capsys: pytest.CaptureFixture[str], resources: Resources) -> None:
    new(capsys, "model", "leaving", "--like", "churn")
    texts = [(resources.folder / "config" / "models" / f"{name}.yaml").read_text() for name in ("churn", "leaving")]
    comments = [[line.partition("#")[2] for line in text.splitlines() if "#" in line] for text in texts]
    assert len(comments[0]) == len(comments[1])
    assert "labels/leaving.sql" in texts[1]
    assert "no_purchase" not in texts[1]


@pytest.mark.parametrize("like", [None, "transactions", "products"])
def test_the_data_file_has_rows_that_the_query_accepts(
    capsys: pytest.CaptureFixture[str], resources: Resources, like: str | None
) -> None:
    from datetime import date

    from ml.check.arrivals import bronze_rows

    new(capsys, "source", "visits", *(["--like", like] if like else []))
    source = load_source("visits")
    (path,) = (resources.folder / "examples" / "visits").rglob("*.csv")
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    bronze = bronze_rows(source.column_names, [(date.fromisoformat(path.parent.name), path.name, row) for row in rows])
    values = {"timezone": source.timezone} if like != "products" else {}
    outcomes = open_engine("duckdb").run(source.clean.query, {"bronze": bronze}, source.clean.settings | values)
    assert set(outcomes["outcome"].to_pylist()) == {"silver"}
    assert len(rows) >= 3


def test_the_sql_cases_of_templates_pass(capsys: pytest.CaptureFixture[str], resources: Resources) -> None:
    new(capsys, "source", "visits")
    new(capsys, "features", "guests", "--on", "silver.visits")
    new(capsys, "model", "lapse", "--on", "guests")
    cases = read_cases(resources.folder / "tests" / "sql")
    assert len(cases) >= 10
    for case in cases:
        case.check(case.run(open_engine("duckdb")))


def test_an_edit_of_yaml_keeps_everything_else() -> None:
    text = "a: 1  # one\nb:\n  c: {d: x, e: y} # two\n"
    assert edit(text, {("b", "c", "d"): "z"}, {("a",): "first"}) == "first: 1  # one\nb:\n  c: {d: z, e: y} # two\n"
    with pytest.raises(KeyError, match="x"):
        edit(text, {("b", "x"): "z"})
