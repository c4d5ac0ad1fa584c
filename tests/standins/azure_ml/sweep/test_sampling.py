"""Search spaces, sampling and early termination of sweeps, tested without jobs."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from standins.azure_ml.sweep.early_stopping import check_policy, stop_reason
from standins.azure_ml.sweep.search_space import SampledTrial, check_sampling, draw, parameter_values, read_space
from standins.azure_ml.sweep.tracking import Tracking
from standins.core.errors import ApiError
from tests.support.cloud.small_mlflow import small_mlflow

RANDOM: dict[str, Any] = {"samplingAlgorithmType": "Random"}
BAYESIAN = {"samplingAlgorithmType": "Bayesian"}
GRID = {"samplingAlgorithmType": "Grid"}
BANDIT = {"policyType": "Bandit", "slackFactor": 0.25, "slackAmount": 0}
MEDIAN = {"policyType": "MedianStopping"}
TRUNCATION = {"policyType": "TruncationSelection", "truncationPercentage": 34}


@pytest.mark.parametrize(
    ("space", "why"),
    [
        pytest.param({}, "names at least one parameter", id="empty"),
        pytest.param({"x": 3}, r"\[distribution, \[arguments\]\] is needed", id="no-distribution"),
        pytest.param({"x": ["gauss", [0, 1]]}, "unknown distribution 'gauss'", id="unknown-distribution"),
        pytest.param({"x": ["uniform", [0]]}, "uniform takes 2 arguments; found 1", id="too-few-arguments"),
        pytest.param({"x": ["uniform", [1, 1]]}, "1 is not below 1", id="empty-range"),
        pytest.param({"x": ["uniform", [0, math.inf]]}, "takes finite numbers", id="infinite"),
        pytest.param({"x": ["uniform", [0, "9"]]}, "takes finite numbers", id="text-for-a-number"),
        pytest.param({"x": ["quniform", [0, 1, 0]]}, "step must be above 0", id="no-step"),
        pytest.param({"x": ["normal", [0, 0]]}, "deviation must be above 0", id="no-deviation"),
        pytest.param({"x": ["randint", [0]]}, "whole number of at least 1", id="nothing-to-draw"),
        pytest.param({"x": ["choice", [[]]]}, "at least one value", id="no-choice"),
        pytest.param({"x": ["choice", [[{"y": 1}]]]}, "not implemented", id="nested-space"),
    ],
)
def test_an_invalid_space_is_refused(space: dict[str, Any], why: str) -> None:
    with pytest.raises(ApiError, match=why):
        read_space(space)


@pytest.mark.parametrize(
    ("sampling", "kind", "why"),
    [
        pytest.param(
            BAYESIAN, ["loguniform", [-3, 0]], r"not supported: x \(loguniform\)", id="bayesian-and-loguniform"
        ),
        pytest.param(GRID, ["uniform", [0, 1]], r"Grid sampling supports choice", id="grid-and-uniform"),
        pytest.param({"samplingAlgorithmType": "Genetic"}, ["uniform", [0, 1]], "not one of", id="unknown-sampling"),
        pytest.param({**RANDOM, "rule": "Sobol"}, ["uniform", [0, 1]], "not implemented", id="sobol"),
    ],
)
def test_a_sampling_that_does_not_support_the_space_is_refused(sampling: Any, kind: Any, why: str) -> None:
    with pytest.raises(ApiError, match=why):
        check_sampling(sampling, read_space({"x": kind}))


def test_bayesian_sampling_with_early_termination_is_refused() -> None:
    with pytest.raises(ApiError, match="does not support early termination"):
        check_sampling(BAYESIAN, read_space({"x": ["uniform", [0, 1]]}), ends_early=True)


@pytest.mark.parametrize(
    ("kind", "within"),
    [
        pytest.param(["uniform", [2, 3]], lambda v: 2 <= v <= 3, id="uniform"),
        pytest.param(["loguniform", [-3, 0]], lambda v: math.exp(-3) <= v <= 1, id="loguniform"),
        pytest.param(["quniform", [1, 20, 5]], lambda v: v in (0, 5, 10, 15, 20), id="quniform"),
        pytest.param(["qloguniform", [0, 3, 2]], lambda v: v % 2 == 0 and v <= 20, id="qloguniform"),
        pytest.param(["normal", [10, 1]], lambda v: 3 < v < 17, id="normal"),
        pytest.param(["qnormal", [10, 1, 2]], lambda v: v % 2 == 0, id="qnormal"),
        pytest.param(["lognormal", [0, 1]], lambda v: v > 0, id="lognormal"),
        pytest.param(["qlognormal", [3, 1, 1]], lambda v: isinstance(v, int), id="qlognormal"),
        pytest.param(["randint", [4]], lambda v: v in range(4), id="randint"),
        pytest.param(["choice", [[1, "a", None, True]]], lambda v: v in (1, "a", None, True), id="choice"),
    ],
)
def test_each_distribution_stays_in_its_range(kind: Any, within: Any) -> None:
    space = read_space({"x": kind})
    for number in range(20):
        drawn = draw(space, RANDOM, "maximize", f"seed/{number}", [])
        assert drawn is not None
        assert within(parameter_values(space, drawn)["x"])


def test_samples_depend_only_on_seed_and_number() -> None:
    space = read_space({"x": ["uniform", [0, 1]]})
    first = [draw(space, RANDOM, "maximize", f"a/{number}", []) for number in range(3)]
    assert first == [draw(space, RANDOM, "maximize", f"a/{number}", []) for number in range(3)]
    assert first != [draw(space, RANDOM, "maximize", f"b/{number}", []) for number in range(3)]


def test_bayesian_sampling_converges_to_good_values() -> None:
    space = read_space({"x": ["uniform", [0, 1]]})
    earlier: list[SampledTrial] = []
    for number in range(40):
        drawn = draw(space, BAYESIAN, "minimize", f"a/{number}", earlier)
        assert drawn is not None
        earlier.append(SampledTrial(drawn, abs(drawn["x"] - 0.7)))
    late = [trial.drawn["x"] for trial in earlier[20:]]
    assert sum(abs(x - 0.7) for x in late) / len(late) < 0.15  # chance gives 0.29
    running = [SampledTrial(trial.drawn, None) for trial in earlier[-2:]]
    assert draw(space, BAYESIAN, "minimize", "a/40", [*earlier, *running]) is not None


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        pytest.param({"policyType": "Patience"}, "not one of Bandit", id="unknown"),
        pytest.param({"policyType": "Bandit"}, "either a slack factor or a slack amount", id="bandit-without-slack"),
        pytest.param({**BANDIT, "slackAmount": 1}, "either", id="bandit-with-both"),
        pytest.param({**TRUNCATION, "truncationPercentage": 0}, "1 to 99; found 0", id="truncates-nothing"),
        pytest.param({**TRUNCATION, "excludeFinishedJobs": True}, "not implemented", id="without-finished-jobs"),
    ],
)
def test_an_invalid_policy_is_refused(policy: dict[str, Any], why: str) -> None:
    with pytest.raises(ApiError, match=why):
        check_policy(policy)


@pytest.mark.parametrize(
    ("policy", "goal", "own", "others", "ends"),
    [
        pytest.param(BANDIT, "maximize", [], [[0.8]], False, id="nothing-logged-yet"),
        pytest.param(BANDIT, "maximize", [0.1], [], False, id="alone"),
        pytest.param(BANDIT, "maximize", [0.1, 0.1], [[0.8]], False, id="no-other-reached-the-interval"),
        pytest.param(BANDIT, "maximize", [0.63], [[0.8]], True, id="bandit-below-0.8-over-1.25"),
        pytest.param(BANDIT, "maximize", [0.65], [[0.8]], False, id="bandit-within-its-slack"),
        pytest.param(BANDIT, "maximize", [0.7, 0.1], [[0.8, 0.1]], False, id="bandit-by-the-best-so-far"),
        pytest.param(BANDIT, "minimize", [1.1], [[0.8]], True, id="bandit-above-0.8-times-1.25"),
        pytest.param(BANDIT, "minimize", [0.9], [[0.8]], False, id="bandit-minimizing-within-its-slack"),
        pytest.param(
            {"policyType": "Bandit", "slackAmount": 0.05}, "maximize", [0.74], [[0.8]], True, id="bandit-by-an-amount"
        ),
        pytest.param({**BANDIT, "delayEvaluation": 2}, "maximize", [0.1], [[0.8]], False, id="before-its-delay"),
        pytest.param({**BANDIT, "evaluationInterval": 2}, "maximize", [0.1], [[0.8]], False, id="between-intervals"),
        pytest.param(
            {**BANDIT, "evaluationInterval": 2}, "maximize", [0.1] * 3, [[0.8] * 2], True, id="at-its-interval"
        ),
        pytest.param(MEDIAN, "maximize", [0.5], [[0.4], [0.6], [0.7]], True, id="below-the-median"),
        pytest.param(MEDIAN, "maximize", [0.6], [[0.4], [0.6], [0.7]], False, id="at-the-median"),
        pytest.param(MEDIAN, "minimize", [0.65], [[0.4], [0.6], [0.7]], True, id="above-the-median-minimizing"),
        pytest.param(TRUNCATION, "maximize", [0.4], [[0.5], [0.6]], True, id="in-the-lowest-third"),
        pytest.param(TRUNCATION, "maximize", [0.5], [[0.4], [0.6]], False, id="above-the-lowest-third"),
        pytest.param(TRUNCATION, "maximize", [0.4], [[0.5]], False, id="a-third-of-two-is-no-trial"),
        pytest.param(TRUNCATION, "minimize", [0.6], [[0.5], [0.4]], True, id="in-the-highest-third-minimizing"),
    ],
)
def test_policies_stop_poor_trials_and_no_others(
    policy: dict[str, Any], goal: Any, own: list[float], others: list[list[float]], ends: bool
) -> None:
    assert bool(stop_reason(policy, goal, own, others)) == ends


def test_a_trials_run_is_found_again_after_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    with small_mlflow() as (mlflow, url):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        first = Tracking(SimpleNamespace()).find_or_create_run("e", "job_0")  # type: ignore[arg-type]
        again = Tracking(SimpleNamespace())  # type: ignore[arg-type]
        assert again.find_or_create_run("e", "job_0") == first
        assert again.find_or_create_run("e", "job_1") != first
        mlflow.runs[first]["logged"] += [
            {"key": "auc", "value": value, "step": step, "timestamp": 1}
            for step, value in ((2, 0.2), (1, 0.1), (3, "NaN"))
        ]
        assert again.metric_history(first, "auc") == [0.1, 0.2], "in the order of steps, without NaN"
