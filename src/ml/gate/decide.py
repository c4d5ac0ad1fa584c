"""The gate's decision on an evaluation: every rule is checked and every reason returned. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ml.config.gate import Gate
from ml.gate import rules
from ml.gate.rules import Check


@dataclass(frozen=True, kw_only=True)
class Decision:
    approved: bool
    reasons: tuple[str, ...]
    checks: tuple[Check, ...]
    against: str  # how it compares with the champion, in words and figures


def decide(gate: Gate, evaluation: Mapping[str, Any]) -> Decision:
    """Check every rule, so that one rejection names all its causes.

    `evaluation` is the content of `evaluation.json`. Its `champion` (a version, or None) says whether there is a
    champion to compare with. When that key is missing, or the champion was not measured, the rules that compare fail.
    """
    champion = evaluation.get("champion", "(not named)")
    checks = [*rules.check_rows(gate, evaluation), rules.check_validation(evaluation), rules.check_schema(evaluation)]
    separate = rules.check_other_keys if evaluation.get("split") == "key" else rules.check_out_of_time
    checks += separate(evaluation, champion)
    if champion is not None:
        checks.append(rules.check_not_itself(evaluation, champion))
    for rule in gate.rules:
        checks.append(rules.check_bound(rule, evaluation))
        if rule.max_loss is not None and champion is not None:
            checks.append(rules.check_loss(rule, evaluation, champion))
    if champion is not None:
        checks.append(rules.check_better(gate, evaluation, champion))
    checks += [rules.check_fairness(rule, evaluation) for rule in gate.fairness]
    checks += [rules.check_behaviour(name, most, evaluation) for name, most in sorted(gate.max_violations.items())]
    checks += rules.check_cost(gate, evaluation)
    reasons = tuple(check.reason for check in checks if not check.passed)
    return Decision(
        approved=not reasons,
        reasons=reasons,
        checks=tuple(checks),
        against=_compare_with_champion(gate, evaluation, champion),
    )


def _compare_with_champion(gate: Gate, evaluation: Mapping[str, Any], champion: str | None) -> str:
    """Better, worse or neither, as far as the paired 95 % intervals show."""
    if champion is None:
        return "there is no champion to compare with"
    gains = [rules.read_gain(rule, evaluation) for rule in gate.rules if rule.max_loss is not None]
    if not all(gain.measured for gain in gains):
        return f"not measured against champion {champion}"
    better, worse = any(gain.better for gain in gains), any(gain.high < -rules.SLACK for gain in gains)
    word = "neither better nor worse than" if better == worse else "better than" if better else "worse than"
    return f"{word} champion {champion}: {', '.join(map(str, gains))}"
