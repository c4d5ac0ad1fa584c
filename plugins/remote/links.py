"""Links from a task to its remote run and its report, shown in the Airflow UI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink

from remote.runs import RemoteRun

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

URL_KEY = "remote_run_url"


class RemoteRunLink(BaseOperatorLink):
    """The remote run's page on the service's own site."""

    name = "Remote run"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:  # noqa: ARG002 (Airflow's)
        from airflow.sdk.execution_time.xcom import XCom

        return XCom.get_value(key=URL_KEY, ti_key=ti_key) or ""


class ReportLink(BaseOperatorLink):
    """The report page that a job wrote: `page` in its facts."""

    name = "Report"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:  # noqa: ARG002 (Airflow's)
        from airflow.sdk.execution_time.xcom import XCom

        facts = XCom.get_value(key="return_value", ti_key=ti_key)
        return str(facts.get("page") or "") if isinstance(facts, dict) else ""


def show_link(context: Context, run: RemoteRun) -> None:
    """Store the link now, so that it works while the run is going; Airflow itself stores links at the end."""
    ti = context["ti"]
    ti.xcom_push(key=URL_KEY, value=run.url)
    ti.xcom_push(key=RemoteRunLink().xcom_key, value=run.url)
    ti.xcom_push(key="remote_run_id", value=run.run_id)
