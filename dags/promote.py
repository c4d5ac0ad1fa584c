"""May the challenger go into production? The gate decides, people agree where they are to, then it is promoted.

**What it does.** `decide` tries every rule of `gate` in the model's config on the challenger's evaluation and
records the decision with all its reasons; what was not measured counts as failed. A rejection is a skip: the
run is green and the old champion stays. Where `approval` names roles for this environment, `ask_approval` waits for a
person who has one of them (Airflow → the task → **Required Actions**), who sees the numbers, the rules and the report;
no answer in time is a rejection. Until then the next version waits its turn: the answer may change what it is to be
compared with. `promote_version` records the answer and puts an approved version into production, in one step of which
two at once have one winner.

**Why was it rejected?** The logs and XComs of `decide` and `ask_approval` tell every reason; `ops.decisions` keeps
them: `python -m ml registry history`.

**When it fails.** Clear the failed task. What was begun is completed; nothing is done twice.

**By hand.** Trigger it with `version`. There is no way past the gate: change the rule in config, with its reason.
Back to the champion before: `<model>_rollback`.
"""

from airflow.sdk import DAG, Param, task

from ml.config import ModelConfig, load_models
from mlops.scheduling.assets import assets_of
from mlops.tasks.approval import RoleApprovalOperator
from mlops.tasks.defaults import dag_arguments


def build(model: ModelConfig) -> None:
    assets = assets_of(model.model)
    params = {
        "version": Param(
            None, type=["null", "integer"], minimum=1, description="registered version; default: the newest"
        ),
    }

    with DAG(
        schedule=[assets.challenger], max_active_runs=1, params=params, **dag_arguments(model, "promote", __doc__)
    ):

        @task
        def decide(name: str, *, params, triggering_asset_events, **context) -> dict:
            from airflow.sdk.exceptions import AirflowSkipException

            from ml.promote import approval, gate_decision
            from remote.run_keys import asked_by

            version = params["version"]
            if version is None:
                version = triggering_asset_events[assets.challenger][-1].extra["version"]
            decision = gate_decision.decide_version(name, str(version), **asked_by(context))
            if not decision["approved"]:
                raise AirflowSkipException(f"{name} version {version} stays out: {'; '.join(decision['reasons'])}")
            return decision | {"question": approval.question(name, decision["id"])}

        @task(outlets=[assets.champion])
        def promote_version(name: str, decision: dict, answer: dict | None, **context) -> dict:
            from airflow.sdk.exceptions import AirflowSkipException

            from ml.promote import approval, promotion
            from remote.run_keys import asked_by, run_key

            if answer is not None:
                approval.record(name, decision["id"], answer, run=asked_by(context)["run"])
                if not answer["approved"]:
                    raise AirflowSkipException(f"{name} version {decision['version']}: {'; '.join(answer['reasons'])}")
            return promotion.promote_version(name, decision["version"], run_key=run_key(context), **asked_by(context))

        decision = decide(model.model)
        ask_approval = RoleApprovalOperator(task_id="ask_approval", question=decision["question"])
        promote_version(model.model, decision, ask_approval.output)


for each_model in load_models():
    build(each_model)
