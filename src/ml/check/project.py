"""Checks the whole project: files against each other first, then each query, from the sources down to the models."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ml.check.engines import Engines, open_engines
from ml.check.expectations import check_suites
from ml.check.feature_tables import check_feature_table, table_files
from ml.check.findings import Findings, name_files, query_file
from ml.check.models import check_model, model_files
from ml.check.queries import Queries
from ml.check.reading import read_files
from ml.check.sources import check_source
from ml.check.text import Text, load_text
from ml.config import Project, SourceConfig
from ml.config.project import Problem, find_problems, source_file
from ml.engine import QueryError

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Checked:
    """What was checked. `problems` are all that was found, `notes` what could not be checked fully."""

    problems: Sequence[Problem]
    notes: Sequence[str]
    files: int
    queries: int
    engines: Sequence[str]


def check_project(files: Collection[str] = (), *, spark: bool = True) -> Checked:
    """Check everything, or only what concerns these files (paths). Raises StageError for a path that is none of them."""
    findings = Findings(name_files(files))
    project = read_files(findings)
    if project is None:
        return Checked(findings.problems, findings.notes, 0, 0, ())
    findings.add_all(find_problems(project))
    with open_engines(spark=spark) as engines:
        _check_queries(project, engines, findings)
        if not engines.spark and spark:
            findings.notes.append(f"the queries were not run on Spark: {engines.why_no_spark}")
        names = engines.names
    count = 1 + len(project.sources) + len(project.feature_tables) + len(project.models)
    return Checked(findings.problems, findings.notes, count, len(findings.queries), names)


def _check_queries(project: Project, engines: Engines, findings: Findings) -> None:
    queries = Queries(engines, findings)
    silver: dict[str, pa.Table] = {}
    features: dict[str, pa.Table] = {}
    needed = _needed_sources(project, findings)
    for source in project.sources.values():
        if source.source in needed:
            uses = list(_uses_of(project, source))
            texts = list(_texts_of(query for query, _ in uses))
            numbers = [value for _, values in uses for value in values.values()]
            numbers += [number for text in texts for number in text.whole_numbers]
            literals = [literal for text in texts for literal in text.texts]
            silver |= check_source(queries, project, source, numbers, literals)
    for table in project.feature_tables.values():
        if not findings.concerns(_reached(project, table_files(project, table))):
            continue
        if any(name not in project.source_by_table for name in table.inputs):
            continue  # among the findings already
        rows = check_feature_table(queries, project, table, silver)
        if rows is not None:
            features[table.table] = rows
    for model in project.models.values():
        known = all(name in project.feature_tables for name in model.features)
        if known and findings.concerns(model_files(project, model)):
            check_model(queries, project, model, silver, features)
    check_suites(project, silver, findings)


def _source_files(source: SourceConfig) -> tuple[str, ...]:
    return (source_file(source.source), query_file(source.clean.query), *map(query_file, source.daily.values()))


def _reached(project: Project, files: Sequence[str]) -> set[str]:
    """The files, and those of all models and tables that are built on them: a change of either is checked against both."""
    reached = set(files)
    for model in project.models.values():
        if reached & set(model_files(project, model)):
            reached |= set(model_files(project, model))
    return reached


def _needed_sources(project: Project, findings: Findings) -> set[str]:
    """The sources whose rows are needed to check what is wanted."""
    if findings.only is None:
        return set(project.sources)
    closures = [_source_files(source) for source in project.sources.values()]
    closures += [table_files(project, table) for table in project.feature_tables.values()]
    closures += [model_files(project, model) for model in project.models.values()]
    wanted = {file for closure in closures if findings.concerns(closure) for file in closure}
    suites = {
        file.split("/")[2] for file in findings.only if file.startswith("include/expectations/") and file.count("/") > 2
    }
    common = any(file.startswith("include/expectations/") and file.count("/") == 2 for file in findings.only)
    return {
        source.source
        for source in project.sources.values()
        if common or source_file(source.source) in wanted or source.source in suites
    }


def _uses_of(project: Project, source: SourceConfig) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The queries that are built on a source, each with its settings and spans of days."""
    for query in source.daily.values():
        yield query, {}
    for table in project.feature_tables.values():
        if any(project.source_by_table.get(name) is source for name in table.inputs):
            spans = {name: edge.window.back for name, edge in table.inputs.items() if edge.window}
            yield table.query, {**table.settings, **spans}
    for model in project.models.values():
        if model.label.query and any(project.source_by_table.get(name) is source for name in model.label.inputs):
            yield model.label.query, {**model.label.settings, "horizon_days": model.label.horizon_days}


def _texts_of(queries: Iterable[str]) -> Iterator[Text]:
    for query in queries:
        with suppress(QueryError):  # reported where the query is checked
            yield load_text(query)
