"""Move the alias `champion` to an approved version; the one before becomes `previous`.

MLflow's aliases know no compare-and-set, so the compare is done just before and checked just after:
the decision names the champion it was made against, and a promotion is refused once that has moved.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ml import config as configs
from ml import gate
from ml.cli import StageError

if TYPE_CHECKING:
    from ml.registry import Version

TAG = "promotion"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--version", help="registered and approved version")
    which.add_argument("--back", metavar="WHY", help="take the champion out: the one that served before comes back")
    parser.add_argument("--run-key", required=True, help="what this promotion is asked for by")


def run(args: argparse.Namespace) -> dict[str, Any]:
    if args.back is not None:
        from ml.take_back import take_back

        return take_back(args.model, args.back, run_key=args.run_key)
    return promote_version(args.model, args.version, run_key=args.run_key)


def promote_version(model: str, number: str, *, run_key: str) -> dict[str, Any]:
    """Promote once; asked again while the version is champion, it changes nothing and says so.

    Raises StageError without an approval that still holds: of this evaluation, against this champion.
    """
    from ml import registry

    config = configs.load(model)
    version = registry.version(config.model, number)
    champion = registry.aliased(config.model)
    if champion is not None and champion.number == version.number:
        before = registry.aliased(config.model, registry.PREVIOUS)
        done = version.json_tag(TAG) or _note(version, before.number if before else None, run_key)
        note = f"{version} is champion already"
        return {"before": done["before"], "after": version.number, "changed": False, "note": note}
    old = champion.number if champion else None
    _require_approval(version, old)
    if old is not None:
        registry.move_alias(config.model, registry.PREVIOUS, old)
    registry.move_alias(config.model, registry.CHAMPION, version.number)
    now = registry.aliased(config.model)
    if now is None or now.number != version.number:
        raise StageError(
            f"{version} was made champion and {now or 'nothing'} is: somebody promoted at the same moment; "
            "decide again which one it should be"
        )
    _note(version, old, run_key)
    return {"before": old, "after": version.number, "changed": True}


def _require_approval(version: Version, champion: str | None) -> None:
    """Raise StageError unless the recorded decision approves this version, as evaluated, against this champion."""
    from ml import evaluate, registry, take_back

    if taken := version.json_tag(take_back.TAG):
        raise StageError(
            f"{version} was champion and was taken back ({taken['why']}): its approval does not count any more. "
            "Train another version"
        )
    decision = version.json_tag(gate.TAG)
    if decision is None:
        raise StageError(f"{version} has no recorded decision: run the stage 'gate' first")
    if not decision["approved"]:
        raise StageError(f"{version} was rejected by the gate: {'; '.join(decision['reasons'])}")
    if decision["champion"] != champion:
        raise StageError(
            f"{version} was approved against champion {decision['champion'] or 'none'}, and the champion is now "
            f"{champion or 'none'}: evaluate and decide again"
        )
    if decision["evaluation"] != evaluate.digest(registry.artifact(version, evaluate.FILE)):
        raise StageError(f"{version} was evaluated again after the decision: run the stage 'gate' again")


def _note(version: Version, before: str | None, run_key: str) -> dict[str, Any]:
    from ml import registry

    told = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "before": before, "run_key": run_key}
    registry.tag(version, TAG, told)
    return told
