"""Back to the version that served before: the champion is wrong, and a person says so.

**What it does.** Puts the last version that really scored a day (or the earlier champion that `version` names) into
production again, takes the one that was wrong out for good, and records who said so and why in `ops.decisions`. The gate
is not asked, nor is anybody else: that version has passed both. What it does is one step; cleared or retried, it is
not done twice.

**By hand.** Trigger it with `why`. `<model>_on_champion` then scores the newest days again by itself; score older days
that must change with its `first` and `last`.

**When it fails.** The error says why there is nothing to go back to, or that somebody has promoted meanwhile.
"""

from airflow.sdk import DAG, Param, task

from ml.config import ModelConfig, load_models
from mlops.scheduling.assets import assets_of
from mlops.tasks.defaults import dag_arguments


def build(model: ModelConfig) -> None:
    assets = assets_of(model.model)
    params = {
        "why": Param(type="string", minLength=1, maxLength=500, description="why the champion is wrong; it is kept"),
        "version": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            description="an earlier champion; default: the last one that has scored a day",
        ),
    }

    with DAG(schedule=None, max_active_runs=1, params=params, **dag_arguments(model, "rollback", __doc__)):

        @task(outlets=[assets.champion])
        def roll_back(name: str, *, params, **context) -> dict:
            from ml.promote import rollback
            from remote.run_keys import asked_by, run_key

            version = None if params["version"] is None else str(params["version"])
            return rollback.roll_back(
                name, params["why"], version=version, run_key=run_key(context), **asked_by(context)
            )

        roll_back(model.model)


for each_model in load_models():
    build(each_model)
