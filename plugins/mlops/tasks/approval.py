"""A person with a role is asked before a run goes on: `ApprovalOperator` of Airflow's standard provider, who may answer included.

Airflow lets the users answer that a task names. Which users have a role says the Connection `approvers`, whose extra is
`{"roles": {"ml-approvers": ["alice", "bob"]}}` with the ids of the auth manager's users. Whether the one who answered
is among them is looked up again after the answer: an API server that lets everybody do everything
(`simple_auth_manager_all_admins`) must not be the way past them.
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


def people(roles: Sequence[str], conn_id: str = CONN_ID) -> list[str]:
    """The ids of the users who have one of the roles. Fails the task when nobody has: Airflow would let everybody answer."""
    extra = BaseHook.get_connection(conn_id).extra_dejson
    known = extra.get("roles")
    if not isinstance(known, dict) or not all(
        isinstance(users, list) and all(isinstance(user, str) and user for user in users) for users in known.values()
    ):
        raise AirflowFailException(
            f'Connection {conn_id}: its extra must be {{"roles": {{"<role>": ["<user id>", …]}}}}; found {extra!r}'
        )
    found = sorted({user for role in roles for user in known.get(role, ())})
    if not found:
        raise AirflowFailException(
            f"Connection {conn_id} names nobody with the role {' or '.join(roles)}; it knows {', '.join(known) or 'no role'}"
        )
    return found


class RoleApprovalOperator(ApprovalOperator):
    """Ask people with a role, unless no role is named; give their answer, and leave what follows from it to the next task.

    :param question: `{"roles", "hours", "subject", "body"}`, as an XCom of the task before; None or no roles: nobody is asked.

    Returns None when nobody was asked, else `{"approved", "person", "at", "comment", "reasons"}`. An answer that came too
    late, or from somebody without the role, is a rejection.
    """

    template_fields = (*ApprovalOperator.template_fields, "question")

    def __init__(self, *, question: Any, params: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        comment = Param("", type="string", maxLength=500, description="kept with your answer", source="task")
        super().__init__(
            subject="",
            params=ParamsDict({**(params or {}), "comment": comment}),  # the Dag's own are not shown with the question
            **kwargs | {"execution_timeout": None},  # the provider would take it for the limit of the answer
        )
        self.execution_timeout = timedelta(minutes=10)  # of asking, not of waiting
        self.question = question

    def execute(self, context: Context) -> Any:
        question: Mapping[str, Any] | None = self.question
        if not question or not question["roles"]:
            self.log.info("this environment asks nobody: the gate's decision stands")
            return None
        self.assigned_users = [{"id": user, "name": user} for user in people(question["roles"])]
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
        user, answered = event["responded_by_user"], event["chosen_options"] == [self.APPROVE]
        comment = str((event["params_input"] or {}).get("comment") or "")
        if user is None:
            approved, why = (
                False,
                f"nobody with the role {' or '.join(roles)} answered within {self.question['hours']} hours",
            )
        elif user["id"] not in people(roles):
            verb = "approved" if answered else "rejected"
            approved, why = False, f"{user['id']} {verb} it and has not the role {' or '.join(roles)}"
        else:
            approved, why = answered, f"{user['id']} {'approved' if answered else 'rejected'} it"
        self.log.info("%s%s", why, f": {comment}" if comment else "")
        return {
            "approved": approved,
            "person": user["id"] if user else None,
            "at": event["responded_at"].isoformat(),
            "comment": comment,
            "reasons": [f"{why}: {comment}" if comment else why],
        }
