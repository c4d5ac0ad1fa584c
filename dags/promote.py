"""Decides whether the challenger goes into production: the gate first, then people where config asks them.

**What it does.** `decide` checks every rule of `gate` in the model's config on the challenger's evaluation and records
the decision with all its reasons; what was not measured counts as failed. A rejection is a skip: the run is green and
the champion stays. Where `approval` names roles for this environment, `ask_approval` waits for a person who has one of
them (Airflow → the task → **Required Actions**). That person sees the numbers, the rules and the report. No answer in
time is a rejection. The next version waits meanwhile, because the answer may change the champion that it is compared
with. `promote_version` records the answer and puts an approved version into production, as one atomic step: of two
promotions at the same time, one wins.

**Why was it rejected?** The logs and XComs of `decide` and `ask_approval` hold every reason; `ops.decisions` keeps
them: `python -m ml registry --model <model> history`.

**When it fails.** Clear the failed task. It completes what was begun; nothing is done twice.

**By hand.** Trigger it with `version`. No run passes without the gate: to change its decision, change the rule in
config, with the reason. To return to the previous champion: `<model>_rollback`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import DAG, Param, task

from mlops.scheduling.assets import model_assets
from mlops.tasks.approval import RoleApprovalOperator
from mlops.tasks.defaults import dag_arguments, models_to_build

if TYPE_CHECKING:
    from ml.config import ModelConfig


def build(model: ModelConfig) -> None:
    assets = model_assets(model.name)
    params = {
        "version": Param(
            None, type=["null", "integer"], minimum=1, description="registered version; default: the newest"
        ),
    }

    with DAG(
        schedule=[assets.challenger], max_active_runs=1, params=params, **dag_arguments(model, "promote", __doc__)
    ):

        @task(multiple_outputs=True)
        def decide(name: str, *, params, triggering_asset_events, **context) -> dict:
            from airflow.sdk.exceptions import AirflowSkipException

            from ml.promote import approval, gate_decision
            from remote.run_keys import requester_of

            version = params["version"]
            if version is None:
                version = triggering_asset_events[assets.challenger][-1].extra["version"]
            decision = gate_decision.decide_version(name, str(version), **requester_of(context))
            if not decision["approved"]:
                raise AirflowSkipException(f"{name} version {version} is rejected: {'; '.join(decision['reasons'])}")
            return decision | {"question": approval.build_question(name, decision["id"])}

        @task(multiple_outputs=True, outlets=[assets.champion])
        def promote_version(name: str, decision: dict, answer: dict | None, **context) -> dict:
            from airflow.sdk.exceptions import AirflowSkipException

            from ml.promote import approval, promotion
            from remote.run_keys import requester_of, run_key

            if answer is not None:
                approval.record_answer(name, decision["id"], answer, run=requester_of(context)["run"])
                if not answer["approved"]:
                    raise AirflowSkipException(
                        f"{name} version {decision['version']} is rejected: {'; '.join(answer['reasons'])}"
                    )
            return promotion.promote_version(
                name, decision["version"], run_key=run_key(context), **requester_of(context)
            )

        decision = decide(model.name)
        ask_approval = RoleApprovalOperator(task_id="ask_approval", question=decision["question"])
        promote_version(model.name, decision, ask_approval.output)


for each_model in models_to_build("promote"):
    build(each_model)
