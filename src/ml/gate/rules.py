"""The gate's rules: each function checks an evaluation and returns what was measured, the limit, and why it failed.

The evaluation is not trusted. A number is a finite int or float; anything else in its place (a missing value, NaN,
infinity, a bool, a text) counts as not measured, and what was not measured fails.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from ml.config.gate import FairnessRule, Gate, Rule

SLACK = 1e-9  # in floating point 0.84 - 0.82 is slightly above 0.02; a value at the limit is within it


@dataclass(frozen=True)
class Check:
    """The result of one rule. Numbers are None where they were not measured or do not apply."""

    rule: str
    measured: float | None
    bound: str
    champion: float | None
    passed: bool
    reason: str  # why it failed; empty when it passed


def finite_number(value: Any) -> float:
    """A measured number; NaN, which passes no comparison, for everything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return math.nan
    return float(value)


def look_up(of: Any, *names: str) -> Any:
    """The value at this path of nested mappings; None when a part of the path is missing or is not a mapping."""
    for name in names:
        of = of.get(name) if isinstance(of, Mapping) else None
    return of


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _check_limit(rule: str, value: float, most: float, failing: str, unmeasured: str, unit: str = "") -> Check:
    """`value` may be at most `most`. `failing` and `unmeasured` are whole reasons."""
    passed = value <= most + SLACK
    reason = "" if passed else unmeasured if math.isnan(value) else failing
    return Check(rule, _or_none(value), f"at most {most:g}{unit}", None, passed, reason)


def check_rows(gate: Gate, evaluation: Mapping[str, Any]) -> Iterator[Check]:
    """Enough test rows, and enough of each class."""
    rows, positives = finite_number(evaluation.get("rows")), finite_number(evaluation.get("positives"))
    count = "an unknown number of" if math.isnan(rows) else f"{rows:.0f}"
    enough = rows >= gate.min_rows
    reason = "" if enough else f"evaluated on {count} rows; at least {gate.min_rows} are needed"
    yield Check("rows", _or_none(rows), f"at least {gate.min_rows}", None, enough, reason)
    fewest = min(positives, rows - positives) if positives >= 0 else math.nan
    needed = f"at least {gate.min_per_class} of each class are needed"
    if math.isnan(fewest):
        reason = f"the number of rows of each class is unknown; {needed}"
    elif fewest <= 0:
        reason = f"all {count} rows are of one class; {needed}"
    else:
        reason = f"{positives:.0f} of {count} rows are of class 1; {needed}"
    enough = fewest >= gate.min_per_class
    yield Check(
        "rows of each class", _or_none(fewest), f"at least {gate.min_per_class}", None, enough, "" if enough else reason
    )


def check_validation(evaluation: Mapping[str, Any]) -> Check:
    """The training set passed its validation, and the validation is of this training set."""
    outcome, version = evaluation.get("validation"), evaluation.get("training_set_version")
    same = look_up(outcome, "training_set_version") == version and version is not None
    passed = same and look_up(outcome, "passed") is True
    problem = look_up(outcome, "problem")
    detail = f": {problem}" if problem else ""
    if passed:
        reason = ""
    elif look_up(outcome, "passed") is None:
        reason = f"the validation result of training set version {version} is unknown{detail}"
    elif not same:
        validated = look_up(outcome, "training_set_version")
        reason = f"the validation is of training set version {validated}, not of version {version}"
    else:
        reason = f"training set version {version} has not passed its validation{detail}"
    return Check("data validation", None, "passed, of this training set", None, passed, reason)


def check_schema(evaluation: Mapping[str, Any]) -> Check:
    """The model's input columns are exactly those that the config pins, and the tables have them."""
    problems = look_up(evaluation, "schema", "problems")
    passed = look_up(evaluation, "schema", "equal") is True and problems == []
    if passed:
        reason = ""
    elif isinstance(problems, list) and problems:
        reason = "the model's input columns differ from the pinned ones: " + "; ".join(map(str, problems))
    else:
        reason = "the model's input columns were not compared with the pinned ones"
    return Check("input schema", None, "equal to the pinned columns", None, passed, reason)


def _parse_day(text: Any) -> date | None:
    try:
        return date.fromisoformat(text)
    except (TypeError, ValueError):
        return None


def check_out_of_time(evaluation: Mapping[str, Any], champion: str | None) -> Iterator[Check]:
    """Neither the challenger nor the champion was trained on labels from the test period."""
    start = _parse_day(look_up(evaluation, "test_from"))
    for who, name in (("challenger", "the challenger"), ("champion", f"champion {champion}")):
        if who == "champion" and champion is None:
            continue
        last_label = _parse_day(look_up(evaluation, "learnt_through", who))
        passed = start is not None and last_label is not None and last_label <= start
        if passed:
            reason = ""
        elif start is None or last_label is None:
            reason = f"it is unknown whether the test period starts after the training labels of {name} end"
        else:
            reason = f"{name} was trained on labels up to {last_label}, after the test starts on {start}"
        yield Check(f"out of time for {name}", None, "test starts after its training labels", None, passed, reason)


def check_other_keys(evaluation: Mapping[str, Any], champion: str | None) -> Iterator[Check]:
    """Of a test that is split by key: neither model was trained on an entity of the test."""
    for who, name in (("challenger", "the challenger"), ("champion", f"champion {champion}")):
        if who == "champion" and champion is None:
            continue
        shared = finite_number(look_up(evaluation, "shared_entities", who))
        yield _check_limit(
            f"other keys than those of {name}",
            shared,
            0,
            f"{name} was trained on {shared:.0f} of the entities of the test",
            f"it is unknown whether {name} was trained on entities of the test",
            " entities of the test in its training",
        )


def check_bound(rule: Rule, evaluation: Mapping[str, Any]) -> Check:
    """The challenger's metric is within the rule's bound."""
    value = finite_number(look_up(evaluation, "metrics", "challenger", rule.metric, "value"))
    if rule.at_least is not None:
        limit, passed = f"at least {rule.at_least:g}", value >= rule.at_least - SLACK
    else:
        assert rule.at_most is not None  # the config schema requires exactly one of the two
        limit, passed = f"at most {rule.at_most:g}", value <= rule.at_most + SLACK
    if math.isnan(value):
        reason = f"{rule.metric} was not measured; it must be {limit}"
    else:
        reason = "" if passed else f"{rule.metric} is {value:.4f}; it must be {limit}"
    return Check(rule.metric, _or_none(value), limit, None, passed, reason)


@dataclass(frozen=True)
class Gain:
    """By how much the challenger is better than the champion in one metric; a loss is negative. NaN: not measured."""

    metric: str
    value: float
    low: float
    high: float

    @property
    def measured(self) -> bool:
        return self.low <= self.high and not math.isnan(self.value)

    @property
    def better(self) -> bool:
        """Significantly better: the whole 95 % interval is above zero."""
        return self.measured and self.low > SLACK

    def __str__(self) -> str:
        return f"{self.metric} {self.value:+.4f} (95 %: {self.low:+.4f} to {self.high:+.4f})"


def read_gain(rule: Rule, evaluation: Mapping[str, Any]) -> Gain:
    """The paired difference, with its sign set so that positive is better."""
    difference = look_up(evaluation, "metrics", "difference", rule.metric)
    value, low, high = (finite_number(look_up(difference, name)) for name in ("value", "low", "high"))
    if rule.at_least is not None:
        return Gain(rule.metric, value, low, high)
    return Gain(rule.metric, -value, -high, -low)


def check_loss(rule: Rule, evaluation: Mapping[str, Any], champion: str) -> Check:
    """The paired 95 % interval rules out that the challenger is worse than the champion by more than `max_loss`."""
    assert rule.max_loss is not None
    new, old = (
        finite_number(look_up(evaluation, "metrics", who, rule.metric, "value")) for who in ("challenger", "champion")
    )
    gain = read_gain(rule, evaluation)
    passed = gain.measured and gain.low >= -rule.max_loss - SLACK and not math.isnan(new) and not math.isnan(old)
    limit = f"at most {rule.max_loss:g} worse than champion {champion} (95 % interval)"
    if math.isnan(old):
        reason = f"{rule.metric} of champion {champion} was not measured; the challenger must be {limit}"
    elif math.isnan(new):
        reason = f"{rule.metric} was not measured; it must be {limit}, which has {old:.4f}"
    elif not gain.measured:
        reason = f"the interval of the difference in {rule.metric} was not measured; it must be {limit}"
    elif not passed:
        reason = (
            f"{rule.metric} is {new:.4f}, champion {champion} has {old:.4f}: the 95 % interval of the gain is "
            f"{gain.low:+.4f} to {gain.high:+.4f}, so a loss of more than {rule.max_loss:g} is not ruled out"
        )
    else:
        reason = ""
    return Check(f"{rule.metric} against the champion", _or_none(new), limit, _or_none(old), passed, reason)


def check_not_itself(evaluation: Mapping[str, Any], champion: str) -> Check:
    """The challenger is another model than the champion, whatever version number it is registered under."""
    same, named = evaluation.get("same_predictions"), evaluation.get("champion")
    known = isinstance(named, str) and named != ""
    passed = same is False and known
    if passed:
        reason = ""
    elif not known:
        reason = "the evaluation does not name the champion's version, so it is unknown what it was compared with"
    elif same is True:
        reason = f"every test row has the same probability as from champion {champion}: it is the same model"
    else:
        reason = f"it was not measured whether this model differs from champion {champion}"
    return Check("another model than the champion", None, "other predictions", None, passed, reason)


def check_better(gate: Gate, evaluation: Mapping[str, Any], champion: str) -> Check:
    """With `when_equal: keep`, the challenger must be better in at least one metric; with `promote`, equal is enough."""
    gains = [read_gain(rule, evaluation) for rule in gate.rules if rule.max_loss is not None]
    passed = gate.when_equal == "promote" or any(gain.better for gain in gains)
    figures = ", ".join(map(str, gains))
    reason = "" if passed else f"not better than champion {champion} in any compared metric: {figures}"
    limit = "95 % interval of a gain above 0" if gate.when_equal == "keep" else "equal is enough: the newer model wins"
    return Check("better than the champion", None, limit, None, passed, reason)


def check_fairness(rule: FairnessRule, evaluation: Mapping[str, Any]) -> Check:
    """A metric differs little between the groups of one column. `when_one_group` decides when there is one group only."""
    name = f"{rule.metric} by {rule.column}"
    measured = look_up(evaluation, "groups", rule.column)
    compared = look_up(measured, "compared")
    if rule.when_one_group == "pass" and isinstance(compared, list) and len(compared) == 1:
        return Check(name, None, "one group only: nothing to compare", None, passed=True, reason="")
    difference = finite_number(look_up(measured, "disparity", rule.metric, "difference"))
    problem = look_up(measured, "problem")
    return _check_limit(
        name,
        difference if isinstance(compared, list) and len(compared) > 1 else math.nan,
        rule.max_difference,
        f"{rule.metric} differs by {difference:.4f} between groups of {rule.column}; "
        f"at most {rule.max_difference:g} is allowed",
        f"the difference in {rule.metric} between groups of {rule.column} was not measured"
        + (f" ({problem})" if problem else "")
        + f"; at most {rule.max_difference:g} is allowed",
    )


def check_behaviour(name: str, most: float, evaluation: Mapping[str, Any]) -> Check:
    """The share of test rows that violate a behavioural test is at most `most`."""
    measured = look_up(evaluation, "behaviour", name)
    share = finite_number(look_up(measured, "violations"))
    problem = look_up(measured, "problem")
    return _check_limit(
        f"behaviour {name}",
        share,
        most,
        f"behavioural test {name} is violated for {share:.1%} of the rows; at most {most:.1%} is allowed",
        f"behavioural test {name} was not measured" + (f": {problem}" if problem else ""),
    )


def check_cost(gate: Gate, evaluation: Mapping[str, Any]) -> Iterator[Check]:
    """Scoring time and size of the model."""
    milliseconds = finite_number(look_up(evaluation, "cost", "ms_per_1000_rows"))
    milliseconds = milliseconds if milliseconds > 0 else math.nan
    most = gate.max_ms_per_1000_rows
    slow = f"scoring 1,000 rows takes {milliseconds:.0f} ms; at most {most:g} ms are allowed"
    unmeasured = f"scoring time was not measured; at most {most:g} ms for 1,000 rows are allowed"
    yield _check_limit("scoring time of 1,000 rows", milliseconds, most, slow, unmeasured, " ms")
    size = finite_number(look_up(evaluation, "cost", "model_bytes")) / 1e6
    size = size if size > 0 else math.nan
    large = f"the model has {size:.1f} MB; at most {gate.max_model_mb:g} MB are allowed"
    unmeasured = f"the model's size was not measured; at most {gate.max_model_mb:g} MB are allowed"
    yield _check_limit("size of the model", size, gate.max_model_mb, large, unmeasured, " MB")
