"""Decisions are added once, and never changed or removed."""

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

EVENT = decisions.Event(
    id="a", event="gate", model="churn", version="7", before="3", after="3", approved=True, reasons=("why",),
    rules=({"rule": "rows"},), told={"n": 1},
)  # fmt: skip


@pytest.fixture(autouse=True)
def _lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKE_URI", f"file://{tmp_path}")
    monkeypatch.setenv("ML_COMMIT", "abc123")


def test_an_event_is_read_as_recorded_with_time_and_commit() -> None:
    decisions.record(EVENT)
    (found,) = decisions.read_events("churn")
    assert found.at is not None
    assert found == replace(EVENT, at=found.at, commit="abc123")


def test_recording_an_event_again_returns_the_first_record() -> None:
    first = decisions.record(EVENT)
    assert decisions.record(replace(EVENT, approved=False, reasons=("another reason",))) == first
    assert len(decisions.read_events("churn")) == 1


def test_concurrent_writers_record_each_event_once() -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: decisions.record(replace(EVENT, id=f"e{n % 4}")), range(16)))
    assert sorted(event.id for event in decisions.read_events("churn")) == ["e0", "e1", "e2", "e3"]


def test_events_are_ordered_by_time_and_selected_by_kind_and_version() -> None:
    for number, (kind, version) in enumerate([("gate", "1"), ("promotion", "1"), ("gate", "2"), ("gate", "1")]):
        decisions.record(replace(EVENT, id=f"e{number}", event=kind, version=version))  # type: ignore[arg-type]
    assert [event.id for event in decisions.read_events("churn")] == ["e0", "e1", "e2", "e3"]
    last = decisions.read_newest("churn", "gate", "1")
    assert last is not None
    assert last.id == "e3"
    assert decisions.read_events("other") == []


def test_an_empty_lake_has_no_events() -> None:
    assert decisions.read_events("churn") == []
    assert not decisions.is_recorded("a")


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
    assert decisions.read_events("churn")[0].approved


def test_an_older_table_becomes_append_only_and_keeps_its_rows() -> None:
    tables.replace(decisions.TABLE, pa.table({"id": ["old"], "model": ["churn"]}), "id = 'old'")
    assert decisions.read_events("churn") == []
    decisions.record(EVENT)
    assert [event.id for event in decisions.read_events("churn")] == ["a"]
    assert sorted(tables.read(decisions.TABLE)["id"].to_pylist()) == ["a", "old"]
    with pytest.raises(CommitFailedError, match="append-only"):
        tables.table(decisions.TABLE).delete("id = 'old'")


def test_reading_decisions_imports_nothing_heavy_at_the_top() -> None:
    code = "import sys, ml.ops.decisions, ml.registry.production, ml.promote.approval; print([m for m in ('mlflow', 'pyarrow', 'deltalake') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
