"""The rows of a model for a day: who is in its population, with the columns that it learns from.

The rows come from feature tables, joined on entity and day, or from a table of examples. A feature table's rows for a day
are read from its stored partition (scoring, drift), or computed privately from pinned versions of its inputs (training);
both ways are joined here, so training, scoring and drift see an entity in the same form.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Protocol

from ml.config import ModelConfig, Project
from ml.config.features import family_of
from ml.config.sections import Population
from ml.engine import Engine, QueryError, open_engine, query
from ml.errors import StageError
from ml.features.compute import compute_features, require_unique
from ml.models.frames import Feature, check_columns
from ml.ops import built_days
from ml.storage import tables

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds


@dataclass(frozen=True)
class Pins:
    """What a version of a model reads: columns by feature table (of a model of examples: by table in silver), and who."""

    features: Mapping[str, tuple[str, ...]]
    population: Population | None = None  # None: all rows of the first table

    @property
    def is_of_examples(self) -> bool:
        return any("." in name for name in self.features)

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(column for columns in self.features.values() for column in columns)


def pins_of(config: ModelConfig) -> Pins:
    """What the model's file pins now; a version in production keeps what it was trained with."""
    if config.examples is not None:
        return Pins({config.examples.table: config.examples.columns})
    return Pins(config.features, config.population)


@dataclass(frozen=True)
class ModelRows:
    """Rows sorted by entity: entity, as_of, then the features in the model's order."""

    rows: pa.Table
    versions: Mapping[str, int]  # of the tables that were read


def model_rows(
    config: ModelConfig,
    project: Project,
    day: date,
    *,
    pins: Pins | None = None,
    features: Sequence[Feature] = (),
) -> ModelRows:
    """The rows of a model for a day, from the newest version of each table.

    `pins`: what a version reads (default: what the model's file says). `features`: the model's input columns with their
    kinds. Raises StageError when a table has no rows for the day, when nobody is in the population, or when a column is
    missing or of another kind.
    """
    pins = pins or pins_of(config)
    if pins.is_of_examples:
        return _examples_of_day(config, project, day, pins, features)
    stored = StoredPartitions(features)
    rows = join_rows(open_engine(), config, stored, day, pins)
    return ModelRows(rows, stored.versions)


class Partitions(Protocol):
    """Gives the rows of a feature table, by its name in `config/features`, for a day."""

    def read(self, name: str, day: date, columns: Sequence[str]) -> pa.Table | ds.Dataset:
        """Rows that have at least these columns. Raises StageError when there are none, or a column is missing."""


class StoredPartitions:
    """Reads the partitions that the nodes have written; each table in one version."""

    def __init__(self, features: Sequence[Feature] = ()) -> None:
        self.versions: dict[str, int] = {}
        self._features = {feature.name: feature for feature in features}
        self._opened: dict[str, ds.Dataset] = {}

    def read(self, name: str, day: date, columns: Sequence[str]) -> ds.Dataset:
        import pyarrow.dataset as ds

        table = f"features.{name}"
        do = f"run the stage 'features' --table {name} for {day} first"
        if table not in self._opened:
            if not tables.exists(table):
                raise StageError(f"{table} does not exist at {tables.uri(table)}: {do}")
            opened = tables.table(table)
            self.versions[table], self._opened[table] = opened.version(), tables.scan(opened)
        where = f"{table} version {self.versions[table]}"
        rows = self._opened[table]
        _require_columns(rows.schema, columns, where)
        check_columns(rows.schema, [self._features[c] for c in columns if c in self._features], where)
        of_day = rows.filter(ds.field("as_of") == day)
        if of_day.count_rows() == 0 and day not in built_days.read_newest([table], day)[table]:
            raise StageError(f"{where} has no rows for {day}: {do}")
        return of_day


class ComputedPartitions:
    """Computes each partition from pinned versions of its inputs, once; nothing is written."""

    def __init__(self, engine: Engine, project: Project, versions: Mapping[str, int]) -> None:
        self._engine, self._project, self._versions = engine, project, versions
        self._computed: dict[tuple[str, date], pa.Table] = {}

    def read(self, name: str, day: date, columns: Sequence[str]) -> pa.Table:
        if (name, day) not in self._computed:
            if any(known != day for _, known in self._computed):
                self._computed.clear()  # days are requested in turn; one day is held in memory
            table = self._project.feature_tables[name]
            self._computed[name, day] = compute_features(self._engine, self._project, table, day, self._versions)
        rows = self._computed[name, day]
        _require_columns(rows.schema, columns, f"include/sql/{self._project.feature_tables[name].query}.sql")
        return rows


def join_rows(engine: Engine, config: ModelConfig, partitions: Partitions, day: date, pins: Pins) -> pa.Table:
    """The population's rows of the first feature table, with those of the others joined to them.

    An entity that another table does not have gets NULL there. Raises StageError when nobody is in the population.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    entity = config.entity
    names = list(pins.features)
    first = _in_memory(partitions.read(names[0], day, pins.features[names[0]]), [entity, *pins.features[names[0]]])
    if not first.num_rows:
        raise StageError(f"features.{names[0]} has no rows as of {day}: there is nobody to learn from or to score")
    if pins.population is not None:
        members = _population(engine, config, partitions, day, pins)
        chosen = first.filter(pc.is_in(first[entity], value_set=members[entity].combine_chunks()))
        if not chosen.num_rows:
            raise StageError(
                f"include/sql/{pins.population.query}.sql: none of the {first.num_rows} rows of features.{names[0]} as of "
                f"{day} is in the population of {config.model}"
            )
        first = chosen
    columns = {entity: first[entity], "as_of": pa.repeat(pa.scalar(day, pa.date32()), first.num_rows)}
    columns |= {name: first[name] for name in pins.features[names[0]]}
    for name in names[1:]:
        other = _in_memory(partitions.read(name, day, pins.features[name]), [entity, *pins.features[name]])
        places = pc.index_in(first[entity], value_set=other[entity].cast(first[entity].type).combine_chunks())
        columns |= {column: other[column].take(places) for column in pins.features[name]}
    return pa.table(columns).sort_by(entity)


def _population(engine: Engine, config: ModelConfig, partitions: Partitions, day: date, pins: Pins) -> pa.Table:
    """The rows (entity, as_of) that the population query gives for a day."""
    assert pins.population is not None
    name, settings = pins.population.query, pins.population.settings
    where = f"include/sql/{name}.sql"
    try:
        loaded = query.load(name)
        named = names_in_population(pins.features)
        inputs = {short: partitions.read(table, day, ()) for short, table in named.items() if short in loaded.tables}
        values = {key: value for key, value in {"as_of": day, **settings}.items() if key in loaded.parameters}
        rows = engine.run(name, inputs, values)
    except QueryError as error:
        raise StageError(f"models/{config.model}.yaml: population: {error}") from error
    if missing := [column for column in (config.entity, "as_of") if column not in rows.schema.names]:
        raise StageError(f"{where} gives {', '.join(rows.schema.names)}: a population has {', '.join(missing)} too")
    return rows


def names_in_population(tables: Collection[str]) -> dict[str, str]:
    """The names that a population query may use for a model's feature tables, and the table of each.

    `<name>_v2` is also `<name>`, unless the model reads another version too: so one query serves the version that
    is in production and the one that takes its place.
    """
    families = Counter(map(family_of, tables))
    names = {family_of(table): table for table in tables if families[family_of(table)] == 1}
    return names | {table: table for table in tables}


def examples_until(config: ModelConfig, last: date, version: int, *, first: date | None = None) -> pa.Table:
    """The rows of a model's table of examples up to a day: entity, as_of, features and label, sorted by as_of and entity.

    Raises StageError for a missing column, or an entity that occurs twice on a day.
    """
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    assert config.examples is not None
    table = config.examples.table
    columns = [config.entity, *config.examples.columns, config.label.name]
    stored = tables.dataset(table, version)
    where = f"{table} version {version}"
    _require_columns(stored.schema, columns, where)
    wanted = ds.field("day") <= last
    if first is not None:
        wanted &= ds.field("day") >= first
    rows = stored.to_table(columns=["day", *columns], filter=wanted)
    rows = rows.rename_columns(["as_of" if name == "day" else name for name in rows.column_names])
    keys = rows.group_by([config.entity, "as_of"]).aggregate([([], "count_all")])
    repeated = keys.filter(pc.greater(keys["count_all"], 1))
    if repeated.num_rows:
        row = repeated.slice(0, 1).to_pylist()[0]
        raise StageError(
            f"{where}: {config.entity} {row[config.entity]!r} has {row['count_all']} rows on {row['as_of']}; a table of "
            f"examples has one row per {config.entity} and day"
        )
    order = [config.entity, "as_of", *config.examples.columns, config.label.name]
    sorted_rows: pa.Table = rows.select(order).sort_by([("as_of", "ascending"), (config.entity, "ascending")])
    return sorted_rows


def _examples_of_day(
    config: ModelConfig, project: Project, day: date, pins: Pins, features: Sequence[Feature]
) -> ModelRows:
    """All examples of a day, whether their label is known or not."""
    import pyarrow as pa
    import pyarrow.dataset as ds

    (table,) = pins.features
    if not tables.exists(table):
        source = project.source_of(table).source
        raise StageError(f"{table} does not exist at {tables.uri(table)}: run ingest --source {source} for {day} first")
    opened = tables.table(table)
    stored, where = tables.scan(opened), f"{table} version {opened.version()}"
    columns = [config.entity, *pins.columns]
    _require_columns(stored.schema, columns, where)
    check_columns(stored.schema, features, where)
    rows = stored.to_table(columns=columns, filter=ds.field("day") == day)
    if not rows.num_rows:
        raise StageError(f"{where} has no rows for {day}: ingest the day first")
    require_unique(rows, config.entity, f"{where}, on {day}")
    as_of = pa.repeat(pa.scalar(day, pa.date32()), rows.num_rows)
    return ModelRows(rows.add_column(1, "as_of", as_of).sort_by(config.entity), {table: opened.version()})


def _require_columns(schema: pa.Schema, columns: Sequence[str], where: str) -> None:
    if missing := [column for column in columns if column not in schema.names]:
        raise StageError(
            f"{where} does not fit the model: column {' and column '.join(missing)} is missing; it has "
            f"{', '.join(schema.names)}"
        )


def _in_memory(rows: pa.Table | ds.Dataset, columns: Sequence[str]) -> pa.Table:
    import pyarrow as pa

    return rows.select(list(columns)) if isinstance(rows, pa.Table) else rows.to_table(columns=list(columns))
