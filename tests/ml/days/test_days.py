"""Freshness of days: what is behind, and what a correction makes stale, computed from tables alone."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import date

import pytest

from ml import cli
from ml.config import load_project
from ml.days import freshness, pending
from ml.days.state import read_state
from ml.landing import listing
from ml.ops import built_days, held_days
from ml.ops.built_days import BuiltDay
from ml.storage import stores, tables
from ml.storage.leases import LeaseError
from tests.support.data.built_days import (
    CHAIN,
    FEATURES,
    LATER,
    MONITOR,
    SCORE,
    SILVER_NODE,
    D,
    build_all,
    build_features,
    ingest,
    lake_folder,
    newest,
    record_build,
)

__all__ = ["lake_folder"]  # an autouse fixture


def days_behind() -> dict[date, tuple[str, bool]]:
    """The first node of the chain that each day needs, and whether only the sweep requests it."""
    current = freshness.Freshness(read_state(load_project()), LATER)
    return {
        day: (behind.node, behind.trigger_now)
        for day in D
        if (behind := next(filter(None, (current.behind(node, day) for node in CHAIN)), None))
    }


def pending_days() -> dict[str, list[date]]:
    work = pending.pending_work(load_project(), {}, LATER)
    return {node: [request.day for request in work[node]] for node in CHAIN}


def test_a_day_needs_one_stage_after_the_other() -> None:
    ingest(D[0])
    assert days_behind() == {D[0]: (FEATURES, False)}
    build_features(D[0])
    assert days_behind() == {D[0]: (SCORE, False)}
    record_build(SCORE, D[0])
    assert days_behind() == {D[0]: (MONITOR, False)}
    record_build(MONITOR, D[0])
    assert days_behind() == {}


def test_no_stage_is_requested_for_silver_that_is_not_validated() -> None:
    """Its ingestion still runs, or died before its last step: then the ingestion is requested again."""
    ingest(D[0])
    build_all(D[0])
    ingest(D[0], D[1], content="corrected", validated=False)
    assert days_behind() == {D[0]: (SILVER_NODE, False), D[1]: (SILVER_NODE, False)}
    assert pending_days() == {
        SILVER_NODE: [D[0], D[1]], FEATURES: [], SCORE: [], MONITOR: [],
    }  # fmt: skip


def test_a_day_whose_silver_was_refused_is_held_and_later_days_are_not_rebuilt_with_it() -> None:
    ingest(*D[:3])
    build_all(*D[:3])
    ingest(D[1], content="bad", validated=False)
    refused = held_days.Held()
    refused[D[1]].append("too many returns")
    held_days.write("transactions", refused, [D[1]], {D[1]: "f-bad"}, "k")
    assert D[1] not in days_behind()
    assert not any(pending_days().values())
    ingest(D[1], content="good")
    assert pending_days()[FEATURES] == [D[1], D[2]]


def test_without_a_champion_a_day_needs_features_only() -> None:
    ingest(D[0])
    build_features(D[0])
    record_build(SCORE, D[0], model_version=None)
    assert days_behind() == {}


def test_days_of_a_history_that_later_stages_do_not_follow_are_not_behind() -> None:
    ingest(*D[:3], follow=False)
    ingest(D[3])
    assert set(days_behind()) == {D[3]}


@pytest.mark.parametrize(
    ("corrected", "stale"),
    [
        pytest.param(D[3], {D[3]: False, D[4]: True, D[5]: True}, id="that-day-and-the-days-after-it"),
        pytest.param(D[5], {D[5]: False}, id="only-the-last-day"),
        pytest.param(D[0], {D[2]: True, D[3]: True, D[4]: True, D[5]: True}, id="days-after-a-day-without-features"),
    ],
)
def test_a_corrected_day_makes_exactly_the_featured_days_from_it_on_stale(
    corrected: date, stale: dict[date, bool]
) -> None:
    ingest(*D[:2], follow=False)
    ingest(*D[2:6])
    build_all(*D[2:6])
    assert days_behind() == {}
    ingest(corrected, content="corrected", follow=corrected in D[2:6])
    assert days_behind() == {day: (FEATURES, trigger_now) for day, trigger_now in stale.items()}


def test_a_late_day_makes_the_days_after_it_stale() -> None:
    ingest(D[0], D[2])
    build_all(D[0], D[2])
    ingest(D[1])
    assert days_behind() == {D[1]: (FEATURES, False), D[2]: (FEATURES, True)}


def test_a_day_ingested_again_with_the_same_content_makes_no_day_stale() -> None:
    ingest(*D[:3])
    build_all(*D[:3])
    ingest(D[1])
    assert days_behind() == {}


def test_a_rebuilt_day_makes_its_scores_stale_and_records_why() -> None:
    ingest(*D[:3])
    build_all(*D[:3])
    ingest(D[0], content="corrected")
    facts = build_features(D[2], run_key="features-2")
    assert facts["because"] == {str(D[2]): f"changed since: {D[0]}"}
    assert days_behind() == {D[0]: (FEATURES, False), D[1]: (FEATURES, True), D[2]: (SCORE, False)}


def test_features_rebuilt_from_the_same_inputs_leave_the_scores_current() -> None:
    ingest(*D[:3])
    build_all(*D[:3])
    assert build_features(D[1], run_key="again")["because"] == {str(D[1]): "requested again"}
    assert days_behind() == {}


def test_a_process_that_dies_before_it_writes_the_journal_leaves_a_day_that_is_rebuilt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ingest(*D[:2])
    build_all(*D[:2])
    ingest(D[0], content="corrected")

    def die(entries: Iterable[BuiltDay]) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(built_days, "write", die)
        with pytest.raises(KeyboardInterrupt):
            build_features(*D[:2])
    assert set(days_behind()) == set(D[:2])
    build_all(*D[:2])
    assert days_behind() == {}


def test_the_journal_has_one_entry_per_run_key() -> None:
    ingest(D[0])
    build_features(D[0])
    build_features(D[0])
    assert len(built_days.read_entries(node=FEATURES, day=D[0])) == 1
    build_features(D[0], run_key="other")
    assert [entry.run_key for entry in built_days.read_entries(node=FEATURES, day=D[0])] == [
        "features-1",
        "other",
    ]


def test_features_of_a_backfilled_day_use_no_later_days() -> None:
    ingest(*D[:3])
    build_features(D[1])
    before = tables.read("features.customers").to_pylist()
    entry = newest(FEATURES, D[1])
    ingest(*D[3:], content="much later")
    ingest(D[2], content="corrected later")
    assert D[1] not in {day for day, (stage, _) in days_behind().items() if stage == FEATURES}
    build_features(D[1], run_key="backfill")
    assert tables.read("features.customers").to_pylist() == before
    assert newest(FEATURES, D[1]).inputs == entry.inputs


def test_a_rebuilt_day_uses_a_later_correction() -> None:
    ingest(*D[:2])
    build_features(D[1])
    ingest(D[0], content="corrected")
    build_features(D[1], run_key="again")
    (row,) = tables.read("features.customers").to_pylist()
    assert row["amount"] == len("corrected") + len("a")


def test_the_command_prints_what_each_day_needs_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    ingest(*D[:3])
    build_all(*D[:2])
    ingest(D[0], content="corrected")
    stores.landing().write(f"transactions/{D[4]}/x.csv", b"new")
    stores.landing().write(f"transactions/{D[5]}/x.csv", b"")
    (landed,) = (day for day in listing.list_landing("transactions").days if day.day == D[5])
    refused = held_days.Held()
    refused[D[5]].append("x.csv has no rows {at all}")
    held_days.write("transactions", refused, [D[5]], {D[5]: landed.fingerprint}, "k")
    cli.main(["days", "--node", MONITOR])
    *lines, facts = capsys.readouterr().out.splitlines()
    printed = "\n".join(lines)
    assert [line.split() for line in lines[:6]] == [
        ["day", *CHAIN],
        [str(D[0]), "yes", "stale", "version", "1", "yes"],
        [str(D[1]), "yes", "stale", "version", "1", "yes"],
        [str(D[2]), "yes", "behind", "-", "-"],
        [str(D[4]), "no", "-", "-", "-"],
        [str(D[5]), "held", "-", "-", "-"],
    ]
    assert f"{D[5]} silver.transactions: x.csv has no rows {{at all}}. It starts by itself when its files" in printed
    assert f"{D[2]} {FEATURES}: ingested, and without features (missing). arrivals requests it by itself" in printed
    assert "at once: airflow dags trigger arrivals" in printed
    assert json.loads(facts) == {
        "days": 5,
        "held": {SILVER_NODE: [str(D[5])]},
        "missing": {SILVER_NODE: [str(D[4])]},
        "behind": {FEATURES: [str(D[0]), str(D[1]), str(D[2])]},
        "waiting": {},
        "left": {},
        "retired": [],
        "causes": {FEATURES: {str(D[0]): "data", str(D[1]): "upstream", str(D[2]): "missing"}},
    }
    cli.main(["days", "--node", MONITOR, "--days", str(D[1])])
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_an_unknown_node_is_refused_with_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["days", "--node", "features.nope"])
    assert "--node features.nope: there is no such node; there are: " in capsys.readouterr().err


def test_the_history_of_a_day_has_each_build_and_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    ingest(*D[:2])
    build_features(D[1])
    ingest(D[0], content="corrected")
    build_features(D[1], run_key="features-2")
    cli.main(["history", "features.customers", "--day", str(D[1])])
    first, second, facts = capsys.readouterr().out.splitlines()
    assert first.endswith("version 0, 1 rows  features-1  first")
    assert second.endswith(f"version 1, 1 rows  features-2  changed since: {D[0]}")
    written = json.loads(facts)["written"]
    assert [build["run_key"] for build in written] == ["features-1", "features-2"]
    assert written[0]["inputs"] != written[1]["inputs"]


def test_a_table_without_a_history_is_refused_with_those_that_have_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["history", "ops.built_days", "--day", str(D[1])])
    message = capsys.readouterr().err
    assert "ops.built_days has no history of its days; these have one: features.customers, " in message
    assert "gold.drift" in message


def test_many_small_files_of_the_journal_are_compacted() -> None:
    ingest(D[0])
    build_features(D[0])
    for n in range(built_days.MAX_FILES + 5):
        record_build(SCORE, D[0], "inputs", run_key=f"k{n}")
    assert len(tables.table(built_days.TABLE).file_uris()) < 10
    assert len(built_days.read_entries(node=SCORE, day=D[0])) == built_days.MAX_FILES + 5


def test_a_commit_names_its_stage_and_run_key() -> None:
    ingest(D[0])
    build_features(D[0], run_key="features-9")
    (commit,) = tables.table("features.customers").history(1)
    assert (commit["stage"], commit["run_key"]) == ("features", "features-9")


def test_two_processes_write_the_same_features_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that waits too long fails with the name of the holder, and may be retried."""
    ingest(D[0])
    monkeypatch.setattr(tables, "TABLE_WAIT_SECONDS", 0.1)
    with (
        tables.hold("features.customers", "somebody at a shell"),
        pytest.raises(LeaseError, match="is held by somebody at a shell"),
    ):
        build_features(D[0])
    assert not tables.exists("features.customers")
    build_features(D[0])


@pytest.mark.parametrize("last", [FEATURES, SCORE])
def test_an_entry_of_one_stage_never_hides_an_entry_of_another(last: str) -> None:
    """Scores of features that were rebuilt since are behind, whichever entry was written last."""
    ingest(*D[:2])
    build_all(*D[:2])
    old = newest(SCORE, D[1]).inputs
    ingest(D[0], content="corrected")
    build_features(D[1], run_key="again")
    if last == SCORE:
        record_build(SCORE, D[1], old, run_key="slow")
    assert days_behind()[D[1]][0] == SCORE
