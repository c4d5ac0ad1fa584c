"""Generates docs/dags.md from the Dags: `python -m docs.catalogue > docs/dags.md`. A test checks that it is current."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
# In the order in which a day passes the stages; a stage that is missing here comes last, by name.
ORDER = ("arrivals", "calendar", "load_history", "ingest", "features", "train", "promote", "rollback", "on_champion", "score",
         "monitor", "report")  # fmt: skip

HEAD = """\
# The Dags

Generated from `dags/` by `python -m docs.catalogue > docs/dags.md`: change the Dags' docstrings, not this page. Every
model in `config/` has these Dags, with its own name in place of `churn`.

"""


def render(dags: Mapping[str, Any]) -> str:
    """The page for the Dags of Airflow's DagBag, by id."""
    ordered = sorted(dags.values(), key=_sort_key)
    lines = [HEAD, "| Dag | starts | emits | owner |\n|---|---|---|---|\n"]
    for dag in ordered:
        link = f"[`{dag.dag_id}`](#{dag.dag_id})"
        lines.append(f"| {link} | {starts(dag)} | {_names(emitted(dag)) or '–'} | {dag.owner} |\n")
    for dag in ordered:
        tasks = " → ".join(f"`{task.task_id}`" for task in dag.topological_sort())
        source = Path(dag.fileloc).name
        lines.append(f"\n## {dag.dag_id}\n\n[`dags/{source}`](../dags/{source}): {tasks}\n\n{dag.doc_md.strip()}\n")
    return "".join(lines)


def starts(dag: Any) -> str:
    """What starts the Dag: its cron expression, its assets, or a person."""
    timetable = dag.timetable
    kind = type(timetable).__name__
    assets = _names(sorted(_assets(timetable.asset_condition)))
    match kind:
        case "NullTimetable":
            return "by hand"
        case "CronTriggerTimetable":
            return _cron(timetable)
        case "CronPartitionTimetable":
            return f"{_cron(timetable)}, for the day before; backfills"
        case "AssetTriggeredTimetable":
            return assets
        case "PartitionedAssetTimetable":
            return f"each day on {assets}"
        case "AssetOrTimeSchedule":
            return f"{_cron(timetable.timetable)}, or {assets}"
    raise ValueError(f"{dag.dag_id}: docs/catalogue.py has no text for a {kind}; add it to `starts`")


def emitted(dag: Any) -> list[str]:
    """Names of the assets for which the Dag's tasks emit events."""
    return sorted({outlet.name for task in dag.tasks for outlet in task.outlets})


def _assets(condition: Any) -> Iterable[str]:
    """Names of all assets of a condition, which is an asset, a combination of conditions, or None."""
    if condition is None:
        return ()
    if hasattr(condition, "objects"):
        return [name for part in condition.objects for name in _assets(part)]
    return (condition.name,)


def _cron(timetable: Any) -> str:
    return f"`{timetable.expression}` {timetable.timezone}"


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _sort_key(dag: Any) -> tuple[str, int, str]:
    model, _, stage = dag.dag_id.partition("_")
    return model, ORDER.index(stage) if stage in ORDER else len(ORDER), stage


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {"AIRFLOW_HOME": home, "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR"}
        sys.path[:0] = [str(REPOSITORY / "plugins")]
        from airflow.dag_processing.dagbag import DagBag  # noqa: TID251 (it reads the Dags as Airflow does)

        bag = DagBag(REPOSITORY / "dags")
    if bag.import_errors:
        raise SystemExit("\n".join(f"{file}:\n{error}" for file, error in bag.import_errors.items()))
    sys.stdout.write(render(bag.dags))


if __name__ == "__main__":
    main()
