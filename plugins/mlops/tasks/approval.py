"""Asks a person with a role before a run continues: `ApprovalOperator` of Airflow's standard provider, with roles.

In Airflow, a task names the users who may respond. The Connection `approvers` says which users have a role: its extra
is `{"roles": {"ml-approvers": ["alice", "bob"]}}` with the ids of the auth manager's users. The role of the person who
responded is checked again after the response, so an API server that lets everybody do everything
(`simple_auth_manager_all_admins`) does not bypass the roles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import BaseHook, Param
from airflow.sdk.definitions.param import ParamsDict
from airflow.sdk.exceptions import AirflowFailException

if TYPE_CHECKING:
    from airflow.sdk import Context

CONN_ID = "approvers"


def users_with(roles: Sequence[str], conn_id: str = CONN_ID) -> list[str]:
    """The ids of the users who have one of the roles. Fails the task when there are none: Airflow would let everybody respond."""
    extra = BaseHook.get_connection(conn_id).extra_dejson
    members = extra.get("roles")
    if not isinstance(members, dict) or not all(
        isinstance(users, list) and all(isinstance(user, str) and user for user in users) for users in members.values()
    ):
        raise AirflowFailException(
            f'Connection {conn_id}: its extra must be {{"roles": {{"<role>": ["<user id>", …]}}}}; found {extra!r}'
        )
    users = sorted({user for role in roles for user in members.get(role, ())})
    if not users:
        raise AirflowFailException(
            f"Connection {conn_id} names nobody with the role {' or '.join(roles)}; its roles: {', '.join(members) or 'none'}"
        )
    return users


class RoleApprovalOperator(ApprovalOperator):
    """Asks people with a role and returns their response; the next task acts on it.

    :param question: `{"roles", "hours", "subject", "body"}`, as an XCom of the task before; None or no roles: nobody is
        asked

    Returns None when nobody was asked, else `{"approved", "person", "at", "comment", "reasons"}`. A response that came
    too late, or from a person without the role, is a rejection.
    """

    template_fields = (*ApprovalOperator.template_fields, "question")

    def __init__(self, *, question: Any, params: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        comment = Param("", type="string", maxLength=500, description="recorded with your response", source="task")
        super().__init__(
            subject="",
            params=ParamsDict(
                {**(params or {}), "comment": comment}
            ),  # without the Dag's own params, which do not belong to the question
            **kwargs | {"execution_timeout": None},  # the provider would take it as the time limit of the response
        )
        self.execution_timeout = timedelta(minutes=10)  # for asking; waiting has its own limit
        self.question = question

    def execute(self, context: Context) -> Any:
        question: Mapping[str, Any] | None = self.question
        if not question or not question["roles"]:
            self.log.info("no approval is configured for this environment: the gate's decision stands")
            return None
        self.assigned_users = [{"id": user, "name": user} for user in users_with(question["roles"])]
        self.response_timeout = timedelta(hours=question["hours"])
        self.defaults = [self.REJECT]
        self.subject, self.body = question["subject"], question["body"]
        self.log.info("asking %s", ", ".join(user["id"] for user in self.assigned_users))
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        del context
        if "error" in event:
            self.process_trigger_event_error(event)
        self.validate_chosen_options(event["chosen_options"])
        roles = self.question["roles"]
        user, approves = event["responded_by_user"], event["chosen_options"] == [self.APPROVE]
        comment = str((event["params_input"] or {}).get("comment") or "")
        if user is None:
            approved, why = (
                False,
                f"nobody with the role {' or '.join(roles)} answered within {self.question['hours']} hours",
            )
        elif user["id"] not in users_with(roles):
            verb = "approved" if approves else "rejected"
            approved, why = False, f"{user['id']} {verb} it and does not have the role {' or '.join(roles)}"
        else:
            approved, why = approves, f"{user['id']} {'approved' if approves else 'rejected'} it"
        self.log.info("%s%s", why, f": {comment}" if comment else "")
        return {
            "approved": approved,
            "person": user["id"] if user else None,
            "at": event["responded_at"].isoformat(),
            "comment": comment,
            "reasons": [f"{why}: {comment}" if comment else why],
        }
