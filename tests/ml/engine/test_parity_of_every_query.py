"""Every query of the project, and of the example businesses, over random rows: the same on DuckDB and on Spark."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest

from ml.config import load_project
from tests.support.data.businesses import BUSINESSES, install
from tests.support.data.random_rows import Walk, all_queries
from tests.support.resources import Resources


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("business", [None, *BUSINESSES], ids=["the-project-itself", *BUSINESSES])
def test_every_query_over_random_rows(
    both: Callable[..., pa.Table], resources: Resources, business: str | None, seed: int
) -> None:
    if business:
        install(resources, business)
    walk = Walk(load_project(), both, seed)
    walk.everything()
    assert walk.queries == all_queries()
    for table, rows in walk.silver.items():
        assert rows.num_rows > 200, table
    for name, days in walk.features.items():
        assert all(rows.num_rows > 10 for rows in days), name
