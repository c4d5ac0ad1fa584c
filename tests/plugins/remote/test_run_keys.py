"""Run keys: the same work has the same key, a new request has another, and a try starts at most one run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote.run_keys import MAX_LENGTH, attach_or_submit, forget, run_key
from tests.support.components.task_contexts import Notes, Ti, context_of

FIRST = Ti()


class TestTheKey:
    def test_names_the_work(self) -> None:
        assert re.fullmatch(r"transactions_ingest-copy_files-1998-06-28-[0-9a-f]{10}-g1", run_key(context_of(FIRST)))

    def test_says_all_for_a_run_without_a_day(self) -> None:
        assert run_key(context_of(FIRST, day=None)).startswith("transactions_ingest-copy_files-all-")

    def test_is_the_same_in_every_process_and_release(self) -> None:
        """A key outlives its worker and its release: keys of another form would submit running work a second time."""
        work = b"transactions_ingest|copy_files|-1|asset__1998-06-28__a1b2|2026-11-21T06:00:01.000500+00:00|0"
        hashed = sha256(work).hexdigest()[:10]
        began = datetime(2026, 11, 21, 7, 0, 1, 500, timezone(timedelta(hours=1)))
        assert run_key(context_of(FIRST, began=began)) == f"transactions_ingest-copy_files-1998-06-28-{hashed}-g1"

    def test_is_the_same_for_every_retry(self) -> None:
        assert run_key(context_of(FIRST.retried().retried())) == run_key(context_of(FIRST))

    @pytest.mark.parametrize("failed_before", [0, 1, 3], ids="cleared-after-{}-retries".format)
    def test_differs_after_a_clear(self, failed_before: int) -> None:
        ti = FIRST
        for _ in range(failed_before):
            ti = ti.retried()
        again = ti.cleared()
        assert run_key(context_of(again)) != run_key(context_of(ti))
        assert run_key(context_of(again.retried())) == run_key(context_of(again))
        assert run_key(context_of(again.cleared())) not in (run_key(context_of(again)), run_key(context_of(ti)))

    def test_is_the_same_when_cleared_twice_before_it_ran(self) -> None:
        once = replace(FIRST, max_tries=FIRST.try_number + FIRST.retries)  # cleared, and not started yet
        assert run_key(context_of(once.cleared())) == run_key(context_of(FIRST.cleared()))

    @pytest.mark.parametrize(
        "other",
        [
            pytest.param(context_of(replace(FIRST, dag_id="margin_ingest")), id="dag"),
            pytest.param(context_of(replace(FIRST, task_id="copy_more")), id="task"),
            pytest.param(context_of(replace(FIRST, map_index=0)), id="map-index"),
            pytest.param(context_of(FIRST, day="1998-06-29"), id="partition"),
            pytest.param(context_of(FIRST, run_id="manual__2"), id="dag-run"),
            pytest.param(context_of(FIRST, began=datetime(2026, 1, 1, tzinfo=UTC)), id="namesake-in-a-lost-database"),
        ],
    )
    def test_differs_for_other_work(self, other: Any) -> None:
        assert run_key(other) != run_key(context_of(FIRST))

    def test_differs_for_each_generation(self) -> None:
        keys = {run_key(context_of(FIRST), generation) for generation in range(1, 12)}
        assert len(keys) == 11

    def test_differs_for_long_names_with_the_same_beginning(self) -> None:
        one, two = (context_of(replace(FIRST, dag_id="d" * 80, task_id=f"{'t' * 80}{n}")) for n in (1, 2))
        assert run_key(one) != run_key(two)

    def test_differs_for_names_that_read_the_same(self) -> None:
        """`a-b` in Dag `c` and `b` in Dag `c-a` read the same; their digests differ."""
        one = context_of(replace(FIRST, dag_id="c", task_id="a-b"))
        two = context_of(replace(FIRST, dag_id="c-a", task_id="b"))
        assert run_key(one) != run_key(two)

    @given(
        dag=st.text(min_size=1, max_size=250),
        task=st.text(min_size=1, max_size=250),
        day=st.none() | st.text(max_size=60),
        generation=st.integers(1, 10**6),
    )
    def test_fits_every_service(self, dag: str, task: str, day: str | None, generation: int) -> None:
        """64 characters for Databricks; letters, digits, `_`, `-` for Azure ML; a folder's name for the log."""
        key = run_key(context_of(Ti(dag_id=dag, task_id=task), day=day), generation)
        assert len(key) <= MAX_LENGTH == 64
        assert re.fullmatch(r"[A-Za-z0-9_-]+", key)
        assert key.endswith(f"-g{generation}")


def test_airflow_clears_as_these_tests_assume(tmp_path: Path) -> None:
    """Run keys recognise a clear by `max_tries`, which Airflow sets; here Airflow itself clears a task."""
    database = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db"}
    process = subprocess.run(
        [sys.executable, "-m", "tests.support.components.airflow_clears", str(FIRST.retries), "1", "3"],
        env=os.environ | database,
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    after_one = FIRST.cleared()  # as it starts: one try more than when it was cleared
    after_three_more = after_one.retried().retried().cleared()
    assert json.loads(process.stdout.splitlines()[-1]) == [
        [0, FIRST.max_tries],
        [after_one.try_number - 1, after_one.max_tries],
        [after_three_more.try_number - 1, after_three_more.max_tries],
    ]


@dataclass
class Remote:
    """A service that keeps runs by key and starts one only when there is none with that key."""

    states: dict[str, str] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    lose_replies: int = 0
    refuse_connections: int = 0

    def find_or_submit(self, key: str) -> str:
        if self.refuse_connections:
            self.refuse_connections -= 1
            raise ConnectionError("before the work began")
        self.requests.append(key)
        self.states.setdefault(key, "running")
        if self.lose_replies:
            self.lose_replies -= 1
            raise ConnectionError("after the work began")
        return key

    def failed(self, key: str) -> bool:
        return self.states[key] in ("failed", "cancelled")

    def attach(self, ti: Ti) -> str:
        return attach_or_submit(context_of(ti), self.find_or_submit, self.failed)

    def generations(self) -> list[int]:
        return [int(key.rpartition("-g")[2]) for key in self.states]


class TestAttachOrSubmit:
    def test_the_first_try_submits_once(self) -> None:
        remote = Remote()
        assert remote.attach(FIRST) == run_key(context_of(FIRST))
        assert remote.requests == [run_key(context_of(FIRST))]

    def test_a_lost_response_starts_nothing_twice(self) -> None:
        remote = Remote(lose_replies=1)
        with pytest.raises(ConnectionError):
            remote.attach(FIRST)
        assert remote.attach(FIRST.retried()) == run_key(context_of(FIRST), 1)
        assert remote.generations() == [1]

    def test_a_request_that_never_arrived_is_repeated_with_the_same_key(self) -> None:
        remote = Remote(refuse_connections=1)
        with pytest.raises(ConnectionError):
            remote.attach(FIRST)
        assert remote.attach(FIRST.retried()) == run_key(context_of(FIRST), 1)

    @pytest.mark.parametrize("state", ["running", "succeeded"])
    def test_a_retry_attaches_to_the_existing_run(self, state: str) -> None:
        """Also to one that has ended: the worker may have died between its end and the record of it."""
        remote = Remote()
        first = remote.attach(FIRST)
        remote.states[first] = state
        assert remote.attach(FIRST.retried()) == remote.attach(FIRST.retried().retried()) == first
        assert remote.generations() == [1]

    @pytest.mark.parametrize("state", ["failed", "cancelled"])
    def test_only_a_failure_leads_to_the_next_generation(self, state: str) -> None:
        remote = Remote()
        remote.states[remote.attach(FIRST)] = state
        second = remote.attach(FIRST.retried())
        assert second == run_key(context_of(FIRST), 2)
        remote.states[second] = "succeeded"
        assert remote.attach(FIRST.retried().retried()) == second

    def test_a_run_that_vanished_is_submitted_with_the_next_key(self) -> None:
        remote, ti = Remote(), Ti(notes=Notes())
        first = remote.attach(ti)
        forget(context_of(ti), first)
        del remote.states[first]
        assert remote.attach(ti.retried()) == run_key(context_of(ti), 2)
        assert remote.attach(ti.retried().retried()) == run_key(context_of(ti), 2)

    def test_the_same_try_twice_starts_no_second_run(self) -> None:
        """A worker that starts the same try again (apache/airflow #72716) meets the failed run, and says so."""
        remote = Remote()
        first = remote.attach(FIRST)
        remote.states[first] = "failed"
        assert remote.attach(FIRST) == first
        assert remote.generations() == [1]

    def test_a_cleared_task_submits_new_work(self) -> None:
        remote = Remote()
        first = remote.attach(FIRST)
        remote.states[first] = "succeeded"
        again = FIRST.cleared()
        assert remote.attach(again) != first
        assert remote.attach(again.retried()) == run_key(context_of(again), 1)
        assert remote.generations() == [1, 1]

    def test_there_are_never_more_runs_than_tries(self) -> None:
        """Even when earlier tries submitted nothing, and runs fail as soon as they start."""
        remote = Remote()

        def submit_and_fail(key: str) -> str:
            remote.find_or_submit(key)
            remote.states[key] = "failed"
            return key

        third = FIRST.retried().retried()
        attach_or_submit(context_of(third), submit_and_fail, remote.failed)
        assert len(remote.states) == third.try_number

    @given(
        history=st.lists(
            st.tuples(
                st.sampled_from(["fine", "lost reply", "refused", "same try"]),
                st.sampled_from(["running", "succeeded", "failed", "cancelled"]),
            ),
            max_size=8,
        )
    )
    def test_any_history_of_tries(self, history: list[tuple[str, str]]) -> None:
        """Never two live runs, nothing after a success, never more runs than tries."""
        remote, ti = Remote(), FIRST
        for n, (reply, becomes) in enumerate(history):
            if n and reply != "same try":
                ti = ti.retried()
            before = dict(remote.states)
            remote.lose_replies, remote.refuse_connections = int(reply == "lost reply"), int(reply == "refused")
            with suppress(ConnectionError):
                remote.attach(ti)
            if any(state in ("running", "succeeded") for state in before.values()):
                assert remote.states == before
            assert len(remote.states) - len(before) <= 1
            for key, state in remote.states.items():
                if state == "running":
                    remote.states[key] = becomes
        assert len(remote.states) <= ti.try_number
        assert remote.generations() == list(range(1, len(remote.states) + 1))
