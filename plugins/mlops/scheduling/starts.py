"""What starts the days of feature tables and models: one asset where one node brings all, else `ready`.

A Dag that waits for several assets at once (`&`) would wait for ever when one of them is emitted again. A Dag that
starts on any of several would run a day once for each. So the node that completes a day's inputs emits `ready`: each
writes its own state first, then looks at all inputs (`ml.days.completeness`), so the last one sees them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from mlops.scheduling.assets import model_assets, source_assets, table_assets

if TYPE_CHECKING:
    from airflow.sdk import Asset, Context

    from ml.config import FeatureTableConfig, ModelConfig, Project


def starts_of_table(project: Project, table: FeatureTableConfig) -> list[Asset]:
    """The assets of which each starts a day of a feature table, without `restate`."""
    sources = project.sources_that_start(table)
    return [source_assets(sources[0]).ingested] if len(sources) == 1 else [table_assets(table.name).ready]


def starts_of_model(project: Project, model: ModelConfig) -> list[Asset]:
    """The assets of which each starts the scores of a day, without `rescore`."""
    if model.examples is not None:
        return [source_assets(project.source_of(model.examples.table).name).ingested]
    if len(model.features) > 1:
        return [model_assets(model.name).ready]
    return [table_assets(name).featured for name in project.tables_that_start(model)]


def emit_days(context: Context, days: Mapping[Asset, Iterable[date | str]], nothing: str) -> None:
    """Emit the days of each asset with the task's success. Skips the task, saying `nothing`, when there are none."""
    listed = {asset: [str(day) for day in of_asset] for asset, of_asset in days.items()}
    listed = {asset: of_asset for asset, of_asset in listed.items() if of_asset}
    if not listed:
        raise AirflowSkipException(nothing)
    events: Any = context["outlet_events"]
    for asset, of_asset in listed.items():
        events[asset].add_partitions(of_asset)
    # Airflow emits an event for every outlet of the task; for an asset without days it would carry the run's own.
    context["task"].outlets = list(listed)
