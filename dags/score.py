"""The champion's scores of the day.

**What it does.** Scores the day's active customers with the model that has the alias `champion`, and replaces the
day's partition of the scores table. Each row names the model version, feature table version and run key that produced
it. While there is no champion, it skips.

**Score a day again.** Clear its run, or backfill the day with `<model>_calendar`. A new champion scores the newest days
again by itself (`score.rescore_days`). In each case the current champion scores;
`python -m ml history gold.customer_churn_scores --day D` prints which version scored the day when, and why.
"""

from airflow.sdk import DAG

from ml.config import ModelConfig
from mlops.partitions import DAY, each_day
from mlops.scheduling.assets import assets_of
from mlops.tasks.defaults import dag_arguments, models_to_build
from mlops.tasks.stages import stage_task


def build(model: ModelConfig) -> None:
    assets = assets_of(model.model)
    with_features = each_day(assets.featured | assets.rescore)

    with DAG(schedule=with_features, max_active_runs=1, **dag_arguments(model, "score", __doc__)):
        stage_task(model, "score_customers", {"score": ["--day", DAY]}, outlets=[assets.scored])


for each_model in models_to_build("score"):
    build(each_model)
