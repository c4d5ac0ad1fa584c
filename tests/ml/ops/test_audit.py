"""Decisions are added once, and nobody changes or removes one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake.exceptions import CommitFailedError

from ml.ops import decisions
from ml.storage import tables

EVENT = decisions.Event("a", "gate", "churn", "7", "3", "3", True, ("why",), rules=({"rule": "rows"},), told={"n": 1})


@pytest.fixture(autouse=True)
def _lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKE_URI", f"file://{tmp_path}")
    monkeypatch.setenv("ML_COMMIT", "abc123")


def test_an_event_comes_back_as_it_was_recorded_with_moment_and_commit() -> None:
    decisions.record(EVENT)
    (found,) = decisions.events("churn")
    assert found.at is not None
    assert found == replace(EVENT, at=found.at, commit="abc123")


def test_the_same_event_again_is_the_first_one() -> None:
    first = decisions.record(EVENT)
    assert decisions.record(replace(EVENT, approved=False, reasons=("another story",))) == first
    assert len(decisions.events("churn")) == 1


def test_of_many_at_once_each_event_is_there_once() -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: decisions.record(replace(EVENT, id=f"e{n % 4}")), range(16)))
    assert sorted(one.id for one in decisions.events("churn")) == ["e0", "e1", "e2", "e3"]


def test_events_come_oldest_first_by_kind_and_version() -> None:
    for number, (kind, version) in enumerate([("gate", "1"), ("promotion", "1"), ("gate", "2"), ("gate", "1")]):
        decisions.record(replace(EVENT, id=f"e{number}", event=kind, version=version))  # type: ignore[arg-type]
    assert [one.id for one in decisions.events("churn")] == ["e0", "e1", "e2", "e3"]
    last = decisions.newest("churn", "gate", "1")
    assert last is not None
    assert last.id == "e3"
    assert decisions.events("other") == []


def test_before_the_first_event_there_is_none() -> None:
    assert decisions.events("churn") == []
    assert not decisions.recorded("a")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda: tables.table(decisions.TABLE).delete("id = 'a'"), id="delete"),
        pytest.param(lambda: tables.table(decisions.TABLE).update({"approved": "false"}), id="update"),
        pytest.param(lambda: tables.replace(decisions.TABLE, tables.read(decisions.TABLE), "id = 'a'"), id="replace"),
    ],
)
def test_no_row_is_removed_or_changed(change: Callable[[], object]) -> None:
    decisions.record(EVENT)
    with pytest.raises(CommitFailedError, match="append-only"):
        change()
    assert decisions.events("churn")[0].approved


def test_a_table_from_before_becomes_append_only_and_keeps_its_rows() -> None:
    tables.replace(decisions.TABLE, pa.table({"id": ["old"], "model": ["churn"]}), "id = 'old'")
    assert decisions.events("churn") == []
    decisions.record(EVENT)
    assert [one.id for one in decisions.events("churn")] == ["a"]
    assert sorted(tables.read(decisions.TABLE)["id"].to_pylist()) == ["a", "old"]
    with pytest.raises(CommitFailedError, match="append-only"):
        tables.table(decisions.TABLE).delete("id = 'old'")


def test_reading_decisions_imports_nothing_heavy_at_the_top() -> None:
    code = "import sys, ml.ops.decisions, ml.registry.production, ml.promote.approval; print([m for m in ('mlflow', 'pyarrow', 'deltalake') if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
