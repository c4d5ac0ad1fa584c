"""Back to the previous champion: a person decides that the current one is wrong.

**What it does.** Puts the last version that has scored a day (or the earlier champion that `version` names) into
production again, excludes the wrong version for good, and records the person and the reason in `ops.decisions`. It
asks neither the gate nor another person: that version has passed both. The rollback is one atomic step; cleared or
retried, it is not done twice.

**By hand.** Trigger it with `why`. `<model>_on_champion` then scores the newest days again by itself; to score older
days again, trigger it with `first` and `last`.

**When it fails.** The error says why there is no version to return to, or that somebody else has promoted one
meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import DAG, Param, task

from mlops.scheduling.assets import model_assets
from mlops.tasks.defaults import dag_arguments, models_to_build

if TYPE_CHECKING:
    from ml.config import ModelConfig


def build(model: ModelConfig) -> None:
    assets = model_assets(model.name)
    params = {
        "why": Param(
            type="string", minLength=1, maxLength=500, description="why the champion is wrong; it is recorded"
        ),
        "version": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            description="an earlier champion; default: the last one that has scored a day",
        ),
    }

    with DAG(schedule=None, max_active_runs=1, params=params, **dag_arguments(model, "rollback", __doc__)):

        @task(multiple_outputs=True, outlets=[assets.champion])
        def roll_back(name: str, *, params, **context) -> dict:
            from ml.promote import rollback
            from remote.run_keys import requester_of, run_key

            version = None if params["version"] is None else str(params["version"])
            return rollback.roll_back(
                name, params["why"], version=version, run_key=run_key(context), **requester_of(context)
            )

        roll_back(model.name)


for each_model in models_to_build("rollback"):
    build(each_model)
