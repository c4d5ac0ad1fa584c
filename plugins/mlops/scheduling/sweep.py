"""The sweep: compares what the tables say with what Airflow has requested, and requests what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowSkipException

from mlops.partitions import started
from mlops.scheduling.assets import assets_of
from mlops.scheduling.requests import ON_ITS_WAY, Consumer, Memory, Wish, choose

if TYPE_CHECKING:
    from airflow.sdk import Context
ASKED_STAGES = ("ingest", "features", "score", "monitor")


def read_asked(events: Any) -> dict[str, Memory]:
    """What was asked for of each stage, from the newest event on `asked`."""
    newest: Sequence[Any] = events.ascending(False).limit(1)
    kept = newest[0].extra if len(newest) else {}
    return {stage: Memory.from_json(kept.get(stage, {})) for stage in ASKED_STAGES}


def brought_by(model: str) -> dict[str, tuple[Asset, list[str]]]:
    """Of each stage that follows another by itself: the asset whose event brings it a day, and the Dags that emit that."""
    assets = assets_of(model)
    return {
        "features": (assets.ingested, [f"{model}_ingest", f"{model}_load_history"]),
        "score": (assets.featured, [f"{model}_features"]),
        "monitor": (assets.scored, [f"{model}_score"]),
    }


def _is_busy(context: Context, model: str, stage: str) -> bool:
    """Whether a stage has runs that are not over, or an event is about to start one.

    The tables show what the stage before has done while its run goes on: the event comes at the end of that.
    The last one is looked at first, so that a day that moves on meanwhile is seen all the same.
    """
    ti = context["ti"]
    if ti.get_dr_count(f"{model}_{stage}", states=["queued", "running"]):
        return True
    brings = brought_by(model).get(stage)
    if brings is None:
        return False
    asset, emit = brings
    if any(ti.get_dr_count(dag_id, states=["running"]) for dag_id in emit):
        return True
    lately = (ti.start_date - ON_ITS_WAY).isoformat()
    return len(context["inlet_events"][asset].after(lately)) > 0


def ask(
    context: Context,
    model: str,
    memory: Mapping[str, Memory],
    wanted: Mapping[str, Mapping[date, tuple[str, bool]]],
    minutes: int,
) -> dict[str, list[str]]:
    """Hand on the days that it is time to ask for, and remember that; both with the task's success, or neither.

    `wanted`: of each stage, what each day is to be made from, and whether nothing else brings it (`ml.days.pending.pending_work`).
    `minutes`: until it asks for the same again. Returns the days by stage. Skips the task when there is nothing to ask for and nothing new to remember.
    """
    assets, ti, events = assets_of(model), context["ti"], context["outlet_events"]
    outlets = {
        "ingest": assets.landed,
        "features": assets.restate,
        "score": assets.rescore,
        "monitor": assets.remeasure,
    }
    wait = timedelta(minutes=minutes)
    by_hand = started(context) == "manual"
    asked, kept = {}, {}
    for stage in ASKED_STAGES:
        consumer = Consumer(ti.get_dr_count(f"{model}_{stage}"), _is_busy(context, model, stage))
        wishes = {day: Wish(of, at_once) for day, (of, at_once) in wanted[stage].items()}
        days, kept[stage] = choose(wishes, memory[stage], consumer, ti.start_date, wait, by_hand=by_hand)
        if days:
            asked[stage] = [day.isoformat() for day in days]
            events[outlets[stage]].add_partitions(asked[stage])
    if not asked and all(kept[stage].days.items() <= memory[stage].days.items() for stage in kept):
        seen = sum(len(found.days) for found in kept.values())
        raise AirflowSkipException(f"nothing new; {seen} days are on their way or will be asked for again")
    events[assets.asked].extra = {stage: found.to_json() for stage, found in kept.items()}
    # an asset that is given no day would still get an event, without one
    context["task"].outlets = [assets.asked, *(outlets[stage] for stage in asked)]
    return asked
