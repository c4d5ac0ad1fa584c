"""May a person agree, who, and did one? The gate decides what a machine can; `approval` in the config may ask for more.

The environment is named by `ML_ENVIRONMENT`. One that the config does not know is refused: a misspelt name must not be
the way past the people who are to be asked.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ml.config import ModelConfig, load_model
from ml.config.gate import Approvers
from ml.errors import StageError

if TYPE_CHECKING:
    from ml.ops.decisions import Event

VARIABLE = "ML_ENVIRONMENT"
DIGITS = 4


def environment(config: ModelConfig) -> str:
    """The name of this environment. Raises StageError when it is not set, or not in the config."""
    known = config.approval.environments
    name = os.environ.get(VARIABLE, "")
    if name not in known:
        raise StageError(
            f"{VARIABLE} is {name!r}: who has to agree to a promotion stands in approval.environments of "
            f"config/{config.model}.yaml for {', '.join(known)} only"
        )
    return name


def policy(config: ModelConfig) -> Approvers:
    """Who has to agree here; nobody when it names no roles."""
    return config.approval.environments[environment(config)]


def record(model: str, decision: str, answer: Mapping[str, Any], *, run: str = "") -> Event:
    """Keep the answer to the question about a decision in `ops.decisions`.

    `answer`: approved, person (None when nobody gave one in time), at (ISO), comment, reasons.
    """
    from ml.ops import decisions

    config = load_model(model)
    of = _decision(config, decision)
    return decisions.record(
        replace(
            of,
            id=decisions.event_id("approval", of.id, run, answer["at"]),
            event="approval",
            after=of.before,
            approved=answer["approved"],
            reasons=tuple(answer["reasons"]),
            rules=(),
            approver=answer["person"],
            by=answer["person"] or "",
            run=run,
            told={
                "decision": of.id,
                "environment": environment(config),
                "roles": list(policy(config).roles),
                "comment": answer["comment"],
                "answered_at": answer["at"],
            },
            at=None,
        )
    )


def _decision(config: ModelConfig, decision: str) -> Event:
    from ml.ops import decisions

    found = next((one for one in decisions.events(config.model, kind="gate") if one.id == decision), None)
    if found is None:
        raise StageError(f"{config.model} has no decision {decision!r} of the gate")
    return found


def granted(config: ModelConfig, decision: Event) -> Event | None:
    """The approval that this environment asks for; None when it asks nobody.

    Raises StageError when it is missing, was refused, or was given for other roles or another environment.
    """
    from ml.ops import decisions

    roles = policy(config).roles
    if not roles:
        return None
    here = environment(config)
    found = [
        one
        for one in decisions.events(decision.model, kind="approval", version=decision.version)
        if (one.told["decision"], one.told["environment"]) == (decision.id, here)
    ]
    which = f"{decision.model} version {decision.version}"
    if not found or (found[-1].approved and set(found[-1].told["roles"]) != set(roles)):
        raise StageError(
            f"{which} needs the approval of {_one_of(roles)} in {here}: trigger {decision.model}_promote with this "
            "version; it asks in Airflow"
        )
    if not found[-1].approved:
        raise StageError(f"{which} was not approved by a person: {'; '.join(found[-1].reasons)}")
    return found[-1]


def _one_of(roles: Sequence[str]) -> str:
    return f"one of {', '.join(roles)}" if len(roles) > 1 else roles[0]


def question(model: str, decision: str) -> dict[str, Any] | None:
    """Whom to ask for how long, and what: the numbers, the rules and the report, in Markdown.

    None when this environment asks nobody, or when the version is in production already.
    """
    from ml.evaluate.record import FILE, PAGE
    from ml.registry import model_versions, production

    config = load_model(model)
    asked = policy(config)
    of = _decision(config, decision)
    now = production.current(config.model)
    if not asked.roles or (now is not None and now.version == of.version):
        return None
    version = model_versions.version(config.model, of.version)
    evaluation = json.loads(model_versions.artifact(version, FILE))
    subject, body = _told(config.model, of, evaluation, model_versions.page(version, PAGE), asked)
    return {"roles": list(asked.roles), "hours": asked.hours, "subject": subject, "body": body}


def _told(model: str, decision: Event, evaluation: Mapping[str, Any], report: str, asked: Approvers) -> tuple[str, str]:
    champion = decision.before
    subject = f"{model}: version {decision.version} into production, instead of {champion or 'none'}?"
    metrics = evaluation.get("metrics") or {}
    parts = ("challenger", "champion", "difference")
    days = ", ".join(evaluation.get("test_as_of") or ())
    lines = [
        f"Evaluated on {evaluation.get('rows')} rows later than anything it learnt from ({days}). [The report]({report})",
        "",
        f"| | version {decision.version} | champion {champion or 'none'} | difference |",
        "|---|---|---|---|",
    ]
    for name in metrics.get("challenger") or {}:
        lines.append(f"| {name} | {' | '.join(_interval((metrics.get(part) or {}).get(name)) for part in parts)} |")
    lines += [
        "",
        f"The gate has approved it (decision {decision.id}):",
        "",
        "| rule | measured | asked for |",
        "|---|---|---|",
    ]
    lines += [f"| {rule['rule']} | {_number(rule['measured'])} | {rule['bound']} |" for rule in decision.rules]
    lines += [f"- {problem}" for problem in evaluation.get("problems") or ()]
    lines += [
        "",
        f"Without an answer within {asked.hours} hours it is rejected. What you answer is kept with your name.",
    ]
    return subject, "\n".join(lines)


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.{DIGITS}g}"


def _interval(found: Mapping[str, Any] | None) -> str:
    if not found or found.get("value") is None:
        return "–"
    low, high = found.get("low"), found.get("high")
    return _number(found["value"]) + (f" ({_number(low)} to {_number(high)})" if low is not None else "")
