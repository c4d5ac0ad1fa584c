"""The rows of a model that learns from a table of examples, split into training and test rows by day or by key."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from ml.config import ModelConfig
from ml.errors import StageError

if TYPE_CHECKING:
    import pyarrow as pa


def require_labels(config: ModelConfig, rows: pa.Table) -> tuple[pa.Table, int]:
    """The rows whose label is known, with the label as 0 or 1, and how many have none yet.

    Raises StageError when none has one, or the label is no number.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    assert config.examples is not None
    name, table = config.label.name, config.examples.table
    known = rows.filter(rows[name].is_valid())
    if not known.num_rows:
        raise StageError(f"{table}: none of the {rows.num_rows} rows has a {name}: there is nothing to learn from")
    try:
        labels = known[name].cast(pa.int64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        values = pc.unique(known[name]).to_pylist()[:3]
        raise StageError(
            f"{table}: {name} holds {values}: the source's cleaning query must give 0, 1 or NULL"
        ) from None
    return known.set_column(known.schema.get_field_index(name), name, labels), rows.num_rows - known.num_rows


def split_examples(config: ModelConfig, rows: pa.Table) -> pa.Array:
    """'train' or 'test' per row: the newest days are the test, or a share of the keys, whatever their day.

    The side of a key depends on the key alone, so that all its rows are on one side, in each training set. Raises
    StageError when there is one day only and the split is by day.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    assert config.examples is not None
    split = config.examples.split
    if split.by == "key":
        sides = {key: _side(key, split.test_share) for key in pc.unique(rows[config.entity]).to_pylist()}
        return pa.array([sides[key] for key in rows[config.entity].to_pylist()], pa.string())
    days = sorted(pc.unique(rows["as_of"]).to_pylist())
    if len(days) < 2:
        raise StageError(
            f"{config.examples.table}: all {rows.num_rows} labelled rows are of {days[0]}: a split by day needs two days. "
            "Set examples.split.by to key, or wait for more days"
        )
    first = newest_days(days, split.test_share)[0]
    is_test = pc.greater_equal(rows["as_of"], pa.scalar(first, pa.date32()))
    sides_by_day: pa.Array = pc.if_else(is_test, "test", "train").combine_chunks()
    return sides_by_day


def newest_days(days: Sequence[date], share: float) -> Sequence[date]:
    """This share of at least two days, the newest ones: at least one, and not all. `days` are in order."""
    return days[-min(len(days) - 1, max(1, round(share * len(days)))) :]


def _side(key: Any, test_share: float) -> str:
    number = int.from_bytes(hashlib.blake2b(str(key).encode(), digest_size=8).digest())
    return "test" if number < test_share * 2**64 else "train"
