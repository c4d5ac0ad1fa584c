"""Back to the version that served before: the champion was wrong, and a person says so.

The gate is not asked: that version passed it, and has scored days. What is to be done is recorded in `ops.decisions`
under the run key before anything moves, so a process that dies is completed by the next try, and twice is once.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ml import config as configs
from ml import gate, journal
from ml.cli import StageError

if TYPE_CHECKING:
    from ml.registry import Version

TAG = "taken_back"  # on a version that was wrong; it is not promoted again


def take_back(model: str, why: str, *, run_key: str) -> dict[str, Any]:
    """Make the version that served before champion again, and take today's out for good.

    Facts: before and after (versions), changed, why. Raises StageError when there is no such version, or when the
    champion has moved since this run key began.
    """
    from ml import promote, registry

    config = configs.load(model)
    if not why.strip():
        raise StageError("say why the champion is wrong: it is kept with the decision")
    champion = registry.aliased(config.model)
    if champion is None:
        raise StageError(f"{config.model} has no champion: there is nothing to go back from")
    told = _recorded(config.model, run_key)
    if told is None:
        target = _served_before(champion)
        told = _record(champion, target, why, run_key)
    wrong, target = registry.version(config.model, told["champion"]), registry.version(config.model, told["version"])
    if champion.number not in (wrong.number, target.number):
        raise StageError(
            f"run key {run_key!r} was to replace {wrong} by {target}, and the champion is now {champion}: "
            "somebody promoted meanwhile. If that one is wrong too, ask again with a new run key"
        )
    registry.tag(wrong, TAG, {"at": told["decided_at"], "to": target.number, "why": told["why"], "run_key": run_key})
    registry.move_alias(config.model, registry.CHAMPION, target.number)
    older = (target.json_tag(promote.TAG) or {}).get("before")
    if older is None:
        registry.drop_alias(config.model, registry.PREVIOUS)
    else:
        registry.move_alias(config.model, registry.PREVIOUS, older)
    changed = champion.number != target.number
    return {"before": wrong.number, "after": target.number, "changed": changed, "why": told["why"]}


def _served_before(champion: Version) -> Version:
    """The newest earlier champion that has scored a day and was not taken back itself."""
    from ml import promote, registry

    served = {entry.model_version for entry in journal.entries(champion.model, stage="score")}
    seen, at = {champion.number}, champion
    while True:
        before = (at.json_tag(promote.TAG) or {}).get("before")
        if before is None or before in seen:
            raise StageError(f"no version served before {champion}: there is nothing to go back to; train another one")
        at = registry.version(champion.model, before)
        seen.add(before)
        if before in served and at.json_tag(TAG) is None:
            return at


def _id(model: str, run_key: str) -> str:
    return hashlib.sha256(f"{model}/back/{run_key}".encode()).hexdigest()[:16]


def _recorded(model: str, run_key: str) -> dict[str, Any] | None:
    import pyarrow.dataset as ds

    from ml import lake

    if not lake.exists(gate.TABLE):
        return None
    where = ds.field("id") == _id(model, run_key)
    found = lake.read(gate.TABLE, columns=["decision"], where=where)["decision"].to_pylist()
    return dict(json.loads(found[0])) if found else None


def _record(wrong: Version, target: Version, why: str, run_key: str) -> dict[str, Any]:
    """A row of `ops.decisions`: `version` is the one that serves from now on, `champion` the one it replaces."""
    import pyarrow as pa

    from ml import lake

    now = datetime.now(UTC)
    key = _id(wrong.model, run_key)
    told = {
        "id": key,
        "version": target.number,
        "champion": wrong.number,
        "decided_at": now.isoformat(timespec="seconds"),
        "why": why,
    }
    row = pa.table(
        {
            "id": pa.array([key]),
            "model": pa.array([wrong.model]),
            "version": pa.array([target.number]),
            "champion": pa.array([wrong.number]),
            "evaluation": pa.array([None], pa.string()),
            "approved": pa.array([True]),
            "reasons": pa.array([[f"{wrong} was taken back by a person: {why}"]], pa.list_(pa.string())),
            "decided_at": pa.array([now], pa.timestamp("us", "UTC")),
            "run_key": pa.array([run_key]),
            "decision": pa.array([json.dumps(told, sort_keys=True)]),
        }
    )
    lake.replace(gate.TABLE, row, lake.text_predicate(id=key))
    return told
