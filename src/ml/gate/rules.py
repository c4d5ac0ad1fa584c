"""The gate's rules, each a function from an evaluation to what it finds: measured, allowed, passed, and why not.

Nothing here believes what it reads. A number is a finite int or float; whatever else stands in its place
(nothing, NaN, infinity, a bool, a text) was not measured, and what was not measured has failed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from ml.config.gate import FairnessRule, Gate, Rule

SLACK = 1e-9  # 0.84 - 0.82 is a hair above 0.02 in floating point; at the limit is within it


@dataclass(frozen=True)
class Check:
    """One rule tried. Numbers are None where they were not measured or do not apply."""

    rule: str
    measured: float | None
    bound: str
    champion: float | None
    passed: bool
    reason: str  # why it failed; empty when it passed


def number(value: Any) -> float:
    """A measured number; NaN, which passes no comparison, for everything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return math.nan
    return float(value)


def part(of: Any, *names: str) -> Any:
    """What stands at this place of nested mappings; None when the way there is not made of mappings."""
    for name in names:
        of = of.get(name) if isinstance(of, Mapping) else None
    return of


def _told(value: float) -> float | None:
    return None if math.isnan(value) else value


def _limit(rule: str, value: float, most: float, failing: str, unmeasured: str, unit: str = "") -> Check:
    """`value` may be `most`. Texts are whole sentences."""
    passed = value <= most + SLACK
    why = "" if passed else unmeasured if math.isnan(value) else failing
    return Check(rule, _told(value), f"at most {most:g}{unit}", None, passed, why)


def evidence(gate: Gate, found: Mapping[str, Any]) -> Iterator[Check]:
    """Enough rows, and enough of either outcome."""
    rows, positives = number(found.get("rows")), number(found.get("positives"))
    told = "an unknown number of" if math.isnan(rows) else f"{rows:.0f}"
    enough = rows >= gate.min_rows
    why = "" if enough else f"evaluated on {told} rows; {gate.min_rows} needed"
    yield Check("rows", _told(rows), f"at least {gate.min_rows}", None, enough, why)
    fewest = min(positives, rows - positives) if positives >= 0 else math.nan
    if math.isnan(fewest):
        why = f"how many of the rows are of either class is not known; {gate.min_per_class} of each are needed"
    elif fewest <= 0:
        why = f"all {told} rows are of one class: nothing can be told apart; {gate.min_per_class} of each are needed"
    else:
        why = f"{positives:.0f} of {told} rows are of class 1; {gate.min_per_class} of each class are needed"
    enough = fewest >= gate.min_per_class
    yield Check(
        "rows of each class", _told(fewest), f"at least {gate.min_per_class}", None, enough, "" if enough else why
    )


def validation(found: Mapping[str, Any]) -> Check:
    """The training set's validation has passed, and it was of this training set."""
    outcome, version = found.get("validation"), found.get("training_set_version")
    ours = part(outcome, "training_set_version") == version and version is not None
    passed = ours and part(outcome, "passed") is True
    if passed:
        why = ""
    elif part(outcome, "passed") is None:
        told = part(outcome, "problem")
        why = f"the validation of training set version {version} is not known" + (f": {told}" if told else "")
    elif not ours:
        why = f"the validation is of training set version {part(outcome, 'training_set_version')}, not of {version}"
    else:
        why = f"training set version {version} has not passed its validation"
        why += f": {told}" if (told := part(outcome, "problem")) else ""
    return Check("data validation", None, "passed, of this training set", None, passed, why)


def schema(found: Mapping[str, Any]) -> Check:
    """The model takes exactly the feature table's columns."""
    problems = part(found, "schema", "problems")
    passed = part(found, "schema", "equal") is True and problems == []
    if passed:
        why = ""
    elif isinstance(problems, list) and problems:
        why = "the model's input is not the feature table: " + "; ".join(map(str, problems))
    else:
        why = "whether the model's input is the feature table was not measured"
    return Check("input schema", None, "equal to the feature table", None, passed, why)


def _day(text: Any) -> date | None:
    try:
        return date.fromisoformat(text)
    except (TypeError, ValueError):
        return None


def out_of_time(found: Mapping[str, Any], champion: str | None) -> Iterator[Check]:
    """Nobody may have learnt from what the test rows are about: neither the challenger nor the champion."""
    start = _day(part(found, "test_from"))
    for who, name in (("challenger", "the challenger"), ("champion", f"champion {champion}")):
        if who == "champion" and champion is None:
            continue
        learnt = _day(part(found, "learnt_through", who))
        passed = start is not None and learnt is not None and learnt <= start
        if passed:
            why = ""
        elif start is None or learnt is None:
            why = f"whether the test is later than all that {name} learnt from is not known"
        else:
            why = f"{name} learnt from labels up to {learnt}, and the test starts at {start}: it has seen the answers"
        yield Check(f"out of time for {name}", None, "test later than its labels", None, passed, why)


def bound(rule: Rule, found: Mapping[str, Any]) -> Check:
    new = number(part(found, "metrics", "challenger", rule.metric, "value"))
    if rule.at_least is not None:
        limit, passed = f"at least {rule.at_least:g}", new >= rule.at_least - SLACK
    else:
        assert rule.at_most is not None  # the config sees to it that one of the two is set
        limit, passed = f"at most {rule.at_most:g}", new <= rule.at_most + SLACK
    if math.isnan(new):
        why = f"{rule.metric} was not measured; must be {limit}"
    else:
        why = "" if passed else f"{rule.metric} is {new:.4f}; must be {limit}"
    return Check(rule.metric, _told(new), limit, None, passed, why)


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
        """Surely, not by luck: the whole interval is above zero."""
        return self.measured and self.low > SLACK

    def __str__(self) -> str:
        return f"{self.metric} {self.value:+.4f} (95 %: {self.low:+.4f} to {self.high:+.4f})"


def gain(rule: Rule, found: Mapping[str, Any]) -> Gain:
    """The paired difference, turned so that more is better."""
    difference = part(found, "metrics", "difference", rule.metric)
    value, low, high = (number(part(difference, name)) for name in ("value", "low", "high"))
    if rule.at_least is not None:
        return Gain(rule.metric, value, low, high)
    return Gain(rule.metric, -value, -high, -low)


def loss(rule: Rule, found: Mapping[str, Any], champion: str) -> Check:
    """Not worse than the champion by more than `max_loss`, as far as the paired interval can tell."""
    assert rule.max_loss is not None
    new, old = (number(part(found, "metrics", who, rule.metric, "value")) for who in ("challenger", "champion"))
    by = gain(rule, found)
    passed = by.measured and by.low >= -rule.max_loss - SLACK and not math.isnan(new) and not math.isnan(old)
    limit = f"at most {rule.max_loss:g} worse than champion {champion}, for sure (95 %)"
    if math.isnan(old):
        why = f"{rule.metric} of champion {champion} was not measured; the challenger must be {limit}"
    elif math.isnan(new):
        why = f"{rule.metric} was not measured; must be {limit}, which has {old:.4f}"
    elif not by.measured:
        why = f"the interval of the difference in {rule.metric} was not measured; must be {limit}"
    elif not passed:
        why = (
            f"{rule.metric} is {new:.4f}, champion {champion} has {old:.4f}: the difference lies between "
            f"{by.low:+.4f} and {by.high:+.4f} (more is better), so a loss of more than {rule.max_loss:g} is not ruled out"
        )
    else:
        why = ""
    return Check(f"{rule.metric} against the champion", _told(new), limit, _told(old), passed, why)


def not_itself(found: Mapping[str, Any], champion: str) -> Check:
    """A model compared with itself is no challenger, whatever number it is registered under."""
    same, named = found.get("same_predictions"), found.get("champion")
    known = isinstance(named, str) and named != ""
    passed = same is False and known
    if passed:
        why = ""
    elif not known:
        why = "the champion is not told by its version: whom was it compared with?"
    elif same is True:
        why = f"it gives each test row the probability that champion {champion} gives it: it is that model again"
    else:
        why = f"whether it is another model than champion {champion} was not measured"
    return Check("another model than the champion", None, "other predictions", None, passed, why)


def equal(gate: Gate, found: Mapping[str, Any], champion: str) -> Check:
    """With `when_equal: keep`, a challenger must be better in one metric at least; with `promote`, the fresher one wins."""
    gains = [gain(rule, found) for rule in gate.rules if rule.max_loss is not None]
    passed = gate.when_equal == "promote" or any(by.better for by in gains)
    told = ", ".join(map(str, gains))
    why = "" if passed else f"not better than champion {champion} in any metric that is compared: {told}"
    limit = "better, beyond luck (95 %)" if gate.when_equal == "keep" else "equal is enough, the fresher one wins"
    return Check("better than the champion", None, limit, None, passed, why)


def fairness(rule: FairnessRule, found: Mapping[str, Any]) -> Check:
    """The groups of one column are served alike. Of one group alone, the rule itself says what becomes."""
    name = f"{rule.metric} by {rule.column}"
    measured = part(found, "groups", rule.column)
    compared = part(measured, "compared")
    if rule.when_one_group == "pass" and isinstance(compared, list) and len(compared) == 1:
        return Check(name, None, "one group only: nothing to compare", None, passed=True, reason="")
    apart = number(part(measured, "disparity", rule.metric, "difference"))
    told = part(measured, "problem")
    return _limit(
        name,
        apart if isinstance(compared, list) and len(compared) > 1 else math.nan,
        rule.max_difference,
        f"{rule.metric} differs by {apart:.4f} between groups of {rule.column}; at most {rule.max_difference:g} is allowed",
        f"the difference in {rule.metric} between groups of {rule.column} was not measured"
        + (f" ({told})" if told else "")
        + f"; at most {rule.max_difference:g} is allowed",
    )


def behaviour(name: str, most: float, found: Mapping[str, Any]) -> Check:
    """For how few customers the model may do what makes no sense."""
    measured = part(found, "behaviour", name)
    share = number(part(measured, "violations"))
    told = part(measured, "problem")
    return _limit(
        f"behaviour {name}",
        share,
        most,
        f"behaviour {name} is violated for {share:.1%} of the rows; at most {most:.1%} is allowed",
        f"behaviour {name} was not measured" + (f": {told}" if told else ""),
    )


def cost(gate: Gate, found: Mapping[str, Any]) -> Iterator[Check]:
    """Scoring time and size of the model."""
    time = number(part(found, "cost", "ms_per_1000_rows"))
    time = time if time > 0 else math.nan
    most = gate.max_ms_per_1000_rows
    slow = f"scoring 1,000 rows takes {time:.0f} ms; at most {most:g} ms are allowed"
    yield _limit("scoring time of 1,000 rows", time, most, slow, "scoring time was not measured", " ms")
    size = number(part(found, "cost", "model_bytes")) / 1e6
    size = size if size > 0 else math.nan
    large = f"the model has {size:.1f} MB; at most {gate.max_model_mb:g} MB are allowed"
    yield _limit("size of the model", size, gate.max_model_mb, large, "the model's size was not measured", " MB")
