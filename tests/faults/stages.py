"""The stages whose changes are enumerated: how each is called and reset, and which parts it changes.

All of this runs in this process, with the environment that names the machine's storage and MLflow.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from local.nodes import Nodes
from ml.config import ModelConfig, SourceConfig, load_project
from ml.ops import built_days, decisions, ingested_days
from ml.registry import model_versions, production
from ml.storage import stores, tables

MODEL = "churn"  # whose training, promotion and rollback are disturbed
SOURCE = "transactions"  # whose day is disturbed, with all that is built on it
RUN_KEY = "boundaries"
# columns that say which run wrote a row, or when: different in every run
RUN_COLUMNS = (
    "run_key",
    "feature_table_version",
    "_inputs",
    "decided_at",
    "id",
    "at",
)

Parts = dict[str, Any]


@dataclass
class Stage:
    """`parts` returns what the stage changes, by name. Readers must see each part as before the stage or as after it."""

    name: str
    arguments: Callable[[], list[str]]
    reset: Callable[[], None]
    parts: Callable[[], Parts]
    repeated: Callable[[], str | None] = field(default=lambda: None)  # a sentence about what was done twice


def rows(table: str, where: Any = None) -> list[tuple[str, ...]]:
    """A table's rows, or some of them, as sorted text, without the columns that differ from run to run."""
    if not tables.exists(table):
        return []
    return sorted(
        tuple(f"{column}={value}" for column, value in sorted(row.items()) if column not in RUN_COLUMNS)
        for row in tables.read(table, where=where).to_pylist()
    )


@dataclass(frozen=True)
class Partition:
    """A day of a table. `source`: only the rows of one source, in a table of the system that has rows of all."""

    table: str
    column: str
    source: str | None = None

    def rows(self, day: date) -> list[tuple[str, ...]]:
        import pyarrow.dataset as ds

        where = ds.field(self.column) == day
        return rows(self.table, where & (ds.field("source") == self.source) if self.source else where)

    def delete(self, day: date) -> None:
        if tables.exists(self.table):
            only = f" AND source = '{self.source}'" if self.source else ""
            tables.table(self.table).delete(tables.day_predicate(self.column, [day]) + only)


def report(name: str) -> Any:
    """A report's JSON, or whether its page is complete; None when it does not exist."""
    try:
        content = stores.reports().read(name)
    except FileNotFoundError:
        return None
    if name.endswith(".json"):
        return {key: value for key, value in json.loads(content).items() if key != "run_key"}
    return "a page" if content.rstrip().endswith(b"</html>") else f"half a page of {len(content)} bytes"


def journal_entries(node: str | None, day: date) -> list[tuple[str, ...]]:
    """The entries of `ops.built_days` for this node, day and run key: one, however often the stage was started."""
    if node is None:
        return []
    entries = [entry for entry in built_days.read_entries(node=node, day=day) if entry.run_key == RUN_KEY]
    return [
        tuple(str(part) for part in (entry.rows, entry.inputs, entry.own, entry.recipe, entry.model_version))
        for entry in entries
    ]


def partition_stage(
    name: str,
    arguments: list[str],
    day: date,
    *partitions: Partition,
    pages: tuple[str, ...] = (),
    node: str | None = None,
) -> Stage:
    """A stage that writes one day's partition of each table, pages, and an entry of `node` in the journal."""

    def reset() -> None:
        for partition in partitions:
            partition.delete(day)
        for page in pages:
            stores.reports().delete(page)
        if tables.exists("ops.built_days"):
            tables.table("ops.built_days").delete(f"run_key = '{RUN_KEY}'")

    def parts() -> Parts:
        rows_by_table: Parts = {partition.table: partition.rows(day) for partition in partitions}
        return rows_by_table | {page: report(page) for page in pages} | {"the journal": journal_entries(node, day)}

    return Stage(name, lambda: [*arguments, "--run-key", RUN_KEY], reset, parts)


OTHER_PARAMS = '{"num_leaves": 5}'  # gives a model that differs from the champion and that the gate does not find worse


TO_MODEL = ["--model", MODEL]


def training_table() -> str:
    return load_project().models[MODEL].train.table


def training_set(through: date) -> Stage:
    table = training_table()
    return Stage(
        "training_set",
        lambda: ["training_set", *TO_MODEL, "--through", str(through), "--run-key", "boundaries"],
        lambda: tables.table(table).delete() and None,
        lambda: {table: rows(table)},
    )


def validate_training(version: int, day: date) -> Stage:
    page = f"validation/{MODEL}/training/version-{version}"
    return partition_stage(
        "validate.training",
        ["validate", *TO_MODEL, "--suite", "training", "--version", str(version)],
        day,
        pages=(f"{page}.html", f"{page}.json"),
    )


def train(version: int) -> Stage:
    """Each time with a new run key, for which one version must exist in the end; the parameters are not the champion's."""
    numbers = itertools.count(1)
    keys = [""]

    def reset() -> None:
        keys[0] = f"boundaries-{version}-{next(numbers)}"

    def parts() -> Parts:
        version = model_versions.find_by_run_key(MODEL, keys[0])
        if version is None:
            return {"version": None}
        evaluation = json.loads(model_versions.read_artifact(version, "evaluation.json"))
        same = {
            name: evaluation[name] for name in ("metrics", "rows", "rows_train", "training_set_version", "champion")
        }
        trees = model_versions.load(version).booster.model_to_string()
        return {"version": {**same, "trees": trees}}

    def repeated() -> str | None:
        client = model_versions.client()
        versions = client.search_model_versions(f"name = '{MODEL}' and tags.run_key = '{keys[0]}'")
        experiment = client.get_run(versions[0].run_id).info.experiment_id
        runs = client.search_runs([experiment], f"tags.run_key = '{keys[0]}'")
        live = [run.info.run_id for run in runs if "superseded_by" not in run.data.tags]
        open_runs = [run.info.run_id for run in runs if run.info.status == "RUNNING"]
        if len(versions) != 1 or len(live) != 1 or live[0] != versions[0].run_id or open_runs:
            return f"{len(versions)} versions, {len(live)} runs that count, {len(open_runs)} left running of {keys[0]}"
        return None

    return Stage(
        "train",
        lambda: [
            *("train", *TO_MODEL, "--training-set-version", str(version)),
            *("--params", OTHER_PARAMS, "--run-key", keys[0]),
        ],
        reset,
        parts,
        repeated,
    )


def gate(number: str) -> Stage:
    restore_decisions = restorer("ops/decisions/")

    def reset() -> None:
        restore_decisions()
        delete_tag(number, "decision")

    def parts() -> Parts:
        import pyarrow.dataset as ds

        decision = model_versions.get_version(MODEL, number).json_tag("decision")
        recorded = rows("ops.decisions", (ds.field("version") == number) & (ds.field("event") == "gate"))
        tag = {"approved": decision["approved"], "checks": decision["checks"]} if decision else None
        return {"tag": tag, "rows": recorded}

    return Stage("gate", lambda: ["gate", *TO_MODEL, "--version", number], reset, parts)


def production_parts() -> Parts:
    """The production entry, and what follows from it. MLflow moves one alias at a time, so each is a part of its own."""
    now, aliases = production.current_entry(MODEL), model_versions.get_aliases(MODEL)
    return {
        "in production": now and (now.number, now.kind, now.version, now.before, now.digest),
        **{f"alias {name}": aliases.get(name) for name in (model_versions.CHAMPION, model_versions.PREVIOUS)},
        "recorded": changes_recorded(),
    }


def change(number: str, tag: str, tag_keys: Sequence[str], words: list[str]) -> Stage:
    """A command that changes the production entry and tags a version; `tag_keys` are compared."""
    restorers = [restorer(f"ops/_production/{MODEL}/"), restorer("ops/decisions/")]

    def reset() -> None:
        for restore in restorers:
            restore()
        production.settle(MODEL)
        delete_tag(number, tag)

    def parts() -> Parts:
        value = model_versions.get_version(MODEL, number).json_tag(tag)
        return production_parts() | {"tag": value and [value[key] for key in tag_keys]}

    return Stage(words[0], lambda: [*words, "--run-key", RUN_KEY], reset, parts, recorded_repeatedly)


def promote(number: str) -> Stage:
    return change(number, production.PROMOTED, ["before"], ["promote", *TO_MODEL, "--version", number])


def rollback(number: str) -> Stage:
    """Roll back from a version to the previous one, which has scored a day."""
    words = ["rollback", *TO_MODEL, "--why", "it scores too high"]
    return change(number, production.TAKEN_BACK, ["to", "why"], words)


def recorded_repeatedly() -> str | None:
    """Each change of the production entry must be one log entry and one row of `ops.decisions`."""
    entries = [entry.event for entry in production.read_history(MODEL)]
    recorded = changes_recorded()
    return None if recorded == sorted(entries) else f"changes {entries} are recorded as {recorded}"


def changes_recorded() -> list[str]:
    return sorted(event.id for event in decisions.read_events(MODEL) if event.event in ("promotion", "rollback"))


def restorer(folder: str) -> Callable[[], None]:
    """A function that restores the present content of a folder of the lake."""
    content_by_name = {blob.name: stores.lake().read(blob.name) for blob in stores.lake().list(folder)}

    def restore() -> None:
        for blob in stores.lake().list(folder):
            if blob.name not in content_by_name:
                stores.lake().delete(blob.name)
        for name, content in content_by_name.items():
            stores.lake().write(name, content)

    return restore


def delete_tag(number: str, key: str) -> None:
    if key in model_versions.get_version(MODEL, number).tags:
        model_versions.client().delete_model_version_tag(MODEL, number, key)


def ingestion(source: SourceConfig, day: date) -> list[Stage]:
    """The stages of a source's day."""
    to_source, page = ["--source", source.name], f"validation/{source.name}/arrival/{day}"
    return [
        partition_stage(
            f"validate.arrival of {source.name}",
            ["validate", *to_source, "--suite", "arrival", "--days", str(day)],
            day,
            pages=(f"{page}.html", f"{page}.json"),
        ),
        partition_stage(
            f"ingest of {source.name}",
            ["ingest", *to_source, "--days", str(day)],
            day,
            *(Partition(table, "day") for table in (source.quarantine, *source.tables)),
            Partition("ops.ingested_days", "day", source.name),
        ),
    ]


def other_sources() -> list[Stage]:
    """The stages of every other source that has days, for its newest day."""
    newest = {name: max(days) for name, days in ingested_days.read_all_ingested_days().items() if days}
    project = load_project()
    names = [name for name in sorted(newest) if name != SOURCE]
    return [stage for name in names for stage in ingestion(project.sources[name], newest[name])]


def daily(day: date) -> list[Stage]:
    """The stages of a source's day and of all that is built on it, in order."""
    project = load_project()
    nodes = Nodes.downstream(project, SOURCE)
    features = [
        partition_stage(
            f"features of {name}",
            ["features", "--table", name, "--as-of", str(day)],
            day,
            Partition(project.feature_tables[name].table_name, "as_of"),
            node=project.feature_tables[name].table_name,
        )
        for name in nodes.tables
    ]
    scores = [stage for name in nodes.models for stage in scoring(project.models[name], day)]
    return [*ingestion(project.sources[SOURCE], day), *features, *scores]


def scoring(model: ModelConfig, day: date) -> list[Stage]:
    """The stages that use a model for a day."""
    arguments = ["--model", model.name, "--day", str(day)]
    return [
        partition_stage(
            f"score of {model.name}",
            ["score", *arguments],
            day,
            Partition(model.score.table, "score_date"),
            node=f"{model.name}.score",
        ),
        partition_stage(
            f"monitor of {model.name}",
            ["monitor", *arguments],
            day,
            Partition(model.monitor.table, "day"),
            pages=(f"monitor/{model.name}/{day}.html",),
            node=f"{model.name}.monitor",
        ),
    ]
