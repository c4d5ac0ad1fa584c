"""Feature tables that a newer version has replaced, and that nothing needs any more."""

from __future__ import annotations

import re

from ml.config import Project
from ml.days.freshness import Freshness
from ml.graph import score_id
from ml.ops.production_log import previous_version


def retired_tables(project: Project, freshness: Freshness) -> list[str]:
    """The names of the tables whose files may be deleted, ordered.

    A newer version of each exists, and neither a model's file, a champion, the version to which it would be rolled back,
    nor the scores of a day that may be rebuilt reads it.
    """
    newest: dict[str, int] = {}
    for table in project.feature_tables.values():
        newest[table.family] = max(newest.get(table.family, 0), _number(table.table))
    replaced = {name for name, table in project.feature_tables.items() if _number(name) < newest[table.family]}
    return sorted(replaced - _needed(project, freshness))


def _number(name: str) -> int:
    """2 of `customers_v2`, 1 of `customers`."""
    match = re.search(r"_v(\d+)$", name, re.ASCII)
    return int(match.group(1)) if match else 1


def _needed(project: Project, freshness: Freshness) -> set[str]:
    names = {name for model in project.models.values() for name in model.features}
    tables: set[str] = set()
    for model, scorers in freshness.state.scorers.items():
        history = scorers.history
        in_use = {history[-1].version, previous_version(history)} if history else set()
        for entry in history:
            if entry.version in in_use:
                tables.update(entry.tables or ())
        for day in freshness.newest_days(score_id(model)):
            tables.update(scorers.tables(day) or ())
    return names | {name for name, table in project.feature_tables.items() if table.table_name in tables}
