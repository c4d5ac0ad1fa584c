"""The day's rows of a feature table: everything that it describes, as known at the end of the day.

**What it does.** Runs the table's query (`query` in config/features) on Databricks over its inputs up to the day, and
replaces the day's partition of `features.<table>`. A table that one source feeds starts when the source has ingested the
day; one that waits for several starts when the last of them has come. When something that a day was built from changes,
`arrivals` starts it again; the journal (`ops.built_days`) records which days were the reason. Where a model reads other
feature tables too, `hand_on` starts its scores if this table was the last one; it is skipped if another one is missing.

**When it fails.** The error says what is missing. Clear the run; only what is built on this table waits. If `hand_on`
fails and nobody clears it, `arrivals` starts the scores within minutes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import DAG, task

from mlops.partitions import DAY, day_of, each_day
from mlops.scheduling.assets import model_assets, table_assets
from mlops.scheduling.starts import emit_days, starts_of_table
from mlops.tasks.defaults import dag_arguments, project_to_build, tables_to_build, usable_project
from mlops.tasks.stages import stage_task

if TYPE_CHECKING:
    from ml.config import FeatureTableConfig, Project


def build(table: FeatureTableConfig, project: Project | None) -> None:
    assets = table_assets(table.name)
    starts = starts_of_table(project, table) if project else ()

    with DAG(
        schedule=each_day(*starts, assets.restate),
        max_active_runs=1,
        **dag_arguments(table, "features", __doc__),
    ):
        compute_features = stage_task(
            "compute_features", {"features": ["--as-of", DAY]}, table=table.name, outlets=[assets.featured]
        )
        models = project.models_completed_by(table.name) if project else ()
        if project and not models:
            return  # each model that reads it starts on `featured`

        @task(outlets=[model_assets(model).ready for model in models])
        def hand_on(name: str, **context) -> None:
            """Emit this day for each model whose feature tables it completes."""
            from ml.days.completeness import ready_models
            from remote.run_keys import run_key

            now, days = context["ti"].start_date, [day_of(context)]
            ready = ready_models(usable_project(), name, days, now, run_key(context))
            emit_days(
                context,
                {model_assets(model).ready: days for model, days in ready.items()},
                "no model's day is complete with it: another feature table is missing still, or has started it",
            )

        compute_features >> hand_on(table.name)


whole_project = project_to_build()
for each_table in tables_to_build("features"):
    build(each_table, whole_project)
