"""Names and values from elsewhere: they stay in their folder, they stay text, and nonsense is refused in words."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from hypothesis import example, given
from hypothesis import strategies as st

from ml import pages
from ml.config import load_source
from ml.landing import listing
from ml.storage import stores, tables
from ml.storage.stores import Blob, FolderStore
from ml.validate import page as validate_page
from ml.validate.expectations import Outcome
from ml.validate.expectations import load as load_suite
from mlops.partitions import day_of
from remote.run_keys import run_key
from standins.core import ledger
from standins.data_factory import page as data_factory_page
from standins.databricks import page as databricks_page
from tests.support.components.task_contexts import Ti, context_of
from tests.support.html_pages import Page

HOSTILE = [
    pytest.param("'; DROP TABLE silver.transactions; --", id="sql"),
    pytest.param("$(touch /tmp/owned)", id="shell"),
    pytest.param("`touch /tmp/owned`", id="backticks"),
    pytest.param("../../../etc/passwd", id="parent-folders"),
    pytest.param("..%2f..%2fetc%2fpasswd", id="encoded-parent-folders"),
    pytest.param("%2e%2e/%2e%2e", id="encoded-dots"),
    pytest.param("/etc/passwd", id="absolute"),
    pytest.param("..\\..\\windows", id="backslashes"),
    pytest.param("2026-11-01\0.csv", id="nul"),
    pytest.param("2026-11-01\n2026-11-02", id="newline"),
    pytest.param("{{ conn.azure_ml_default.password }}", id="template"),
    pytest.param("x" * 10_000, id="ten-thousand-letters"),
    pytest.param("<script>alert(1)</script>", id="markup"),
    pytest.param("２０２６-１１-０１", id="digits-of-another-script"),
]


@pytest.mark.parametrize("key", [*HOSTILE, "", "today", "20261101", "2026-W45-1", " 2026-11-01", "2026-11-01T00:00:00"])
def test_a_partition_key_that_is_no_day_is_refused_and_shown(key: str) -> None:
    context: Any = {"dag_run": SimpleNamespace(partition_key=key, dag_id="transactions_ingest")}
    with pytest.raises(AirflowFailException, match="a day as YYYY-MM-DD is needed"):
        day_of(context)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_run_key_is_plain_whatever_it_is_made_from(text: str) -> None:
    for context in (context_of(Ti(), day=text), context_of(Ti(task_id=text)), context_of(Ti(dag_id=text))):
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", run_key(context))


ARGUMENTS = {
    "days": ["ingest", "--source", "transactions", "--run-key", "k", "--days", "{}"],
    "day": ["score", "--run-key", "k", "--day", "{}"],
    "as-of": ["features", "--table", "customers", "--run-key", "k", "--as-of", "{}"],
    "source": ["ingest", "--run-key", "k", "--days", "2026-11-01", "--source", "{}"],
    "table": ["features", "--run-key", "k", "--as-of", "2026-11-01", "--table", "{}"],
    "model": ["score", "--run-key", "k", "--day", "2026-11-01", "--model", "{}"],
    "suite": ["validate", "--source", "transactions", "--run-key", "k", "--suite", "{}", "--days", "2026-11-01"],
    "node": ["days", "--node", "{}"],
    "version": ["train", "--run-key", "k", "--training-set-version", "{}"],
    "run-key": ["train", "--run-key", "{}", "--training-set-version", "1"],
}
# No process can be given a NUL; a run key may be any text without quotes and lines, since it is a value everywhere.
GIVEN = [
    pytest.param(arguments, text.values[0], id=f"{name}-{text.id}")
    for name, arguments in ARGUMENTS.items()
    for text in HOSTILE
    if "\0" not in str(text.values[0]) and (name != "run-key" or set(str(text.values[0])) & set("'\n"))
]


@pytest.mark.parametrize(("arguments", "text"), GIVEN)
def test_the_stages_refuse_nonsense(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], text: str
) -> None:
    from ml.cli import main

    for name in ("LAKE_URI", "LANDING_URI", "REPORTS_URI"):
        monkeypatch.setenv(name, (tmp_path / name.lower()).as_uri())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(SystemExit) as stopped:
        main([argument.format(text) if argument == "{}" else argument for argument in arguments])
    assert stopped.value.code in (1, 2)
    told = capsys.readouterr()
    assert "Traceback" not in told.err
    assert told.err
    assert not list(tmp_path.rglob("*owned*"))


@pytest.mark.parametrize("text", HOSTILE)
def test_a_table_has_a_name_not_a_path(text: str) -> None:
    for name in (text, f"silver.{text}", f"{text}.transactions") if not text.isidentifier() else ("no_layer",):
        with pytest.raises(ValueError, match=r"<layer>\.<table> is needed"):
            tables.uri(name)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_landed_file_of_a_bad_name_is_a_stray(text: str) -> None:
    names = [f"transactions/{text}/a.csv", f"transactions/2026-11-01/{text}", f"{text}/2026-11-01/a.csv"]
    found = listing.landed_days([Blob(name, 1, "e") for name in names], "transactions")
    assert [day.files for day in found.days] in ([], [()]), "the day is told of it, and takes nothing"
    assert len(found.strays) == len(names)


@given(st.text(min_size=1, max_size=60))
@example("../x")
@example(".")
@example("..")
@example("a/../../x")
@example("/etc/passwd")
def test_a_folder_store_keeps_to_its_folder(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    base = tmp_path_factory.mktemp("store")
    inside = FolderStore(base / "inside")
    inside.folder.mkdir()
    for act in (lambda: inside.write(name, b"x"), lambda: inside.read(name), lambda: inside.delete(name)):
        try:
            act()
        except (ValueError, OSError):
            continue
    assert [path.name for path in base.iterdir()] == ["inside"]


def test_a_folder_store_follows_no_link_out_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "secret").write_text("x")
    (tmp_path / "inside" / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match="is not a path inside the store's folder"):
        FolderStore(tmp_path / "inside").read("link")
    assert stores  # the module is what is tested


MARKUP = "\"'></pre></td><script>alert(1)</script><img src=x onerror=alert(1)>{x}"


def test_a_page_for_people_runs_nothing_that_a_file_said() -> None:
    suite = load_suite("silver", load_source("transactions"))
    outcomes = [
        Outcome(one, passed=False, observed=MARKUP, examples=({"file": MARKUP, MARKUP: "x"},))
        for one in suite.expectations
    ]
    found = [
        validate_page.validation_page(MARKUP, suite, MARKUP, {MARKUP: 3}, outcomes, MARKUP).decode(),
        pages.page(
            MARKUP, MARKUP, [pages.tiles([(MARKUP,) * 3]), pages.notes([MARKUP]), pages.bar(MARKUP, 1, MARKUP)]
        ).decode(),
    ]
    for page in found:
        assert Page(page).bad == []


def test_a_page_of_the_stand_ins_runs_nothing_that_a_request_said() -> None:
    entry = ledger.Entry(1, *[MARKUP] * 4, MARKUP, {MARKUP: MARKUP}, MARKUP, "2026-11-01", MARKUP, MARKUP, None, None)
    task = {
        "task_key": MARKUP, "result": "FAILED", "state": "TERMINATED", "attempt_number": 0, "start_time": 1,
        "end_time": 2, "error": MARKUP, "message": MARKUP, "run_id": 7,
    }  # fmt: skip
    run: Any = {"run_name": MARKUP, "run_id": 7, "result": "FAILED", "message": MARKUP, "tasks": [task]}
    activity = {
        "activityName": MARKUP, "status": "Failed", "durationInMs": 1, "error": {"message": MARKUP}, "output": {"filesRead": MARKUP},
    }  # fmt: skip
    for page in (ledger._row(entry), databricks_page.run_page(run, {7: MARKUP}), data_factory_page._row(activity)):
        assert Page(page).bad == []


def test_dates_are_the_only_thing_a_day_predicate_can_say() -> None:
    with pytest.raises(AttributeError):
        tables.day_predicate("day", ["2026-11-01') OR 1=1 --"])  # type: ignore[list-item]
    assert tables.day_predicate("day", [date(2026, 11, 1)]) == "day IN (DATE '2026-11-01')"


def test_hostile_values_of_a_row_are_data(tmp_path: Path) -> None:
    """Through the engine that runs every SQL of the loop, in each text column."""
    told = subprocess.run(
        [sys.executable, "-c", _CLEANS, json.dumps([one.values[0] for one in HOSTILE])],
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
        check=False,
    )
    assert told.returncode == 0, told.stderr
    assert not Path("/tmp/owned").exists()


_CLEANS = """
import json, sys
sys.path[:0] = ["src"]
from datetime import date
import pyarrow as pa
from ml.config import load_source
from ml.ingest import cleaning
source = load_source("transactions")
texts = json.loads(sys.argv[1])
rows = [{"_day": date(2026, 11, 1), "_file": "transactions/2026-11-01/a.csv", "_row": n + 1,
         **{name: text for name in source.columns}} for n, text in enumerate(texts)]
schema = pa.schema({"_day": pa.date32(), "_file": pa.string(), "_row": pa.int64(), **{name: pa.string() for name in source.columns}})
found = cleaning.clean(source, pa.Table.from_pylist(rows, schema), [])
assert found.silver.num_rows == 0, found.silver.to_pylist()
assert found.quarantine.num_rows + sum(found.duplicates.values()) == len(texts)
"""
