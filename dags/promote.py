"""May the challenger become champion? The gate decides, then the alias moves.

**What it does.** `decide` tries every rule of `gate` in the model's config on the challenger's evaluation and
records the decision with all its reasons; what was not measured counts as failed. A rejection is a skip: the
run is green and the old champion stays. `move_alias` makes an approved version the champion.

**Why was it rejected?** The log and the XCom of `decide` tell every reason; `ops.decisions` and the version's
tags in MLflow keep them.

**Back.** Triggered with `back`, which says why, the champion is taken out for good and the version that served
before is champion again. Score the days that must change with `<model>_on_champion`.

**By hand.** Trigger it with `version`. There is no way past the gate: change the rule in config, with its reason.
"""

from airflow.sdk import DAG, Param, task

from ml import config
from mlops.assets import assets_of
from mlops.defaults import dag_arguments


def build(model: config.Model) -> None:
    assets = assets_of(model.model)
    params = {
        "version": Param(
            None, type=["null", "integer"], minimum=1, description="registered version; default: the newest"
        ),
        "back": Param(
            None,
            type=["null", "string"],
            minLength=1,
            maxLength=500,
            description="why the version before shall be champion again",
        ),
    }

    with DAG(
        schedule=[assets.challenger], max_active_runs=1, params=params, **dag_arguments(model, "promote", __doc__)
    ):

        @task
        def decide(name: str, *, params, triggering_asset_events) -> dict:
            from airflow.sdk.exceptions import AirflowSkipException

            from ml import gate

            if params["back"] is not None:
                return {"back": params["back"]}
            version = params["version"]
            if version is None:
                version = triggering_asset_events[assets.challenger][-1].extra["version"]
            decision = gate.decide_version(name, str(version))
            if not decision["approved"]:
                raise AirflowSkipException(f"{name} version {version} stays out: {'; '.join(decision['reasons'])}")
            return decision

        @task(outlets=[assets.champion])
        def move_alias(name: str, decision: dict, **context) -> dict:
            from ml import promote, take_back
            from mlops.run_keys import run_key

            if "back" in decision:
                return take_back.take_back(name, decision["back"], run_key=run_key(context))
            return promote.promote_version(name, decision["version"], run_key=run_key(context))

        move_alias(model.model, decide(model.model))


for each_model in config.load_all():
    build(each_model)
