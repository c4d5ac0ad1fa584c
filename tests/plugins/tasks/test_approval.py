"""Who may answer, and what counts as a rejection. The role is checked again after the answer, whatever the API server allows."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskAwaitingInput

from mlops.tasks import approval
from mlops.tasks.approval import RoleApprovalOperator, users_with

ROLES = {"ml-approvers": ["alice", "bob"], "others": ["victor"], "empty": []}
QUESTION = {"roles": ["ml-approvers"], "hours": 24, "subject": "version 7?", "body": "{{ not.rendered }}"}


@pytest.fixture(autouse=True)
def _connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_APPROVERS", json.dumps({"conn_type": "generic", "extra": {"roles": ROLES}}))


def task(question: Any = QUESTION) -> RoleApprovalOperator:
    return RoleApprovalOperator(task_id="ask_approval", question=question)


def answer(user: str | None, option: str = "Approve", comment: str = "") -> dict[str, Any]:
    return {
        "chosen_options": [option],
        "params_input": {"comment": comment},
        "responded_at": datetime(2026, 11, 3, 10, tzinfo=UTC),
        "responded_by_user": {"id": user, "name": user} if user else None,
    }


@pytest.mark.parametrize("question", [None, QUESTION | {"roles": []}], ids=["no-question", "no-roles"])
def test_without_roles_nobody_is_asked(question: Any) -> None:
    assert task(question).execute({}) is None


def test_people_with_the_role_are_asked_for_as_long_as_the_config_says(monkeypatch: pytest.MonkeyPatch) -> None:
    question: dict[str, Any] = {}
    monkeypatch.setattr(
        "airflow.providers.standard.operators.hitl.upsert_hitl_detail", lambda **details: question.update(details)
    )
    with pytest.raises(TaskAwaitingInput) as waits:
        task().execute({"task_instance": type("Ti", (), {"id": "1"})()})
    assert [user["id"] for user in question["assigned_users"]] == ["alice", "bob"]
    assert (question["defaults"], question["subject"], question["body"]) == (
        ["Reject"],
        "version 7?",
        "{{ not.rendered }}",
    )
    assert list(question["params"]) == ["comment"]
    assert waits.value.timeout is not None
    assert waits.value.timeout.total_seconds() == 24 * 3600


@pytest.mark.parametrize(
    ("event", "approved", "person", "why"),
    [
        pytest.param(answer("alice"), True, "alice", "alice approved it", id="approved"),
        pytest.param(
            answer("bob", "Reject", "not before Christmas"), False, "bob", "bob rejected it: not before Christmas",
            id="rejected-with-a-comment",
        ),
        pytest.param(
            answer("victor"), False, "victor", "victor approved it and does not have the role ml-approvers",
            id="approved-by-somebody-without-the-role",
        ),
        pytest.param(
            answer("victor", "Reject"), False, "victor", "victor rejected it and does not have the role ml-approvers",
            id="rejected-by-somebody-without-the-role",
        ),
        pytest.param(
            answer(None, "Reject"), False, None, "nobody with the role ml-approvers answered within 24 hours",
            id="nobody-in-time",
        ),
        pytest.param(
            answer(None, "Approve"), False, None, "nobody with the role ml-approvers answered within 24 hours",
            id="nobody-whatever-the-default-says",
        ),
    ],
)  # fmt: skip
def test_the_result_of_an_answer(event: dict[str, Any], approved: bool, person: str | None, why: str) -> None:
    result = task().execute_complete({}, event)
    assert (result["approved"], result["person"], result["reasons"]) == (approved, person, [why])
    assert result["at"] == "2026-11-03T10:00:00+00:00"


def test_an_option_that_was_not_offered_is_refused() -> None:
    with pytest.raises(ValueError, match="Maybe"):
        task().execute_complete({}, answer("alice", "Maybe"))


@pytest.mark.parametrize("roles", [["empty"], ["ml-aprovers"]], ids=["a-role-without-users", "an-unknown-role"])
def test_a_role_without_users_fails_instead_of_asking_everybody(roles: list[str]) -> None:
    """Airflow lets everybody answer when the task names no user."""
    with pytest.raises(AirflowFailException, match="names nobody with the role"):
        users_with(roles)


@pytest.mark.parametrize("extra", [{}, {"roles": ["alice"]}, {"roles": {"ml-approvers": "alice"}}])
def test_a_malformed_connection_is_reported(monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any]) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_APPROVERS", json.dumps({"conn_type": "generic", "extra": extra}))
    with pytest.raises(AirflowFailException, match="its extra must be"):
        users_with(["ml-approvers"])


def test_several_roles_are_one_list() -> None:
    assert users_with(["ml-approvers", "others"]) == ["alice", "bob", "victor"]
    assert approval.CONN_ID == "approvers"
