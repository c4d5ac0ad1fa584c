"""The recipe of a feature table: how its rows are computed, as a digest that the journal records."""

from __future__ import annotations

import hashlib
import json

from ml.config import FeatureTableConfig
from ml.engine import query


def table_recipe(table: FeatureTableConfig) -> str:
    """How the rows are computed: a digest that changes with query, settings and windows, and the revision.

    Comments and the layout of the query's text do not count. Form: 16 hex digits, `-r` and the revision.
    """
    edges = {
        name: {"window": edge.window.model_dump(mode="json") if edge.window else None, "max_age": edge.max_age}
        for name, edge in table.inputs.items()
    }
    parts = [query.load(table.query).normalised, table.settings, edges, table.entity]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    return f"{digest}-r{table.rebuild.revision}"


def revision_of(recipe: str) -> int | None:
    """The revision that a recipe names; None in entries that were written before recipes had one."""
    _, separator, revision = recipe.rpartition("-r")
    return int(revision) if separator and revision.isdigit() else None
