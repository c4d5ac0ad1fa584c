"""Generates docs/dags.md from the Dags: `python -m docs.catalogue > docs/dags.md`. A test checks that it is current."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
# Kinds of nodes, and the stages of each in the order in which a day passes them.
STAGES = {
    "": ("arrivals",),
    "source": ("calendar", "load_history", "ingest"),
    "table": ("features",),
    "model": ("train", "promote", "rollback", "on_champion", "score", "monitor", "report"),
}
ORDER = [stage for stages in STAGES.values() for stage in stages]

HEAD = """\
# The Dags

Generated from `dags/` by `python -m docs.catalogue > docs/dags.md`: change the Dags' docstrings, not this page.

There is one Dag for the whole graph, and one for each stage of each node in `config/`. A node's day starts on the asset
of the node that it is built from. Where several nodes bring what a day is built from, it starts on `ready`, which the last
of them emits.

"""


def render(dags: Mapping[str, Any]) -> str:
    """The page for the Dags of Airflow's DagBag, by id."""
    ordered = sorted(dags.values(), key=_sort_key)
    lines = [HEAD, "| Dag | starts | emits | owner |\n|---|---|---|---|\n"]
    for dag in ordered:
        link = f"[`{dag.dag_id}`](#{_anchor(stage_of(dag))})"
        lines.append(f"| {link} | {starts(dag)} | {_emits(dag)} | {dag.owner} |\n")
    for stage in ORDER:
        of_stage = [dag for dag in ordered if stage_of(dag) == stage]
        if not of_stage:
            continue
        # the longest one: where no node needs the last task `hand_on`, a Dag goes without it
        longest = max(of_stage, key=lambda dag: len(dag.tasks))
        tasks = " → ".join(f"`{task.task_id}`" for task in longest.topological_sort())
        source = Path(longest.fileloc).name
        lines.append(
            f"\n## {_title(stage)}\n\n[`dags/{source}`](../dags/{source}): {tasks}\n\n{longest.doc_md.strip()}\n"
        )
    return "".join(lines)


def stage_of(dag: Any) -> str:
    """A Dag's stage: its last tag; the first one is its node."""
    (stage,) = [stage for stage in ORDER if stage in dag.tags and dag.dag_id.endswith(stage)]
    return stage


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


def _emits(dag: Any) -> str:
    if stage_of(dag) == "arrivals":
        return "`arrivals.asked`, and what requests a day of any node: `landed`, `restate`, `rescore`, `remeasure`"
    return _names(emitted(dag)) or "–"


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


def _title(stage: str) -> str:
    """The name of a stage's Dags, such as `<source>_ingest`."""
    kind = next(kind for kind, stages in STAGES.items() if stage in stages)
    return f"`<{kind}>_{stage}`" if kind else f"`{stage}`"


def _anchor(stage: str) -> str:
    """The address of a stage's heading on this page: signs are left out."""
    return "".join(letter for letter in _title(stage) if letter.isalnum() or letter == "_")


def _sort_key(dag: Any) -> tuple[int, str, int]:
    stage = stage_of(dag)
    kinds = [kind for kind, stages in STAGES.items() if stage in stages]
    return list(STAGES).index(kinds[0]), dag.dag_id.removesuffix(stage), ORDER.index(stage)


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
