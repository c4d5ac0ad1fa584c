"""Checks a model: the columns that it names, who is in its population, and a label that looks no further than its horizon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING

from ml.check.days import CUTOFFS
from ml.check.feature_tables import WITHOUT, table_files
from ml.check.findings import query_file
from ml.check.futures import other_futures, until
from ml.check.queries import Queries, Use
from ml.check.text import Text
from ml.config import ModelConfig, Project
from ml.config.project import model_file, one_of, source_file

if TYPE_CHECKING:
    import pyarrow as pa

    from ml.engine.interface import Value

Tables = Mapping[str, "pa.Table"]
NUMBERS = ("int64", "double", "bool")
KEY_TYPES = {"as_of": "date32[day]"}


def model_files(project: Project, model: ModelConfig) -> tuple[str, ...]:
    """The files that a model's rows depend on."""
    files = [model_file(model.model)]
    for name in model.features:
        if name in project.feature_tables:
            files += table_files(project, project.feature_tables[name])
    tables = [*model.label.inputs, *([model.examples.table] if model.examples else [])]
    for source in (project.source_by_table[name] for name in tables if name in project.source_by_table):
        files += [source_file(source.source), query_file(source.clean.query), *map(query_file, source.daily.values())]
    files += [query_file(each.query) for each in (model.population, model.label) if each and each.query]
    return tuple(dict.fromkeys(files))


def check_model(queries: Queries, project: Project, model: ModelConfig, silver: Tables, features: Tables) -> None:
    """Check a model's columns and queries against the generated rows of what it is built on."""
    if model.examples is not None:
        table = model.examples.table
        if table in silver:
            names = (model.entity, *model.examples.columns, model.label.name)
            source = project.source_of(table)
            files = (source_file(source.source), query_file(source.clean.query))
            kinds = _check_columns(queries, model, "examples.columns", table, silver[table], names, files)
            _check_uses(queries, model, kinds)
        return
    kinds = {}
    for name, columns in model.features.items():
        if name in features:
            others = table_files(project, project.feature_tables[name])
            kinds |= _check_columns(queries, model, f"features.{name}", name, features[name], columns, others)
    _check_uses(queries, model, kinds)
    if model.population is not None:
        _check_population(queries, project, model, features)
    _check_label(queries, project, model, silver, features)


def _check_columns(
    queries: Queries, model: ModelConfig, key: str, table: str, rows: pa.Table, columns: Sequence[str],
    others: Sequence[str],
) -> dict[str, str]:  # fmt: skip
    """The types of the columns that there are. Each must be a number, a bool or a text."""
    kinds: dict[str, str] = {}
    for name in columns:
        if name not in rows.schema.names:
            message = f"{table} has no column {name}; {one_of(name, rows.schema.names)}"
            queries.findings.add(model_file(model.model), key, message, *others)
            continue
        kinds[name] = str(rows.schema.field(name).type)
        if kinds[name] not in (*NUMBERS, "string"):
            message = f"{name} of {table} is {kinds[name]}; a model takes numbers, bools and texts, so give it as one"
            queries.findings.add(model_file(model.model), key, message, *others)
    return kinds


def _check_uses(queries: Queries, model: ModelConfig, kinds: Mapping[str, str]) -> None:
    """Columns of the behavioural tests, and those whose mean or median is imputed, must be numbers."""
    named = [
        (f"evaluate.behaviour {check.name}", column, "is changed by a number")
        for check in model.evaluate.behaviour
        for column in (*check.replace, *check.add, *(by for by in check.add.values() if isinstance(by, str)))
    ]
    if model.train.automl is not None:
        imputed = model.train.automl.imputation.items()
        named += [
            ("train.automl.imputation", name, f"gets its {how}") for name, how in imputed if how in ("mean", "median")
        ]
    for key, column, use in named:
        if kinds.get(column, "double") not in NUMBERS:
            message = f"{column} {use}, but it is {kinds[column]}; name a column of numbers"
            queries.findings.add(model_file(model.model), key, message)


def _check_population(queries: Queries, project: Project, model: ModelConfig, features: Tables) -> None:
    assert model.population is not None
    use = Use(
        model_file(model.model), "population.query", model.population.query,
        {name: f"features.{name}" for name in model.features}, model_files(project, model),
        model.population.settings, "population.settings", given=("as_of",),
    )  # fmt: skip
    text = queries.load(use)
    if text is None or any(name not in features for name in model.features):
        return
    first = features[next(iter(model.features))]
    for day in CUTOFFS:
        tables = {name: until(features[name], day, "as_of") for name in model.features}
        rows = queries.compare_engines(use, text, tables, {"as_of": day}, (model.entity, "as_of"))
        if rows is None or not _has_keys(queries, use, model, rows, {}):
            return
        if not _are_keys(queries, use, model, rows, _keys(until(first, day, "as_of"), model.entity)):
            return
        members = _of_day(rows, day)
        futures = {name: list(other_futures(features[name], day, "as_of")) for name in model.features}
        for place in range(min(map(len, futures.values()))):
            future = {name: versions[place][1] for name, versions in futures.items()}
            other = queries.run(use, text, future, {"as_of": day})
            how = next(iter(futures.values()))[place][0]
            why = "the population of a day depends on later days: …; read only the rows of the same as_of"
            if not queries.same_as(
                use,
                members,
                None if other is None else _of_day(other, day),
                (model.entity, "as_of"),
                (WITHOUT, how),
                why,
            ):
                return


def _check_label(queries: Queries, project: Project, model: ModelConfig, silver: Tables, features: Tables) -> None:
    label = model.label
    assert label.query is not None
    assert label.horizon_days is not None
    shorts = {name.rpartition(".")[2]: name for name in label.inputs}
    use = Use(
        model_file(model.model), "label.query", label.query,
        {"population": "population"} | dict.fromkeys(shorts, "label.inputs"), model_files(project, model),
        label.settings, "label.settings", given=("as_of", "horizon_days"), needed=("population", *shorts),
    )  # fmt: skip
    text = queries.load(use)
    first = next(iter(model.features))
    if text is None or first not in features or any(name not in silver for name in label.inputs):
        return
    for day in CUTOFFS:
        keys = _of_day(features[first], day).select([model.entity, "as_of"])
        if not _check_label_of_day(
            queries, model, use, text, keys, {name: silver[shorts[name]] for name in shorts}, day
        ):
            return


def _check_label_of_day(
    queries: Queries, model: ModelConfig, use: Use, text: Text, population: pa.Table, facts: Tables, day: date
) -> bool:
    horizon = model.label.horizon_days
    assert horizon is not None
    last = day + timedelta(horizon)
    values: Mapping[str, Value] = {"as_of": day, "horizon_days": horizon}
    keys = (model.entity, "as_of")
    tables = {"population": population} | {name: until(rows, last) for name, rows in facts.items()}
    rows = queries.compare_engines(use, text, tables, values, keys)
    if rows is None or not _has_keys(queries, use, model, rows, {model.label.name: ""}):
        return False
    if not _are_labels(queries, use, model, rows, population):
        return False
    futures = {name: list(other_futures(each, last)) for name, each in facts.items()}
    for place in range(min(map(len, futures.values()))):
        future = {name: versions[place][1] for name, versions in futures.items()}
        other = queries.run(use, text, {"population": population} | future, values)
        how = next(iter(futures.values()))[place][0]
        why = (
            f"it looks further than horizon_days ({horizon}) after as_of: …; read only days up to as_of + :horizon_days, "
            "or raise label.horizon_days"
        )
        if not queries.same_as(use, rows, other, keys, (WITHOUT, how), why):
            return False
    return True


def _has_keys(queries: Queries, use: Use, model: ModelConfig, rows: pa.Table, more: Mapping[str, str]) -> bool:
    """Whether the result has the columns entity and as_of, and these; each key once."""
    right = True
    for name in (model.entity, "as_of", *more):
        if name not in rows.schema.names:
            queries.add(use, f"it gives no column {name}; it gives {', '.join(rows.schema.names)}: add it")
            right = False
    if right and str(rows.schema.field("as_of").type) != KEY_TYPES["as_of"]:
        queries.add(use, f"it gives as_of as {rows.schema.field('as_of').type}; give as_of of the rows that it reads")
        return False
    if right and (repeated := rows.num_rows - len(_keys(rows, model.entity))):
        queries.add(use, f"it gives {repeated} rows more than keys ({model.entity}, as_of); each key needs one row")
        return False
    return right


def _are_keys(queries: Queries, use: Use, model: ModelConfig, rows: pa.Table, known: set[tuple[str, date]]) -> bool:
    """Whether a population is part of the first feature table's rows."""
    others = sorted(_keys(rows, model.entity) - known, key=str)
    if others:
        first = next(iter(model.features))
        queries.add(
            use,
            f"it gives {len(others)} keys that {first} does not have, such as {others[0][0]} as of {others[0][1]}; "
            f"choose among the rows of {first}",
        )
    return not others


def _are_labels(queries: Queries, use: Use, model: ModelConfig, rows: pa.Table, population: pa.Table) -> bool:
    """Whether each row of the population has its label, and each label is 0, 1 or NULL."""
    import pyarrow.compute as pc

    differ = _keys(rows, model.entity) ^ _keys(population, model.entity)
    if differ:
        example = sorted(differ, key=str)[0]
        queries.add(
            use,
            f"it gives {rows.num_rows} rows for the {population.num_rows} of population, such as not for {example[0]}; "
            "start from population and join the facts to it",
        )
        return False
    name = model.label.name
    others = set(pc.unique(rows[name]).to_pylist()) - {0, 1, None}
    if others:
        queries.add(
            use, f"it gives {name} as {sorted(map(str, others))[0]}; a label is 0 or 1, or NULL while not known"
        )
    return not others


def _keys(rows: pa.Table, entity: str) -> set[tuple[str, date]]:
    return set(zip(rows[entity].to_pylist(), rows["as_of"].to_pylist(), strict=True))


def _of_day(rows: pa.Table, day: date) -> pa.Table:
    import pyarrow.compute as pc

    return rows.filter(pc.equal(rows["as_of"], day))
