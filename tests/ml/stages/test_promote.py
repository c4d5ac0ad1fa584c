"""Only a valid approval promotes a version, once, and the previous champion keeps its alias."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from ml.errors import StageError
from ml.ops import decisions
from ml.promote import approval, gate_decision
from ml.registry import model_versions, production
from ml.stages import evaluate
from ml.storage import tables
from tests.support.models.small_world import World, customers, tampered, training_set


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def champion() -> str | None:
    version = model_versions.version_of_alias("churn")
    return version.number if version else None


def previous() -> str | None:
    version = model_versions.version_of_alias("churn", model_versions.PREVIOUS)
    return version.number if version else None


def test_without_a_decision_nothing_is_promoted(world: World) -> None:
    version = world.trained()
    with pytest.raises(StageError, match=f"churn version {version} has no recorded decision: run the stage 'gate'"):
        world.promote(version)
    assert champion() is None


def test_rejected_version_is_refused_with_the_gates_reasons(world: World) -> None:
    version: str = world.train(world.write_training_set(training_set(signal=0.0)))["version"]
    world.gate(version)
    with pytest.raises(StageError, match="was rejected by the gate: roc_auc is"):
        world.promote(version)
    assert champion() is None


def test_first_champion_has_none_before_it(world: World) -> None:
    version = world.trained()
    world.gate(version)
    assert world.promote(version) == {"before": None, "after": version, "changed": True}
    assert (champion(), previous()) == (version, None)


def test_the_replaced_champion_gets_the_alias_previous(world: World) -> None:
    first = world.champion()
    second: str = world.train(0, "train-2")["version"]
    assert world.gate(second)["approved"]
    assert world.promote(second)["before"] == first
    assert (champion(), previous()) == (second, first)


def test_a_repeated_promotion_has_no_effect_and_says_so(world: World) -> None:
    version = world.champion()
    before = model_versions.get_version("churn", version).tags
    again = world.promote(version, "promote-2")
    assert (again["changed"], again["note"]) == (False, f"churn version {version} is already champion")
    assert model_versions.get_version("churn", version).tags == before, "time and run key stay those of the promotion"


def test_a_champion_changed_since_the_decision_is_refused(world: World) -> None:
    slow, quick = world.trained(), world.train(0, "train-2")["version"]
    world.gate(slow)
    world.gate(quick)
    world.promote(quick)
    with pytest.raises(StageError, match=f"approved against champion none, and the champion is now {quick}"):
        world.promote(slow)
    assert champion() == quick


def test_an_evaluation_repeated_after_the_decision_is_refused(world: World) -> None:
    version = world.train(world.write_training_set(training_set()))["version"]
    world.gate(version)
    world.configure(evaluate={"bootstrap": 120})
    evaluate.run(Namespace(model="churn", version=version))
    with pytest.raises(StageError, match="evaluated again after the decision: run the stage 'gate' again"):
        world.promote(version)


def test_the_second_of_two_concurrent_promotions_fails_naming_the_first(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = world.trained(), world.train(0, "train-2")["version"]
    world.gate(one)
    world.gate(other)
    verify = model_versions.verify

    def meanwhile(version: model_versions.Version) -> None:
        monkeypatch.setattr(model_versions, "verify", verify)
        world.promote(other, "promote-other")

    monkeypatch.setattr(model_versions, "verify", meanwhile)
    with pytest.raises(
        StageError, match=f"another change came first: promotion 1 of churn: version {other} .*'promote-other'"
    ):
        world.promote(one)
    assert (champion(), previous()) == (other, None)
    assert [row.version for row in decisions.read_events("churn", kind="promotion")] == [other]


def test_the_same_run_key_after_another_promotion_changes_nothing(world: World) -> None:
    first = world.champion()
    second: str = world.train(0, "train-2")["version"]
    world.gate(second)
    world.promote(second, "promote-2")
    again = world.promote(first, "promote-1")
    assert (again["changed"], champion()) == (False, second)
    assert again["note"].startswith(
        "this run key has already promoted version 1; the newest change since then: promotion 2"
    )


def test_a_decision_that_is_only_a_tag_does_not_count(world: World) -> None:
    """MLflow users who may write tags cannot replace the gate."""
    version = world.trained()
    model_versions.set_tag(
        model_versions.get_version("churn", version), gate_decision.TAG, {"id": "x", "approved": True, "champion": None}
    )
    with pytest.raises(StageError, match="has no recorded decision"):
        world.promote(version)


def test_an_alias_moved_by_hand_puts_nothing_into_production(world: World) -> None:
    first = world.champion()
    second: str = world.train(0, "train-2")["version"]
    model_versions.move_alias("churn", model_versions.CHAMPION, second)
    now = production.get_champion("churn")
    assert now is not None
    assert now.number == first
    world.promote(first)
    assert champion() == first, "the next run puts the alias back"


class TestTheDigest:
    def test_changed_files_are_not_promoted(self, world: World) -> None:
        version = world.trained()
        world.gate(version)
        expected = model_versions.get_version("churn", version).digest
        with (
            tampered(version),
            pytest.raises(StageError, match=f"churn version 1: its files have digest .* but {expected}"),
        ):
            world.promote(version)
        assert production.current_entry("churn") is None

    def test_changed_files_are_not_served(self, world: World) -> None:
        version = world.champion()
        world.write_features(customers(50))
        with tampered(version), pytest.raises(StageError, match="It must not be served"):
            world.score()
        assert not tables.exists("gold.customer_churn_scores")

    def test_changed_files_with_a_matching_tag_are_not_served(self, world: World) -> None:
        """The promoted digest is in the production log, which MLflow users cannot write."""
        version = world.champion()
        world.write_features(customers(50))
        with tampered(version):
            forged = model_versions.digest_files(
                Path(model_versions.client().get_model_version_download_uri("churn", version))
            )
            model_versions.client().set_model_version_tag("churn", version, model_versions.DIGEST, forged)
            with pytest.raises(StageError, match=f"its files have digest {forged}"):
                world.score()

    def test_a_tag_changed_since_the_decision_is_refused(self, world: World) -> None:
        version = world.trained()
        world.gate(version)
        model_versions.client().set_model_version_tag("churn", version, model_versions.DIGEST, "0" * 64)
        with pytest.raises(StageError, match=f"its recorded digest is now {'0' * 64}: somebody has changed it"):
            world.promote(version)

    def test_a_version_without_a_digest_is_refused(self, world: World) -> None:
        version = world.trained()
        model_versions.client().delete_model_version_tag("churn", version, model_versions.DIGEST)
        with pytest.raises(StageError, match="registered without the digest of its files"):
            world.gate(version)


class TestApprovalByAPerson:
    @pytest.fixture
    def decided(self, world: World, monkeypatch: pytest.MonkeyPatch) -> World:
        """Version 1 has passed the gate, in an environment whose approvers must agree."""
        monkeypatch.setenv("ML_ENVIRONMENT", "production")
        world.gate(world.trained())
        return world

    def answer(self, world: World, *, approved: bool, person: str | None = "alice", minute: int = 0) -> decisions.Event:
        decision = decisions.read_newest("churn", "gate", "1")
        assert decision is not None
        answer = {"person": person, "at": f"2026-11-03T10:{minute:02}:00+00:00", "comment": ""}
        why = [] if approved else ["not before Christmas"]
        return approval.record_answer("churn", decision.id, answer | {"approved": approved, "reasons": why}, run="r")

    def test_without_an_approval_nothing_is_promoted(self, decided: World) -> None:
        with pytest.raises(StageError, match="needs the approval of ml-approvers in production: trigger churn_promote"):
            decided.promote("1")
        assert production.current_entry("churn") is None

    def test_the_approver_is_recorded(self, decided: World) -> None:
        event = self.answer(decided, approved=True)
        decided.promote("1")
        (row,) = decisions.read_events("churn", kind="promotion")
        assert (row.approver, row.told["approval"]) == ("alice", event.id)

    def test_a_rejection_is_named_with_its_reason(self, decided: World) -> None:
        self.answer(decided, approved=False)
        with pytest.raises(StageError, match="was not approved by a person: not before Christmas"):
            decided.promote("1")

    def test_the_last_answer_counts(self, decided: World) -> None:
        self.answer(decided, approved=True)
        self.answer(decided, approved=False, minute=1)
        with pytest.raises(StageError, match="was not approved by a person"):
            decided.promote("1")

    def test_an_approval_of_another_environment_does_not_count(
        self, decided: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ML_ENVIRONMENT", "local")
        self.answer(decided, approved=True)
        monkeypatch.setenv("ML_ENVIRONMENT", "production")
        with pytest.raises(StageError, match="needs the approval"):
            decided.promote("1")

    def test_an_approval_of_another_decision_does_not_count(self, decided: World) -> None:
        self.answer(decided, approved=True)
        decided.configure(gate={"min_rows": 700})
        decided.gate("1")
        with pytest.raises(StageError, match="needs the approval"):
            decided.promote("1")

    @pytest.mark.parametrize("name", ["", "prodution"])
    def test_an_environment_that_is_not_known_is_refused(
        self, decided: World, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        """A misspelt name must not skip the approval."""
        monkeypatch.setenv("ML_ENVIRONMENT", name)
        with pytest.raises(StageError, match=f"ML_ENVIRONMENT is '{name}': .* for local, production only"):
            decided.promote("1")

    def test_the_same_answer_is_recorded_once(self, decided: World) -> None:
        assert self.answer(decided, approved=True).id == self.answer(decided, approved=True).id
        assert len(decisions.read_events("churn", kind="approval")) == 1

    def test_the_question_shows_both_models_the_rules_and_the_report(self, decided: World) -> None:
        decision = decisions.read_newest("churn", "gate", "1")
        assert decision is not None
        question = approval.build_question("churn", decision.id)
        assert question is not None
        assert (question["roles"], question["hours"]) == (["ml-approvers"], 24)
        assert question["subject"] == "churn: put version 1 into production, instead of none?"
        run = model_versions.get_version("churn", "1").run_id
        for part in ("| roc_auc | 0.8662 (", "| rows | 800 | at least 500 |", f"/runs/{run}/artifacts/report.html"):
            assert part in question["body"]

    def test_nobody_is_asked_about_the_version_in_production(self, decided: World) -> None:
        decision = self.answer(decided, approved=True).told["decision"]
        decided.promote("1")
        assert approval.build_question("churn", decision) is None

    def test_nobody_is_asked_in_an_environment_without_roles(
        self, decided: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        decision = decisions.read_newest("churn", "gate", "1")
        assert decision is not None
        monkeypatch.setenv("ML_ENVIRONMENT", "local")
        assert approval.build_question("churn", decision.id) is None
