"""All config files together, checked against each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from types import MappingProxyType

from ml.config.features import FeatureTableConfig
from ml.config.load import ConfigError, list_names, load_feature_table, load_model, load_platform, load_source
from ml.config.model import ModelConfig
from ml.config.platform import PlatformConfig
from ml.config.source import SourceConfig

SYSTEM_LAYERS = ("ops", "bronze", "silver", "quarantine")  # a model writes none of them
RESERVED_MODELS = ("silver", "features")  # `silver.score` would be the id of a source and of a model's scores


@dataclass(frozen=True)
class Problem:
    """What is wrong in a file, in one sentence: the key, what was found, and what to do.

    `file` is its path as in the checkout, such as `config/models/churn.yaml`. `others` are files that it contradicts.
    """

    file: str
    key: str
    message: str
    others: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.file}: {self.key}: {self.message}" if self.key else f"{self.file}: {self.message}"


@dataclass(frozen=True)
class Project:
    """Every source, feature table and model, by name."""

    platform: PlatformConfig
    sources: Mapping[str, SourceConfig]
    feature_tables: Mapping[str, FeatureTableConfig]
    models: Mapping[str, ModelConfig]

    @cached_property
    def source_by_table(self) -> Mapping[str, SourceConfig]:
        """The source whose ingestion writes each silver table."""
        return MappingProxyType({table: source for source in self.sources.values() for table in source.tables})

    def source_of(self, table: str) -> SourceConfig:
        """The source that writes a silver table. Raises ConfigError naming the tables that there are."""
        try:
            return self.source_by_table[table]
        except KeyError:
            known = ", ".join(sorted(self.source_by_table)) or "none"
            raise ConfigError(f"{table}: no source writes this table; those that sources write: {known}") from None

    def fact_tables_of(self, model: ModelConfig) -> tuple[str, ...]:
        """The silver tables of facts that a model's features, labels or examples are made from, each once."""
        if model.examples is not None:
            return (model.examples.table,)
        inputs = [table for name in model.features for table in self.feature_tables[name].inputs]
        facts = [table for table in (*inputs, *model.label.inputs) if self.source_of(table).kind == "facts"]
        return tuple(dict.fromkeys(facts))

    def sources_that_start(self, table: FeatureTableConfig) -> list[str]:
        """The sources whose arrival starts a day of a feature table: of all its facts, and the snapshots it waits for.

        Facts that are carried count: their arrival makes the day again. Snapshots that are carried do not.
        """
        inputs = [(self.source_of(name), edge) for name, edge in table.inputs.items()]
        return sorted({source.name for source, edge in inputs if source.kind == "facts" or edge.missing == "wait"})

    def tables_completed_by(self, source: str) -> list[str]:
        """The feature tables of which this source and others complete the days."""
        starting = {table.name: self.sources_that_start(table) for table in self.feature_tables.values()}
        return sorted(name for name, sources in starting.items() if source in sources and len(sources) > 1)

    def tables_that_start(self, model: ModelConfig) -> list[str]:
        """The feature tables whose days start a model's scores: those that it pins, and the other versions of each.

        The champion may still be pinned to an earlier version than the config file of now.
        """
        families = {self.feature_tables[name].family for name in model.features}
        return sorted(table.name for table in self.feature_tables.values() if table.family in families)

    def models_completed_by(self, table: str) -> list[str]:
        """The models of which this feature table and others complete the days."""
        several = [model for model in self.models.values() if len(model.features) > 1]
        return sorted(model.name for model in several if table in self.tables_that_start(model))


def load_project() -> Project:
    """Read every config file. Raises ConfigError with everything that contradicts another file."""
    project = read_project()
    if problems := list(find_problems(project)):
        raise ConfigError("config files contradict each other:\n  " + "\n  ".join(map(str, problems)))
    return project


def read_project() -> Project:
    """Read every config file; each is checked on its own only."""
    return Project(
        load_platform(),
        {name: load_source(name) for name in list_names("source")},
        {name: load_feature_table(name) for name in list_names("feature table")},
        {name: load_model(name) for name in list_names("model")},
    )


def source_file(name: str) -> str:
    return f"config/sources/{name}.yaml"


def feature_file(name: str) -> str:
    return f"config/features/{name}.yaml"


def model_file(name: str) -> str:
    return f"config/models/{name}.yaml"


def find_problems(project: Project) -> Iterator[Problem]:
    """What is wrong between files, each in one sentence."""
    yield from _repeated_tables(project)
    yield from _repeated_names(project)
    for table in project.feature_tables.values():
        yield from _inputs_of(project, table)
    for model in project.models.values():
        yield from _layers_of(model)
        yield from _rows_of(project, model)
        yield from _label_of(project, model)
        yield from _zones_of(project, model)
    yield from _repeated_connections(project)


def one_of(name: str, known: Collection[str]) -> str:
    """The end of a message about an unknown name: what it may have been meant to be, or all that there are."""
    if close := get_close_matches(name, known, n=1, cutoff=0.75):
        return f"did you mean {close[0]}?"
    return f"there are: {', '.join(sorted(known)) or 'none'}"


def _repeated_tables(project: Project) -> Iterator[Problem]:
    """Tables that two nodes would write: they would overwrite each other's days in turn."""
    writers: dict[str, list[tuple[str, str]]] = {}
    for source in project.sources.values():
        place = source_file(source.source)
        for table in (source.table, source.quarantine):
            writers.setdefault(table, []).append((place, "source"))
        for table in source.daily:
            writers.setdefault(table, []).append((place, f"daily.{table}"))
    for features in project.feature_tables.values():
        writers.setdefault(features.table_name, []).append((feature_file(features.table), "table"))
    for model in project.models.values():
        for key in ("train", "score", "monitor"):
            writers.setdefault(getattr(model, key).table, []).append((model_file(model.model), f"{key}.table"))
    for table, places in writers.items():
        (file, key), *rest = places
        if rest:
            others = " and ".join(f"{other} ({its_key})" for other, its_key in rest)
            message = f"{table} is also written by {others}; give each of them a table of its own"
            yield Problem(file, key, message, tuple(other for other, _ in rest))


def _repeated_names(project: Project) -> Iterator[Problem]:
    """Names that would give two Airflow assets, or two nodes, the same name."""
    for name in project.models:
        if name in project.feature_tables:
            yield Problem(
                model_file(name),
                "model",
                f"{name} is also a feature table, and both would have the asset {name}.ready; rename one of them",
                (feature_file(name),),
            )
        if name in RESERVED_MODELS:
            yield Problem(model_file(name), "model", f"{name} is the name of a layer of the lake; choose another name")


def _inputs_of(project: Project, table: FeatureTableConfig) -> Iterator[Problem]:
    file = feature_file(table.table)
    zones: dict[str, str] = {}
    for name, edge in table.inputs.items():
        key = f"inputs.{name}"
        source = project.source_by_table.get(name)
        if source is None:
            yield Problem(file, key, f"no source writes this table; {one_of(name, project.source_by_table)}")
            continue
        other = (source_file(source.source),)
        if source.kind == "facts":
            zones.setdefault(source.timezone, name)
            if edge.window is None:
                yield Problem(file, key, "facts need a window, such as {back: all} or {back: 90d}; add it", other)
            if edge.max_age is not None:
                yield Problem(file, f"{key}.max_age", "only snapshots have an age, these are facts; remove it", other)
        elif edge.window is not None:
            message = "a snapshot is joined as known on the day; remove the window, max_age limits how old it may be"
            yield Problem(file, f"{key}.window", message, other)
    if len(zones) > 1:
        listed = ", ".join(f"{name} ({zone})" for zone, name in zones.items())
        message = f"facts of different time zones: {listed}; their days are not the same days, so use one time zone"
        yield Problem(file, "inputs", message, _files_of(project, table.inputs))
    if not zones and all(name in project.source_by_table for name in table.inputs):
        message = "all are snapshots; add a table of facts, which says what days there are"
        yield Problem(file, "inputs", message, _files_of(project, table.inputs))


def _files_of(project: Project, tables: Collection[str]) -> tuple[str, ...]:
    sources = (project.source_by_table[table] for table in tables if table in project.source_by_table)
    return tuple(dict.fromkeys(source_file(source.source) for source in sources))


def _layers_of(model: ModelConfig) -> Iterator[Problem]:
    for key in ("train", "score", "monitor"):
        layer = getattr(model, key).table.partition(".")[0]
        if layer in SYSTEM_LAYERS:
            message = f"a model writes no table in {layer}; use features for training sets and gold for the others"
            yield Problem(model_file(model.model), f"{key}.table", message)


def _rows_of(project: Project, model: ModelConfig) -> Iterator[Problem]:
    file = model_file(model.model)
    if model.examples is not None:
        table, source = model.examples.table, project.source_by_table.get(model.examples.table)
        if source is None:
            message = f"no source writes {table}; {one_of(table, project.source_by_table)}"
            yield Problem(file, "examples.table", message)
        elif source.kind == "snapshot":
            message = f"{table} is a snapshot, which repeats its rows each time; examples are rows of facts"
            yield Problem(file, "examples.table", message, (source_file(source.source),))
    for name in model.features:
        table_config = project.feature_tables.get(name)
        if table_config is None:
            message = f"no such feature table; {one_of(name, project.feature_tables)}"
            yield Problem(file, f"features.{name}", message)
        elif table_config.entity != model.entity:
            message = (
                f"its rows are by {table_config.entity}, the model's are by {model.entity}; "
                f"use a table by {model.entity}"
            )
            yield Problem(file, f"features.{name}", message, (feature_file(name),))


def _label_of(project: Project, model: ModelConfig) -> Iterator[Problem]:
    file = model_file(model.model)
    shorts = Counter(name.rpartition(".")[2] for name in model.label.inputs)
    for name in model.label.inputs:
        source = project.source_by_table.get(name)
        if source is None:
            message = f"no source writes {name}; {one_of(name, project.source_by_table)}"
            yield Problem(file, "label.inputs", message)
            continue
        other = (source_file(source.source),)
        if source.kind == "snapshot":
            message = f"{name} is a snapshot; a label looks at dated facts, so use a table of facts"
            yield Problem(file, "label.inputs", message, other)
        short = name.rpartition(".")[2]
        if short == "population" or shorts[short] > 1:
            message = f"{name} is called {short} in the query, as another input is; rename the table"
            yield Problem(file, "label.inputs", message, other)


def _zones_of(project: Project, model: ModelConfig) -> Iterator[Problem]:
    """Days of the features and of the label must be the same days."""
    tables = [project.feature_tables[name] for name in model.features if name in project.feature_tables]
    names = dict.fromkeys((*(name for table in tables for name in table.inputs), *model.label.inputs))
    known = {name: project.source_by_table[name] for name in names if name in project.source_by_table}
    zones = {name: source.timezone for name, source in known.items() if source.kind == "facts"}
    if len(set(zones.values())) > 1:
        listed = ", ".join(f"{name} ({zone})" for name, zone in zones.items())
        message = f"its feature tables and label are from facts of different time zones: {listed}; use one time zone"
        files = (*(feature_file(table.table) for table in tables), *_files_of(project, zones))
        yield Problem(model_file(model.model), "features", message, files)


def _repeated_connections(project: Project) -> Iterator[Problem]:
    models: dict[str, list[str]] = {}
    for model in project.models.values():
        if model.report is not None:
            models.setdefault(model.report.connection, []).append(model.model)
    for connection, (name, *rest) in models.items():
        if rest:
            message = f"{connection} is also that of {', '.join(rest)}; each model refreshes a dataset of its own"
            yield Problem(model_file(name), "report.connection", message, tuple(map(model_file, rest)))
