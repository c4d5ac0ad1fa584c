"""Who may answer, and what counts as a rejection: looked up again after the answer, whatever the API server let through."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskAwaitingInput

from mlops.tasks import approval
from mlops.tasks.approval import RoleApprovalOperator, people

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


def test_those_with_the_role_are_asked_as_long_as_the_config_says(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(
        "airflow.providers.standard.operators.hitl.upsert_hitl_detail", lambda **given: asked.update(given)
    )
    with pytest.raises(TaskAwaitingInput) as waits:
        task().execute({"task_instance": type("Ti", (), {"id": "1"})()})
    assert [user["id"] for user in asked["assigned_users"]] == ["alice", "bob"]
    assert (asked["defaults"], asked["subject"], asked["body"]) == (["Reject"], "version 7?", "{{ not.rendered }}")
    assert list(asked["params"]) == ["comment"]
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
            answer("victor"), False, "victor", "victor approved it and has not the role ml-approvers",
            id="approved-by-somebody-without-the-role",
        ),
        pytest.param(
            answer("victor", "Reject"), False, "victor", "victor rejected it and has not the role ml-approvers",
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
def test_what_an_answer_comes_to(event: dict[str, Any], approved: bool, person: str | None, why: str) -> None:
    told = task().execute_complete({}, event)
    assert (told["approved"], told["person"], told["reasons"]) == (approved, person, [why])
    assert told["at"] == "2026-11-03T10:00:00+00:00"


def test_an_option_that_was_not_offered_is_refused() -> None:
    with pytest.raises(ValueError, match="Maybe"):
        task().execute_complete({}, answer("alice", "Maybe"))


@pytest.mark.parametrize("roles", [["empty"], ["ml-aprovers"]], ids=["a-role-of-nobody", "a-role-that-is-not-known"])
def test_nobody_with_the_role_fails_instead_of_asking_everybody(roles: list[str]) -> None:
    """Airflow lets everybody answer when no user is named."""
    with pytest.raises(AirflowFailException, match="names nobody with the role"):
        people(roles)


@pytest.mark.parametrize("extra", [{}, {"roles": ["alice"]}, {"roles": {"ml-approvers": "alice"}}])
def test_a_connection_that_cannot_be_read_is_told(monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any]) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_APPROVERS", json.dumps({"conn_type": "generic", "extra": extra}))
    with pytest.raises(AirflowFailException, match="its extra must be"):
        people(["ml-approvers"])


def test_several_roles_are_one_list() -> None:
    assert people(["ml-approvers", "others"]) == ["alice", "bob", "victor"]
    assert approval.CONN_ID == "approvers"
