"""What may change in a feature table that models read: a column may be added; all others keep name, type and values.

A dropped or retyped column, or other values for the same inputs, would change the input of models in production without
their having learnt it. Such a change is another version of the table beside this one: a file and a table of its own.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING

from ml.config import FeatureTableConfig
from ml.engine import QueryError, types
from ml.errors import StageError
from ml.features.compare import align, differing_rows, first_difference
from ml.features.recipe import revision_of
from ml.graph import Contents, Input
from ml.ops import ingested_days
from ml.ops.built_days import BuiltDay
from ml.ops.ingested_days import INGESTED_DAYS, IngestedDay
from ml.storage import tables

if TYPE_CHECKING:
    import pyarrow as pa

    from ml.days.state import State

log = logging.getLogger(__name__)

MOST_TRIED = 20  # newest built days among which one with unchanged inputs is looked for


def check_columns_stay(table: FeatureTableConfig, rows: pa.Table) -> None:
    """Raise StageError when the stored table has a column that `rows` lack, or that has another type there."""
    if not tables.exists(table.table_name):
        return
    stored = tables.dataset(table.table_name).schema
    problems = []
    for name in stored.names:
        if name not in rows.schema.names:
            problems.append(f"no longer gives the column {name}")
        elif (before := _plain(stored, name)) != (now := _plain(rows.schema, name)):
            problems.append(f"gives {name} as {now}, which is stored as {before}")
    if problems:
        raise StageError(
            f"include/sql/{table.query}.sql {' and '.join(problems)} in {table.table_name}. {_remedy(table)}"
        )


def day_to_compare(
    table: FeatureTableConfig, journal: Mapping[date, BuiltDay], recipe: str, state: State
) -> BuiltDay | None:
    """The entry of the newest day that shows whether a changed recipe gives other values; None when none is needed.

    Nothing is compared when the last build had this recipe, or when the revision was raised since.
    """
    if not journal:
        return None
    last = max(journal.values(), key=lambda entry: (entry.version, entry.at))
    if last.recipe == recipe or (revision_of(recipe) or 1) > (revision_of(last.recipe) or 1):
        return None
    built = sorted((entry for entry in journal.values() if entry.rows and entry.recipe != recipe), key=lambda e: e.day)
    for entry in reversed(built[-MOST_TRIED:]):
        if _is_unchanged(state, table, entry):
            return entry
    log.warning(
        "%s: its query or settings have changed, and no built day has the inputs that it was built from: whether "
        "stored columns keep their values is not known",
        table.table_name,
    )
    return None


def _is_unchanged(state: State, table: FeatureTableConfig, entry: BuiltDay) -> bool:
    """Are the inputs of a built day what they were? Its input digest tells that, unless the windows have changed, too."""
    from deltalake.exceptions import DeltaError

    node = table.table_name
    if entry.inputs == state.inputs(node, entry.day).digest:
        return True
    try:
        then = ingested_days.read_all_ingested_days(entry.sources[INGESTED_DAYS])
    except (DeltaError, OSError, KeyError):  # vacuum has removed the version that it was built from
        return False
    read = [each for each in state.graph.nodes[node].inputs if each.table in entry.sources]
    return bool(read) and all(not input_changes(state, each, entry.day, then, whole=True) for each in read)


def input_changes(
    state: State, each: Input, day: date, then: Mapping[str, Mapping[date, IngestedDay]], *, whole: bool = False
) -> list[date]:
    """The days of an input, ingested as in `then`, that have changed since and reach `day`; of a snapshot, that in force.

    `whole`: the days before its window count, too.
    """
    marks = then.get(state.graph.nodes[each.node].name, {})
    before = Contents(
        {known: mark.contents[each.table] for known, mark in marks.items() if each.table in mark.contents}
    )
    now = state.contents[each.table]
    if each.kind == "facts":
        return now.changed_since(before.by_day, day, None if whole else each.back)
    was, is_now = (contents.in_force(day, each.max_age) for contents in (before, now))
    content_before, content_now = (before.by_day[was] if was else ""), (now.by_day[is_now] if is_now else "")
    return [] if content_before == content_now else [is_now or was or day]


def check_values_stay(table: FeatureTableConfig, day: date, computed: pa.Table) -> None:
    """Raise StageError when the changed recipe gives a day, whose inputs are unchanged, other rows than are stored.

    A stored column that is NULL in all of the day's rows is not compared: it was added after the day was built.
    """
    import pyarrow.dataset as ds

    stored = tables.read(table.table_name, where=ds.field("as_of") == day)
    changed = f"include/sql/{table.query}.sql or its settings in features/{table.table}.yaml have changed, and now give"
    aligned, missing = align(stored, computed, table.entity)
    if missing.any() or stored.num_rows != computed.num_rows:
        raise StageError(
            f"{changed} {computed.num_rows} rows as of {day}, of which {stored.num_rows - int(missing.sum())} are among the "
            f"{stored.num_rows} that {table.table_name} has. {_remedy(table)}"
        )
    for name in stored.schema.names:
        if name in (table.entity, "as_of") or stored[name].null_count == stored.num_rows:
            continue
        differs = differing_rows(stored[name], aligned[name])
        if differs.any():
            place, before, now = first_difference(stored, aligned, name, differs)
            raise StageError(
                f"{changed} {int(differs.sum())} of {stored.num_rows} rows as of {day} another {name}: {table.entity} "
                f"{stored[table.entity][place].as_py()!r} has {before!r} in {table.table_name}, and now {now!r}. "
                f"{_remedy(table)}"
            )


def _remedy(table: FeatureTableConfig) -> str:
    match = re.search(r"_v(\d+)$", table.table, re.ASCII)
    following = f"{table.family}_v{int(match.group(1)) + 1 if match else 2}"
    return (
        f"Models read it as it is: copy features/{table.table}.yaml and its query to {following}, change those, and pin "
        f"{following} in the models that need it. (If the stored values are wrong, raise rebuild.revision instead: then the "
        "table's values may change.)"
    )


def _plain(schema: pa.Schema, name: str) -> str:
    """The type of a column, as engines give it."""
    try:
        return str(types.to_plain(schema.empty_table().select([name]), name).schema.field(name).type)
    except QueryError:
        return str(schema.field(name).type)
