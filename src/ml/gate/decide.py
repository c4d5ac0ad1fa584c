"""The decision of the gate, pure: rules and an evaluation in, every reason out. Not measured means failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ml.config.gate import Gate
from ml.gate import rules
from ml.gate.rules import Check

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Decision:
    approved: bool
    reasons: tuple[str, ...]
    checks: tuple[Check, ...]
    against: str  # a sentence: how it stands to the champion


def decide(gate: Gate, evaluation: Mapping[str, Any]) -> Decision:
    """Try every rule, so that one rejection names all its causes.

    `evaluation` is what `ml.evaluate` gives. Whether there is a champion to beat is told by its
    `champion`, a version or None: one that is not told, or not measured, fails the rules that compare with it.
    """
    champion = evaluation.get("champion", "that is not named")
    checks = [*rules.evidence(gate, evaluation), rules.validation(evaluation), rules.schema(evaluation)]
    checks += rules.out_of_time(evaluation, champion)
    if champion is not None:
        checks.append(rules.not_itself(evaluation, champion))
    for rule in gate.rules:
        checks.append(rules.bound(rule, evaluation))
        if rule.max_loss is not None and champion is not None:
            checks.append(rules.loss(rule, evaluation, champion))
    if champion is not None:
        checks.append(rules.equal(gate, evaluation, champion))
    checks += [rules.fairness(rule, evaluation) for rule in gate.fairness]
    checks += [rules.behaviour(name, most, evaluation) for name, most in sorted(gate.max_violations.items())]
    checks += rules.cost(gate, evaluation)
    reasons = tuple(check.reason for check in checks if not check.passed)
    return Decision(not reasons, reasons, tuple(checks), _against(gate, evaluation, champion))


def _against(gate: Gate, evaluation: Mapping[str, Any], champion: str | None) -> str:
    """Better, worse or equal, as far as the paired intervals can tell."""
    if champion is None:
        return "there is no champion to be compared with"
    gains = [rules.gain(rule, evaluation) for rule in gate.rules if rule.max_loss is not None]
    if not all(by.measured for by in gains):
        return f"not measured against champion {champion}"
    better, worse = any(by.better for by in gains), any(by.high < -rules.SLACK for by in gains)
    word = "neither better nor worse than" if better == worse else "better than" if better else "worse than"
    return f"{word} champion {champion}: {', '.join(map(str, gains))}"
