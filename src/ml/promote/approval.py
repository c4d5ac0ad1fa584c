"""The approval of a person: who must approve a promotion in this environment, the question to them, and their answer.

The gate always decides; `approval` in the config may require a person as well. The environment is named by
`ML_ENVIRONMENT`. A name that is not in the config is refused, so that a misspelt name does not skip the approval.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ml.config import ModelConfig, load_model
from ml.config.gate import Approvers
from ml.errors import StageError
from ml.evaluate import record
from ml.ops import decisions
from ml.registry import model_versions, production

if TYPE_CHECKING:
    from ml.ops.decisions import Event

VARIABLE = "ML_ENVIRONMENT"
DIGITS = 4


def current_environment(config: ModelConfig) -> str:
    """The name of this environment. Raises StageError when it is not set, or not in the config."""
    known = config.approval.environments
    name = os.environ.get(VARIABLE, "")
    if name not in known:
        raise StageError(
            f"{VARIABLE} is {name!r}: approval.environments of config/models/{config.model}.yaml says who must approve a "
            f"promotion for {', '.join(known)} only"
        )
    return name


def required_approvers(config: ModelConfig) -> Approvers:
    """Who must approve in this environment; nobody when it names no roles."""
    return config.approval.environments[current_environment(config)]


def record_answer(model: str, decision: str, answer: Mapping[str, Any], *, run: str = "") -> Event:
    """Record in `ops.decisions` the answer to the question about a decision of the gate (its id).

    `answer`: approved, person (None when nobody answered in time), at (ISO), comment, reasons.
    """
    config = load_model(model)
    by_gate = _read_decision(config, decision)
    return decisions.record(
        replace(
            by_gate,
            id=decisions.event_id("approval", by_gate.id, run, answer["at"]),
            event="approval",
            after=by_gate.before,
            approved=answer["approved"],
            reasons=tuple(answer["reasons"]),
            rules=(),
            approver=answer["person"],
            by=answer["person"] or "",
            run=run,
            told={
                "decision": by_gate.id,
                "environment": current_environment(config),
                "roles": list(required_approvers(config).roles),
                "comment": answer["comment"],
                "answered_at": answer["at"],
            },
            at=None,
        )
    )


def _read_decision(config: ModelConfig, decision: str) -> Event:
    events = decisions.read_events(config.model, kind="gate")
    event = next((event for event in events if event.id == decision), None)
    if event is None:
        raise StageError(f"{config.model} has no decision {decision!r} of the gate in {decisions.TABLE}")
    return event


def require_granted(config: ModelConfig, decision: Event) -> Event | None:
    """The approval that this environment requires; None when it requires none.

    Raises StageError when it is missing, was refused, or was given for other roles or another environment.
    """
    roles = required_approvers(config).roles
    if not roles:
        return None
    environment = current_environment(config)
    answers = [
        event
        for event in decisions.read_events(decision.model, kind="approval", version=decision.version)
        if (event.told["decision"], event.told["environment"]) == (decision.id, environment)
    ]
    version = f"{decision.model} version {decision.version}"
    if not answers or (answers[-1].approved and set(answers[-1].told["roles"]) != set(roles)):
        raise StageError(
            f"{version} needs the approval of {_roles_in_words(roles)} in {environment}: trigger "
            f"{decision.model}_promote with this version; it asks in Airflow"
        )
    if not answers[-1].approved:
        raise StageError(f"{version} was not approved by a person: {'; '.join(answers[-1].reasons)}")
    return answers[-1]


def _roles_in_words(roles: Sequence[str]) -> str:
    return f"one of {', '.join(roles)}" if len(roles) > 1 else roles[0]


def build_question(model: str, decision: str) -> dict[str, Any] | None:
    """The question to the approvers: roles, hours, subject, and as Markdown body the metrics, the rules and the report.

    None when this environment requires no approval, or when the version is already in production.
    """
    config = load_model(model)
    approvers = required_approvers(config)
    event = _read_decision(config, decision)
    now = production.current_entry(config.model)
    if not approvers.roles or (now is not None and now.version == event.version):
        return None
    version = model_versions.get_version(config.model, event.version)
    evaluation = record.read(version)
    return {
        "roles": list(approvers.roles),
        "hours": approvers.hours,
        "subject": f"{config.model}: put version {event.version} into production, instead of {event.before or 'none'}?",
        "body": _question_body(event, evaluation, model_versions.artifact_url(version, record.PAGE), approvers),
    }


def _question_body(decision: Event, evaluation: Mapping[str, Any], report: str, approvers: Approvers) -> str:
    metrics = evaluation.get("metrics") or {}
    columns = ("challenger", "champion", "difference")
    lines = [
        f"Evaluated on {evaluation.get('rows')} test rows ({record.test_in_words(evaluation)}). [Report]({report})",
        "",
        f"| metric (95 % interval) | version {decision.version} | champion {decision.before or 'none'} | difference |",
        "|---|---|---|---|",
    ]
    for name in metrics.get("challenger") or {}:
        lines.append(f"| {name} | {' | '.join(_interval((metrics.get(part) or {}).get(name)) for part in columns)} |")
    lines += [
        "",
        f"The gate approved it (decision {decision.id}):",
        "",
        "| rule | measured | required |",
        "|---|---|---|",
    ]
    lines += [f"| {rule['rule']} | {_number(rule['measured'])} | {rule['bound']} |" for rule in decision.rules]
    lines += [f"- {problem}" for problem in evaluation.get("problems") or ()]
    lines += [
        "",
        f"Without an answer within {approvers.hours} hours the version is rejected. Your answer is recorded with your name.",
    ]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.{DIGITS}g}"


def _interval(metric: Mapping[str, Any] | None) -> str:
    if not metric or metric.get("value") is None:
        return "–"
    low, high = metric.get("low"), metric.get("high")
    return _number(metric["value"]) + (f" ({_number(low)} to {_number(high)})" if low is not None else "")
