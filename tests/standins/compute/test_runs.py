"""Compute really runs work, ends all of it, and finds it again after `kill -9`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from standins.compute import run as compute_run
from standins.compute.pool import Compute, Work, pool
from standins.core.cloud import Cloud, Settings

SPAWNS = "sleep 300 & setsid sleep 300 & echo $$ > pids; jobs -p >> pids; wait"


def settings(state: Path) -> Settings:
    return Settings(
        state, 1, 2, "tenant", "client", "secret-of-the-client", "subscription", "token", "account", "a2V5",
        "http://127.0.0.1:9/account", "http://127.0.0.1:9/account",
    )  # fmt: skip


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Compute]]:
    """Starts a compute over one state folder, again and again as a restarted stand-in does."""
    monkeypatch.setenv("STANDINS_WARM", "never")
    clouds: list[Cloud] = []

    def started() -> Compute:
        for cloud in clouds:
            cloud.close()
        clouds.append(Cloud(settings(tmp_path)))
        made = clouds[-1].one(Compute)
        made.start()
        return made

    yield started
    for run in (tmp_path / "runs").glob("*"):
        clouds[-1].one(Compute).stop(run.name)
        wait_for(lambda run=run: (run / compute_run.RESULT).exists())
    clouds[-1].close()


def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def ended(made: Compute, run: str) -> pool.Status:
    wait_for(lambda: made.status(run).state == "ended")
    return made.status(run)


def members(folder: Path) -> list[int]:
    """The ids that a run wrote down, and all processes below its supervisor."""
    wait_for(
        lambda: len((folder / "work" / "pids").read_text().split()) >= 3 if (folder / "work" / "pids").exists() else 0
    )
    leader = json.loads((folder / compute_run.PROCESS).read_text())["pid"]
    wait_for(lambda: len(psutil.Process(leader).children(recursive=True)) >= 3)
    return [leader, *(child.pid for child in psutil.Process(leader).children(recursive=True))]


def gone(pids: list[int]) -> bool:
    return not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids)


@pytest.mark.parametrize(
    ("work", "code", "output", "error"),
    [
        pytest.param(Work("command", "echo out; echo err >&2; exit 3"), 3, "out\nerr\n", "", id="exit-code-and-both-streams"),
        pytest.param(Work("wheel", "ml", "ml", ("--help",)), 0, "Stages of a model's life.", "", id="wheel-runs-its-entry-point"),
        pytest.param(Work("wheel", "ml", "ml", ("nonsense",)), 2, "invalid choice", "SystemExit: 2", id="wheel-fails-with-its-exit-code"),
        pytest.param(Work("wheel", "nowhere", "main"), 1, "", "PackageNotFoundError: No package metadata", id="wheel-that-is-not-installed"),
        pytest.param(Work("wheel", "ml", "nothing"), 1, "", "neither an entry point nor a function", id="wheel-without-that-entry-point"),
        pytest.param(Work("python_file", "/nowhere.py"), 1, "", "FileNotFoundError", id="file-that-is-not-there"),
        pytest.param(Work.command("python -m ml --help"), 0, "Stages of a model's life.", "", id="plain-module-command"),
        pytest.param(Work.command("python -m ml --help | wc -l"), 0, "", "", id="command-with-a-pipe"),
        pytest.param(Work("command", "kill -SEGV $$"), -11, "", "", id="killed-by-a-signal"),
    ],
)  # fmt: skip
def test_work_ends_as_it_would_at_a_shell(
    start: Callable[[], Compute], work: Work, code: int, output: str, error: str
) -> None:
    made = start()
    made.submit("r", work)
    status = ended(made, "r")
    assert (status.reason, status.exit_code) == ("exited", code)
    assert output in made.output("r").decode()
    assert error in status.error
    assert status.succeeded == (code == 0)


def test_a_failing_file_leaves_error_and_trace(start: Callable[[], Compute], tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text("import sys\nprint(sys.argv[1:])\nraise ValueError('amount is negative')\n")
    made = start()
    made.submit("r", Work("python_file", str(script), arguments=("--day", "2020-02-29")))
    status = ended(made, "r")
    assert status.error == "ValueError: amount is negative"
    assert 'job.py", line 3' in status.trace
    assert made.output("r").decode().startswith("['--day', '2020-02-29']\nTraceback")


def test_the_environment_is_the_clusters_own(start: Callable[[], Compute], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKE_URI", "az://lake")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    for name in ("STANDINS_CLIENT_SECRET", "HTTPS_PROXY", "SSL_CERT_FILE", "AIRFLOW_HOME"):
        monkeypatch.setenv(name, "not-for-runs")
    made = start()
    made.submit("r", Work("command", "env; pwd", environment={"EXTRA": "1"}))
    ended(made, "r")
    output = made.output("r").decode()
    for line in ("LAKE_URI=az://lake", "MLFLOW_TRACKING_URI=http://127.0.0.1:5000", "TZ=UTC", "EXTRA=1",
                 "AZURE_STORAGE_ACCOUNT_NAME=account", f"{made.folder}/r/work"):  # fmt: skip
        assert f"{line}\n" in output
    assert "not-for-runs" not in output
    assert "secret-of-the-client" not in output


@pytest.mark.parametrize("reason", ["canceled", "timeout"])
def test_stopping_ends_every_process_of_the_run(start: Callable[[], Compute], reason: str) -> None:
    made = start()
    made.submit("r", Work("command", SPAWNS, timeout=1.5 if reason == "timeout" else 0))
    pids = members(made.folder / "r")
    if reason == "canceled":
        made.stop("r")
    status = ended(made, "r")
    assert (status.reason, status.succeeded) == (reason, False)
    wait_for(lambda: gone(pids), 2)  # the supervisor itself is the last to go


def test_a_run_that_ignores_sigterm_is_killed(start: Callable[[], Compute], monkeypatch: pytest.MonkeyPatch) -> None:
    made = start()
    made.submit("r", Work("command", "trap '' TERM; echo ready; while true; do sleep 0.1; done"))
    wait_for(lambda: made.output("r"))
    made.stop("r")
    assert ended(made, "r").reason == "canceled"


def test_what_a_finished_run_leaves_behind_is_ended(start: Callable[[], Compute]) -> None:
    made = start()
    made.submit("r", Work("command", "setsid sleep 300 & echo $!"))
    assert ended(made, "r").succeeded
    wait_for(lambda: gone([int(made.output("r"))]), 2)


def test_more_runs_than_slots_wait_and_can_be_canceled_waiting(
    start: Callable[[], Compute], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDINS_SLOTS", "1")
    made = start()
    made.submit("first", Work("command", "sleep 300"))
    made.submit("second", Work("command", "echo never"))
    wait_for(lambda: made.status("first").state == "running")
    assert made.status("second").state == "queued"
    made.stop("second")
    made.stop("first")
    assert ended(made, "second").reason == "canceled"
    assert made.output("second") == b""


def test_the_same_run_started_twice_runs_once(start: Callable[[], Compute]) -> None:
    made = start()
    made.submit("r", Work("command", "echo once >> ../count; sleep 0.5"))
    made.submit("r", Work("command", "echo twice >> ../count"))
    wait_for(lambda: (made.folder / "r" / compute_run.PROCESS).exists())
    subprocess.run([sys.executable, "-m", "standins.compute.run", str(made.folder / "r")], check=True, timeout=30)
    ended(made, "r")
    assert (made.folder / "r" / "count").read_text() == "once\n"


def test_a_restart_finds_live_finished_lost_and_never_started_runs(
    start: Callable[[], Compute], tmp_path: Path
) -> None:
    works = {
        "live": Work("command", "while [ ! -e go ]; do sleep 0.05; done; exit 7"),
        "finished": Work("command", "exit 5"),
        "lost": Work("command", "sleep 300"),
        "never": Work("command", "exit 6"),
    }
    script = f"""if True:
        import os, time
        from pathlib import Path
        from standins import compute
        from standins.core.cloud import Cloud, Settings
        from standins.compute.pool import Compute, Work
        state = Path({str(tmp_path)!r})
        cloud = Cloud(Settings(state, 1, 2, *"tcsudak", "http://127.0.0.1:9/a", "http://127.0.0.1:9/a"))
        made = cloud.one(Compute)
        made.start()
        for name in ("live", "finished", "lost"):
            made.submit(name, Work("command", {{n: w for n, w in {[(n, w.target) for n, w in works.items()]}}}[name]))
        while made.status("finished").state != "ended" or made.status("lost").state != "running" \\
                or made.status("live").state != "running":
            time.sleep(0.02)
        os.kill(os.getpid(), 9)
    """
    killed = subprocess.run([sys.executable, "-c", script], env={**os.environ, "STANDINS_WARM": "never"}, timeout=60)
    assert killed.returncode == -9
    os.killpg(json.loads((tmp_path / "runs" / "lost" / compute_run.PROCESS).read_text())["pgid"], signal.SIGKILL)
    made = start()
    for name, work in works.items():
        made.submit(name, work)
    assert made.status("live").state == "running"
    (made.folder / "live" / "work" / "go").touch()
    assert ended(made, "live").exit_code == 7
    assert ended(made, "finished").exit_code == 5
    assert ended(made, "never").exit_code == 6
    assert ended(made, "lost").reason == "lost"
    assert "vanished" in made.status("lost").error


def test_a_lost_supervisor_takes_its_group_along(start: Callable[[], Compute]) -> None:
    made = start()
    made.submit("r", Work("command", "sleep 300 & echo $! > pid; wait"))
    pid = made.folder / "r" / "work" / "pid"
    wait_for(lambda: pid.exists() and pid.read_text())
    os.kill(json.loads((made.folder / "r" / compute_run.PROCESS).read_text())["pid"], signal.SIGKILL)
    assert ended(made, "r").reason == "lost"
    wait_for(lambda: gone([int(pid.read_text())]))
