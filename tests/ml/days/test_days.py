"""How far days have come, what is behind, and what a correction makes stale: computed from tables, never remembered."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import date

import pyarrow as pa
import pytest

from ml import cli
from ml.config import load_model
from ml.days import freshness, pending
from ml.landing import listing
from ml.ops import built_days, held_days
from ml.ops.built_days import BuiltDay
from ml.storage import stores, tables
from ml.storage.leases import LeaseError
from tests.support.built_days import LATER, D, feature, finish, ingest, lake_folder, note

__all__ = ["lake_folder"]  # every test's


def behind() -> dict[date, tuple[str, bool]]:
    now = freshness.read_freshness("churn")
    return {day: (found.stage, found.brought) for day in D if (found := now.behind(day))}


def test_a_day_needs_its_stages_one_after_the_other() -> None:
    ingest(D[0])
    assert behind() == {D[0]: ("features", True)}
    feature(D[0])
    assert behind() == {D[0]: ("score", True)}
    inputs = built_days.newest("churn", D[0])["features"][D[0]].inputs
    note("score", D[0], inputs)
    assert behind() == {D[0]: ("monitor", True)}
    note("monitor", D[0], inputs)
    assert behind() == {}


def test_nothing_is_made_from_silver_that_has_not_passed_its_validation() -> None:
    """The run that ingested it goes on, or died before the last step: then the ingestion is asked for again."""
    ingest(D[0])
    finish(D[0])
    ingest(D[0], D[1], content="corrected", proven=False)
    assert behind() == {D[0]: ("validate", True), D[1]: ("validate", True)}
    assert {name: list(of) for name, of in pending.pending_work(load_model("churn"), {}, LATER).items()} == {
        "ingest": [D[0], D[1]], "features": [], "score": [], "monitor": [],
    }  # fmt: skip


def test_a_day_whose_silver_was_refused_rests_and_no_other_is_made_again_with_it() -> None:
    ingest(*D[:3])
    finish(*D[:3])
    ingest(D[1], content="bad", proven=False)
    refused = held_days.Held()
    refused[D[1]].append("too many returns")
    held_days.note(refused, [D[1]], {D[1]: "f-bad"}, "k")
    assert D[1] not in behind()
    assert {name: list(of) for name, of in pending.pending_work(load_model("churn"), {}, LATER).items() if of} == {}
    ingest(D[1], content="good")
    assert list(pending.pending_work(load_model("churn"), {}, LATER)["features"]) == [D[1], D[2]]


def test_without_a_champion_a_day_is_done_with_its_features() -> None:
    ingest(D[0])
    feature(D[0])
    note("score", D[0], built_days.newest("churn", D[0])["features"][D[0]].inputs, model_version=None)
    assert behind() == {}


def test_the_days_of_a_history_between_first_and_last_are_not_expected() -> None:
    ingest(*D[:3], follow=False)
    ingest(D[3])
    assert set(behind()) == {D[3]}


@pytest.mark.parametrize(
    ("corrected", "stale"),
    [
        pytest.param(D[3], {D[3]: True, D[4]: False, D[5]: False}, id="it-and-the-days-after-it"),
        pytest.param(D[5], {D[5]: True}, id="the-last-day-only-itself"),
        pytest.param(
            D[0], {D[2]: False, D[3]: False, D[4]: False, D[5]: False}, id="a-day-without-features-of-its-own"
        ),
    ],
)
def test_a_corrected_day_makes_exactly_the_featured_days_from_it_on_stale(
    corrected: date, stale: dict[date, bool]
) -> None:
    ingest(*D[:2], follow=False)
    ingest(*D[2:6])
    finish(*D[2:6])
    assert behind() == {}
    ingest(corrected, content="corrected", follow=corrected in D[2:6])
    assert behind() == {day: ("features", brought) for day, brought in stale.items()}


def test_a_late_day_makes_the_days_after_it_stale() -> None:
    ingest(D[0], D[2])
    finish(D[0], D[2])
    ingest(D[1])
    assert behind() == {D[1]: ("features", True), D[2]: ("features", False)}


def test_a_day_that_is_ingested_again_as_it_was_makes_none_stale() -> None:
    ingest(*D[:3])
    finish(*D[:3])
    ingest(D[1])
    assert behind() == {}


def test_making_a_stale_day_again_makes_its_scores_stale_and_says_why() -> None:
    ingest(*D[:3])
    finish(*D[:3])
    ingest(D[0], content="corrected")
    facts = feature(D[2], run_key="features-2")
    assert facts["because"] == {str(D[2]): f"changed since: {D[0]}"}
    assert behind() == {D[0]: ("features", True), D[1]: ("features", False), D[2]: ("score", True)}


def test_features_that_are_made_again_as_they_were_leave_the_scores_alone() -> None:
    ingest(*D[:3])
    finish(*D[:3])
    assert feature(D[1], run_key="again")["because"] == {str(D[1]): "asked for again"}
    assert behind() == {}


def test_a_process_that_dies_before_the_journal_leaves_a_day_that_is_made_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ingest(*D[:2])
    finish(*D[:2])
    ingest(D[0], content="corrected")

    def die(entries: Iterable[BuiltDay]) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(built_days, "write", die)
        with pytest.raises(KeyboardInterrupt):
            feature(*D[:2])
    assert set(behind()) == set(D[:2])
    finish(*D[:2])
    assert behind() == {}


def test_the_same_run_key_is_noted_once() -> None:
    ingest(D[0])
    feature(D[0])
    feature(D[0])
    assert len(built_days.entries("churn", stage="features", day=D[0])) == 1
    feature(D[0], run_key="other")
    assert [entry.run_key for entry in built_days.entries("churn", stage="features", day=D[0])] == [
        "features-1",
        "other",
    ]


def test_features_of_a_backfilled_day_know_nothing_of_later_days() -> None:
    ingest(*D[:3])
    feature(D[1])
    before = tables.read("features.customers").to_pylist()
    entry = built_days.newest("churn", D[1])["features"][D[1]]
    ingest(*D[3:], content="much later")
    ingest(D[2], content="corrected later")
    assert D[1] not in {day for day, (stage_, _) in behind().items() if stage_ == "features"}
    feature(D[1], run_key="backfill")
    assert tables.read("features.customers").to_pylist() == before
    assert built_days.newest("churn", D[1])["features"][D[1]].inputs == entry.inputs


def test_a_correction_that_came_later_is_in_a_rebuilt_day() -> None:
    ingest(*D[:2])
    feature(D[1])
    ingest(D[0], content="corrected")
    feature(D[1], run_key="again")
    (row,) = tables.read("features.customers").to_pylist()
    assert row["amount"] == len("corrected") + len("a")


def test_the_table_tells_what_each_day_needs_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    ingest(*D[:3])
    finish(*D[:2])
    ingest(D[0], content="corrected")
    stores.landing().write(f"transactions/{D[4]}/x.csv", b"new")
    stores.landing().write(f"transactions/{D[5]}/x.csv", b"")
    (landed,) = (found for found in listing.list_landing("transactions").days if found.day == D[5])
    held = {"day": D[5], "fingerprint": landed.fingerprint, "reasons": ["x.csv has no rows {at all}"], "run_key": "k"}
    schema = pa.schema(
        {"day": pa.date32(), "fingerprint": pa.string(), "reasons": pa.list_(pa.string()), "run_key": pa.string()}
    )
    tables.replace(held_days.HELD_DAYS, pa.Table.from_pylist([held], schema), "day IS NOT NULL")
    cli.main(["days"])
    *lines, facts = capsys.readouterr().out.splitlines()
    told = "\n".join(lines)
    assert [line.split() for line in lines[1:6]] == [
        [str(D[0]), "-", "yes", "stale", "version", "1", "yes"],
        [str(D[1]), "-", "yes", "stale", "version", "1", "yes"],
        [str(D[2]), "-", "yes", "no", "-", "-"],
        [str(D[4]), "yes", "no", "-", "-", "-"],
        [str(D[5]), "yes", "held", "-", "-", "-"],
    ]
    assert f"{D[5]}: x.csv has no rows {{at all}}. It starts by itself when its files change" in told
    assert f"{D[2]}: ingested, and without features. churn_arrivals asks for it by itself" in told
    assert "at once: airflow dags trigger churn_arrivals" in told
    assert json.loads(facts) == {
        "days": 5,
        "held": [str(D[5])],
        "missing": [str(D[4])],
        "behind": [str(D[0]), str(D[1]), str(D[2])],
        "left": [],
    }
    cli.main(["days", "--days", str(D[1])])
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_the_history_of_a_day_tells_each_building_and_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    ingest(*D[:2])
    feature(D[1])
    ingest(D[0], content="corrected")
    feature(D[1], run_key="features-2")
    cli.main(["history", "features.customers", "--day", str(D[1])])
    first, second, facts = capsys.readouterr().out.splitlines()
    assert first.endswith("version 0, 1 rows  features-1  first")
    assert second.endswith(f"version 1, 1 rows  features-2  changed since: {D[0]}")
    written = json.loads(facts)["written"]
    assert [one["run_key"] for one in written] == ["features-1", "features-2"]
    assert written[0]["inputs"] != written[1]["inputs"]


def test_a_table_without_a_history_says_which_have_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["history", "silver.transactions", "--day", str(D[1])])
    assert "these do: features.customers, gold.customer_churn_scores, gold.drift" in capsys.readouterr().err


def test_many_small_files_of_the_journal_are_put_together() -> None:
    ingest(D[0])
    feature(D[0])
    for n in range(built_days.FILES + 5):
        note("score", D[0], "inputs", run_key=f"k{n}")
    assert len(tables.table(built_days.TABLE).file_uris()) < 10
    assert len(built_days.entries("churn", stage="score", day=D[0])) == built_days.FILES + 5


def test_a_commit_tells_which_stage_and_run_made_it() -> None:
    ingest(D[0])
    feature(D[0], run_key="features-9")
    (commit,) = tables.table("features.customers").history(1)
    assert (commit["stage"], commit["run_key"]) == ("features", "features-9")


def test_two_who_make_the_same_features_do_so_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever they are; who has to wait too long is told for whom, and may try again."""
    ingest(D[0])
    monkeypatch.setattr(tables, "LEASE_WAIT", 0.1)
    with (
        tables.hold("features.customers", "somebody at a shell"),
        pytest.raises(LeaseError, match="is held by somebody at a shell"),
    ):
        feature(D[0])
    assert not tables.exists("features.customers")
    feature(D[0])


@pytest.mark.parametrize("dead", ["first", "second"])
def test_a_lost_journal_entry_of_one_stage_never_hides_another(dead: str) -> None:
    """Scores noted against features that were made again since are behind, whichever entry came last."""
    ingest(*D[:2])
    finish(*D[:2])
    old = built_days.newest("churn", D[1])["features"][D[1]].inputs
    ingest(D[0], content="corrected")
    feature(D[1], run_key="again")
    if dead == "second":
        note("score", D[1], old, run_key="slow")
    assert behind()[D[1]][0] == "score"
