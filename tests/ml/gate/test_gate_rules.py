"""Each rule of the gate: what fails it, with which reason, and that nothing unmeasured is ever approved."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.gate.decide import decide
from tests.support.models.evaluations import GOOD, RULES, changed, first, leaves, put, value, without

KEEP = RULES.model_copy(update={"when_equal": "keep"})
ONE_GROUP_PASSES = RULES.model_copy(
    update={"fairness": (RULES.fairness[0].model_copy(update={"when_one_group": "pass"}),)}
)
# the values that the gate reads; those that only the report page shows are no evidence
NEEDED = [place for place in leaves(GOOD) if place[-1] != "ratio" and place[:2] != ("metrics", "challenger")] + [
    ("metrics", "challenger", name, "value") for name in ("roc_auc", "ece")
]
NEEDED = [place for place in NEEDED if place[:2] != ("metrics", "champion") or place[-1] == "value"]


@pytest.mark.parametrize(
    ("evaluation", "why"),
    [
        pytest.param(GOOD, [], id="as-good-as-the-champion"),
        pytest.param(first(), [], id="first-model-has-no-champion"),
        pytest.param(changed(("rows", 499)), ["evaluated on 499 rows; at least 500 are needed"], id="too-few-rows"),
        pytest.param(changed(("positives", 99)), ["99 of 500 rows are of class 1; at least 100 of each"], id="too-few-positives"),
        pytest.param(changed(("positives", 401)), ["401 of 500 rows are of class 1"], id="too-few-negatives"),
        pytest.param(changed(("positives", 0)), ["all 500 rows are of one class"], id="only-negatives"),
        pytest.param(changed(("positives", 500)), ["all 500 rows are of one class"], id="only-positives"),
        pytest.param(without("validation"), ["validation result of training set version 7 is unknown"], id="never-validated"),
        pytest.param(
            changed(("validation", {"passed": None, "training_set_version": 7, "problem": "not in the reports"})),
            ["is unknown: not in the reports"],
            id="validation-not-found",
        ),
        pytest.param(changed(("validation.passed", False)), ["7 has not passed its validation"], id="invalid-data"),
        pytest.param(changed(("validation.passed", "yes")), ["7 has not passed"], id="passed-is-a-word"),
        pytest.param(
            changed(("validation.training_set_version", 6)),
            ["validation is of training set version 6, not of version 7"],
            id="validation-of-another-training-set",
        ),
        pytest.param(
            changed(("schema", {"equal": False, "problems": ["t has x, which the model does not take"]})),
            ["input columns differ from the pinned ones: t has x"],
            id="other-columns",
        ),
        pytest.param(without("schema"), ["not compared with the pinned ones"], id="schema-unmeasured"),
        pytest.param(
            changed(("learnt_through.challenger", "2026-05-02")),
            ["the challenger was trained on labels up to 2026-05-02, after the test starts on 2026-05-01"],
            id="challenger-saw-the-test",
        ),
        pytest.param(
            changed(("learnt_through.champion", "2026-06-01")),
            ["champion 3 was trained on labels up to 2026-06-01"],
            id="champion-saw-the-test",
        ),
        pytest.param(
            without("learnt_through.champion"), ["it is unknown whether the test period starts after the training labels of champion 3 end"], id="champion-labels-unknown"
        ),
        pytest.param(changed(("same_predictions", True)), ["it is the same model"], id="the-champion-itself"),
        pytest.param(
            changed(("metrics.difference.roc_auc", value(-0.014, 0.005))), [], id="loss-within-the-limit"
        ),
        pytest.param(
            changed(("metrics.difference.roc_auc", value(-0.015, 0.005))), [], id="interval-ends-at-the-limit"
        ),
        pytest.param(
            changed(("metrics.difference.roc_auc", value(0.0, 0.03))),
            ["gain is -0.0300 to +0.0300, so a loss of more than 0.02 is not ruled out"],
            id="interval-too-wide",
        ),
        pytest.param(
            changed(("metrics.difference.ece", value(0.008, 0.005))),
            ["ece is 0.0300, champion 3 has 0.0300: the 95 % interval of the gain is -0.0130 to -0.0030"],
            id="lower-is-better-and-rose",
        ),
        pytest.param(
            changed(("metrics.challenger.roc_auc.value", 0.79)),
            ["roc_auc is 0.7900; it must be at least 0.8"],
            id="below-bound",
        ),
        pytest.param(
            changed(("metrics.challenger.ece.value", 0.06)), ["ece is 0.0600; it must be at most 0.05"], id="above-bound"
        ),
        pytest.param(
            changed(("metrics.champion", None)),
            ["roc_auc of champion 3 was not measured", "ece of champion 3 was not measured"],
            id="champion-unmeasured",
        ),
        pytest.param(
            changed(("metrics.difference", None)),
            ["difference in roc_auc was not measured", "difference in ece was not measured"],
            id="difference-unmeasured",
        ),
        pytest.param(
            changed(("metrics.difference.roc_auc", {"value": 0.0, "low": 0.1, "high": -0.1})),
            ["interval of the difference in roc_auc was not measured"],
            id="interval-upside-down",
        ),
        pytest.param(
            changed(("groups.country.disparity.accuracy.difference", 0.21)),
            ["accuracy differs by 0.2100 between groups of country; at most 0.2"],
            id="unfair",
        ),
        pytest.param(
            changed(("groups.country", {"problem": "the test rows have no column country"})),
            ["was not measured (the test rows have no column country)"],
            id="no-column-of-groups",
        ),
        pytest.param(changed(("groups.country.compared", ["DE"])), ["was not measured"], id="one-group-only"),
        pytest.param(
            changed(("behaviour.buys_again.violations", 0.051)),
            ["behavioural test buys_again is violated for 5.1% of the rows; at most 5.0%"],
            id="behavioural-test-violated",
        ),
        pytest.param(
            changed(("behaviour.buys_again", {"violations": None, "problem": "the model uses none of the columns"})),
            ["buys_again was not measured: the model uses none"],
            id="behaviour-unmeasured",
        ),
        pytest.param(changed(("cost.ms_per_1000_rows", 501.0)), ["takes 501 ms; at most 500 ms"], id="too-slow"),
        pytest.param(changed(("cost.model_bytes", 10_000_001)), ["has 10.0 MB; at most 10 MB"], id="too-large"),
        pytest.param(changed(("cost.model_bytes", 0)), ["size was not measured"], id="a-model-of-no-size"),
        pytest.param({}, ["rows; at least 500", "of each class", "validation", "pinned ones", "the challenger",
                          "champion (not named)", "does not name the champion's version", "roc_auc was", "roc_auc of champion", "ece was",
                          "ece of champion", "accuracy", "buys_again", "scoring time", "size"], id="nothing-is-known"),
    ],
)  # fmt: skip
def test_rule(evaluation: dict[str, Any], why: list[str]) -> None:
    decision = decide(RULES, evaluation)
    assert decision.approved == (not why)
    assert len(decision.reasons) == len(why), decision.reasons
    for part, reason in zip(why, decision.reasons, strict=True):
        assert part in reason


@pytest.mark.parametrize(
    ("difference", "approved_by_keep", "approved_by_promote", "comparison"),
    [
        pytest.param(value(0.02, 0.01), True, True, "better than champion 3", id="better"),
        pytest.param(value(0.004, 0.005), False, True, "neither better nor worse", id="equal"),
        pytest.param(value(-0.01, 0.005), False, True, "worse than champion 3", id="a-little-worse"),
        pytest.param(value(-0.03, 0.005), False, False, "worse than champion 3", id="worse"),
        pytest.param(value(0.02, 0.05), False, False, "neither better nor worse", id="nobody-knows"),
    ],
)
def test_what_becomes_of_a_challenger_is_configured(
    difference: dict[str, float], approved_by_keep: bool, approved_by_promote: bool, comparison: str
) -> None:
    evaluation = changed(("metrics.difference.roc_auc", difference))
    assert decide(KEEP, evaluation).approved == approved_by_keep
    assert decide(RULES, evaluation).approved == approved_by_promote
    assert comparison in decide(KEEP, evaluation).against
    if not approved_by_keep:
        assert any(
            "not better than champion 3 in any compared metric" in reason for reason in decide(KEEP, evaluation).reasons
        )


def test_one_group_may_pass_when_the_rule_says_so() -> None:
    alone = changed(("groups.country.compared", ["(unknown)"]), ("groups.country.disparity", {}))
    assert decide(ONE_GROUP_PASSES, alone).approved
    for nothing in ([], None, "DE"):
        assert not decide(ONE_GROUP_PASSES, changed(("groups.country.compared", nothing))).approved


def test_every_rule_is_among_the_checks_whether_it_passed_or_not() -> None:
    good, empty = decide(RULES, GOOD).checks, decide(RULES, {}).checks
    assert [check.rule.replace("3", "(not named)") for check in good] == [check.rule for check in empty]
    assert [check.rule for check in good if check.passed] == [
        "rows", "rows of each class", "data validation", "input schema", "out of time for the challenger",
        "out of time for champion 3", "another model than the champion", "roc_auc", "roc_auc against the champion",
        "ece", "ece against the champion", "better than the champion", "accuracy by country", "behaviour buys_again",
        "scoring time of 1,000 rows", "size of the model",
    ]  # fmt: skip


# ---- whatever an evaluation may look like

NO_NUMBER = st.sampled_from([None, math.nan, math.inf, -math.inf, True, False, "0.9", "", [], {}, "2026-13-01"])
PIECES = st.sampled_from(NEEDED)


@given(piece=PIECES, junk=NO_NUMBER)
def test_no_evaluation_with_a_broken_piece_is_approved(piece: tuple[str, ...], junk: Any) -> None:
    evaluation = copy.deepcopy(GOOD)
    if piece == ("champion",) and (junk is None or (isinstance(junk, str) and junk)):
        return  # that is how a first model says that there is none; the stage holds it against the registry
    if piece in {("same_predictions",), ("schema", "problems"), ("validation", "passed"), ("schema", "equal")} and (
        junk in (False, [], True) and junk == _at(GOOD, piece)
    ):
        return
    put(evaluation, piece, junk)
    for rules in (RULES, KEEP, ONE_GROUP_PASSES):
        decision = decide(rules, evaluation)
        assert not decision.approved
        assert all(check.passed == (not check.reason) for check in decision.checks)


def _at(evaluation: Any, piece: tuple[str, ...]) -> Any:
    for name in piece:
        evaluation = evaluation[name]
    return evaluation


@given(piece=st.sampled_from([place[:n] for place in NEEDED for n in range(1, len(place) + 1)]))
def test_no_evaluation_with_a_missing_piece_is_approved(piece: tuple[str, ...]) -> None:
    assert not decide(RULES, without(".".join(piece))).approved


@given(
    auc=st.floats(0.5, 1), ece=st.floats(0, 0.3), apart=st.floats(-0.1, 0.1), half=st.floats(0, 0.05),
    more=st.floats(0, 0.2), wrong=st.floats(0, 0.2), unfair=st.floats(0, 0.5), slow=st.floats(1, 1000),
)  # fmt: skip
def test_a_better_number_never_turns_approval_into_rejection(
    auc: float, ece: float, apart: float, half: float, more: float, wrong: float, unfair: float, slow: float
) -> None:
    def build(gain: float, scale: float) -> dict[str, Any]:
        return changed(
            ("metrics.challenger.roc_auc.value", min(1.0, auc + gain)),
            ("metrics.challenger.ece.value", ece * scale),
            ("metrics.difference.roc_auc", value(apart + gain, half)),
            ("behaviour.buys_again.violations", wrong * scale),
            ("groups.country.disparity.accuracy.difference", unfair * scale),
            ("cost.ms_per_1000_rows", slow * scale),
        )

    for rules in (RULES, KEEP):
        if decide(rules, build(0.0, 1.0)).approved:
            assert decide(rules, build(more, 0.5)).approved
        for check in decide(rules, build(0.0, 1.0)).checks:
            assert check.passed == (not check.reason)


class TestOtherKeys:
    """Examples may be split by key: then the test must have no entity that a model was trained on, whatever its days."""

    def by_key(self, challenger: Any, champion: Any) -> dict[str, Any]:
        shared = {"challenger": challenger, "champion": champion}
        return changed(("split", "key"), ("learnt_through", {}), ("test_from", None), ("shared_entities", shared))

    def test_separate_keys_pass_without_separate_days(self) -> None:
        assert decide(RULES, self.by_key(0, 0)).approved

    @pytest.mark.parametrize(
        ("challenger", "champion", "why"),
        [
            pytest.param(3, 0, "the challenger was trained on 3 of the entities of the test", id="challenger"),
            pytest.param(0, 7, "champion 3 was trained on 7 of the entities of the test", id="champion"),
            pytest.param(0, None, "it is unknown whether champion 3 was trained on entities of the test", id="unknown"),
        ],
    )
    def test_shared_keys_fail(self, challenger: Any, champion: Any, why: str) -> None:
        assert decide(RULES, self.by_key(challenger, champion)).reasons == (why,)

    def test_another_split_needs_separate_days(self) -> None:
        decision = decide(RULES, self.by_key(0, 0) | {"split": "day"})
        assert len(decision.reasons) == 2
