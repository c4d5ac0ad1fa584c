"""The stages whose changes are enumerated: how each is called, put back to before its work, and what it gives.

All of it happens in this process, with the environment that names the machine's storage and MLflow.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from ml.ops import decisions
from ml.registry import model_versions, production
from ml.storage import stores
from ml.storage import tables as lake_tables

MODEL = "churn"
RUN_KEY = "boundaries"
# they say which run made a row, or when: different in every run
OF_THE_RUN = ("run_key", "feature_table_version", "customer_days_version", "features_version", "decided_at", "id", "at")

Parts = dict[str, Any]


@dataclass
class Stage:
    """`parts` is what the stage changes, by the name of each thing; all or nothing of each is there at any time."""

    name: str
    arguments: Callable[[], list[str]]
    reset: Callable[[], None]
    parts: Callable[[], Parts]
    once: Callable[[], str | None] = field(default=lambda: None)  # what was done twice, in a sentence


def rows(table: str, where: Any = None) -> list[tuple[str, ...]]:
    """A table's rows, or some of them, as text and in order; without what differs from run to run."""
    if not lake_tables.exists(table):
        return []
    found = lake_tables.read(table, where=where).to_pylist()
    return sorted(tuple(f"{k}={v}" for k, v in sorted(row.items()) if k not in OF_THE_RUN) for row in found)


def of_day(table: str, column: str, day: date) -> list[tuple[str, ...]]:
    import pyarrow.dataset as ds

    return rows(table, ds.field(column) == day)


def without_day(table: str, column: str, day: date) -> None:
    if lake_tables.exists(table):
        lake_tables.table(table).delete(lake_tables.day_predicate(column, [day]))


def report(name: str) -> Any:
    """A page or its JSON; None when it is not there."""
    try:
        content = stores.reports().read(name)
    except FileNotFoundError:
        return None
    if name.endswith(".json"):
        return {key: value for key, value in json.loads(content).items() if key != "run_key"}
    return "a page" if content.rstrip().endswith(b"</html>") else f"half a page of {len(content)} bytes"


def journal(name: str, day: date) -> list[tuple[str, ...]]:
    """What the journal of built days says of a stage's run here; one line, however often it was begun."""
    from ml.ops import built_days

    if name not in built_days.STAGES:
        return []
    found = [entry for entry in built_days.entries("churn", day=day) if (entry.stage, entry.run_key) == (name, RUN_KEY)]
    return [
        tuple(str(part) for part in (one.rows, one.inputs, one.own, one.recipe, one.model_version)) for one in found
    ]


def of_tables(
    name: str, arguments: list[str], day: date, *tables: tuple[str, str], pages: tuple[str, ...] = ()
) -> Stage:
    """A stage whose work is one day's partition of each table, and pages."""

    def reset() -> None:
        for table, column in tables:
            without_day(table, column, day)
        for page in pages:
            stores.reports().delete(page)
        if lake_tables.exists("ops.built_days"):
            lake_tables.table("ops.built_days").delete(f"run_key = '{RUN_KEY}'")

    def parts() -> Parts:
        found: Parts = {table: of_day(table, column, day) for table, column in tables}
        return found | {page: report(page) for page in pages} | {"the journal": journal(name, day)}

    return Stage(name, lambda: [*arguments, "--run-key", RUN_KEY], reset, parts)


OTHER = '{"num_leaves": 5}'  # a model that the gate takes for another, and for no worse


def training_set(through: date) -> Stage:
    table = "features.training_set"
    return Stage(
        "training_set",
        lambda: ["training_set", "--through", str(through), "--run-key", "boundaries"],
        lambda: lake_tables.table(table).delete() and None,
        lambda: {table: rows(table)},
    )


def validate_training(version: int, day: date) -> Stage:
    page = f"validation/churn/training/version-{version}"
    return of_tables(
        "validate.training",
        ["validate", "--suite", "training", "--version", str(version)],
        day,
        pages=(f"{page}.html", f"{page}.json"),
    )


def train(version: int) -> Stage:
    """Each time with a run key of its own, which is one version in the end; not the champion's parameters again."""
    numbers = itertools.count(1)
    keys = [""]

    def reset() -> None:
        keys[0] = f"boundaries-{version}-{next(numbers)}"

    def parts() -> Parts:
        found = model_versions.by_run_key(MODEL, keys[0])
        if found is None:
            return {"version": None}
        told = json.loads(model_versions.artifact(found, "evaluation.json"))
        same = {name: told[name] for name in ("metrics", "rows", "rows_train", "training_set_version", "champion")}
        trees = model_versions.load(found).booster.model_to_string()
        return {"version": {**same, "trees": trees}}

    def once() -> str | None:
        asked = model_versions.client()
        versions = asked.search_model_versions(f"name = '{MODEL}' and tags.run_key = '{keys[0]}'")
        experiment = asked.get_run(versions[0].run_id).info.experiment_id
        runs = asked.search_runs([experiment], f"tags.run_key = '{keys[0]}'")
        live = [run.info.run_id for run in runs if "superseded_by" not in run.data.tags]
        open_runs = [run.info.run_id for run in runs if run.info.status == "RUNNING"]
        if len(versions) != 1 or len(live) != 1 or live[0] != versions[0].run_id or open_runs:
            return f"{len(versions)} versions, {len(live)} runs that count, {len(open_runs)} left running of {keys[0]}"
        return None

    return Stage(
        "train",
        lambda: ["train", "--training-set-version", str(version), "--params", OTHER, "--run-key", keys[0]],
        reset,
        parts,
        once,
    )


def gate(number: str) -> Stage:
    undecided = as_it_is("ops/decisions/")

    def reset() -> None:
        undecided()
        without_tag(number, "decision")

    def parts() -> Parts:
        import pyarrow.dataset as ds

        told = model_versions.version(MODEL, number).json_tag("decision")
        made = rows("ops.decisions", (ds.field("version") == number) & (ds.field("event") == "gate"))
        kept = {"approved": told["approved"], "checks": told["checks"]} if told else None
        return {"tag": kept, "rows": made}

    return Stage("gate", lambda: ["gate", "--version", number], reset, parts)


def in_production() -> Parts:
    """What is in production, and what follows from it. MLflow moves one alias at a time: each is a thing of its own."""
    now, aliases = production.current(MODEL), model_versions.aliases(MODEL)
    return {
        "in production": now and (now.number, now.kind, now.version, now.before, now.digest),
        **{f"alias {name}": aliases.get(name) for name in (model_versions.CHAMPION, model_versions.PREVIOUS)},
        "recorded": changes_recorded(),
    }


def change(number: str, tag: str, says: Sequence[str], words: list[str]) -> Stage:
    """A command that changes what is in production, and tags a version with it; `says` are keys of the tag."""
    before = [as_it_is(f"ops/_production/{MODEL}/"), as_it_is("ops/decisions/")]

    def reset() -> None:
        for put_back in before:
            put_back()
        production.settle(MODEL)
        without_tag(number, tag)

    def parts() -> Parts:
        told = model_versions.version(MODEL, number).json_tag(tag)
        return in_production() | {"tag": told and [told[key] for key in says]}

    return Stage(words[0], lambda: [*words, "--run-key", RUN_KEY], reset, parts, recorded_once)


def promote(number: str) -> Stage:
    return change(number, production.PROMOTED, ["before"], ["promote", "--version", number])


def rollback(number: str) -> Stage:
    """Back from a version to the one before it, which has scored a day."""
    words = ["rollback", "--why", "it scores too high"]
    return change(number, production.TAKEN_BACK, ["to", "why"], words)


def recorded_once() -> str | None:
    """Each change of what is in production is one entry and one row of the decisions."""
    entries = [entry.event for entry in production.history(MODEL)]
    made = changes_recorded()
    return None if made == sorted(entries) else f"changes {entries} are recorded as {made}"


def changes_recorded() -> list[str]:
    return sorted(event.id for event in decisions.events(MODEL) if event.event in ("promotion", "rollback"))


def as_it_is(folder: str) -> Callable[[], None]:
    """What puts a folder of the lake back to what is in it now."""
    kept = {blob.name: stores.lake().read(blob.name) for blob in stores.lake().list(folder)}

    def put_back() -> None:
        for blob in stores.lake().list(folder):
            if blob.name not in kept:
                stores.lake().delete(blob.name)
        for name, content in kept.items():
            stores.lake().write(name, content)

    return put_back


def without_tag(number: str, key: str) -> None:
    if key in model_versions.version(MODEL, number).tags:
        model_versions.client().delete_model_version_tag(MODEL, number, key)


def daily(day: date) -> list[Stage]:
    """The stages that a day goes through, in its order."""
    end = ["--day", str(day)]
    return [
        of_tables(
            "validate.arrival",
            ["validate", "--suite", "arrival", "--days", str(day)],
            day,
            pages=(f"validation/churn/arrival/{day}.html", f"validation/churn/arrival/{day}.json"),
        ),
        of_tables(
            "ingest",
            ["ingest", "--days", str(day)],
            day,
            ("quarantine.transactions", "day"),
            ("silver.transactions", "day"),
            ("silver.customer_days", "day"),
            ("ops.ingested_days", "day"),
        ),
        of_tables("features", ["features", "--as-of", str(day)], day, ("features.customers", "as_of")),
        of_tables("score", ["score", *end], day, ("gold.customer_churn_scores", "score_date")),
        of_tables("monitor", ["monitor", *end], day, ("gold.drift", "day"), pages=(f"monitor/churn/{day}.html",)),
    ]
