"""The compute really executes runs, ends all their processes, and finds runs again after `kill -9`."""

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

from standins.compute import run_files
from standins.compute.pool import Compute
from standins.compute.work import Status, Work
from standins.core.cloud import Cloud, Settings

SPAWNS = "sleep 300 & setsid sleep 300 & echo $$ > pids; jobs -p >> pids; wait"


def settings(state: Path) -> Settings:
    return Settings(
        state, 1, 2, "tenant", "client", "secret-of-the-client", "subscription", "token", "account", "a2V5",
        "http://127.0.0.1:9/account", "http://127.0.0.1:9/account",
    )  # fmt: skip


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Compute]]:
    """Starts a compute on the same state folder, each time as a restarted server does."""
    monkeypatch.setenv("STANDINS_WARM", "never")
    clouds: list[Cloud] = []

    def start_compute() -> Compute:
        for cloud in clouds:
            cloud.close()
        clouds.append(Cloud(settings(tmp_path)))
        compute = clouds[-1].shared(Compute)
        compute.start()
        return compute

    yield start_compute
    for run in (tmp_path / "runs").glob("*"):
        clouds[-1].shared(Compute).stop(run.name)
        wait_for(lambda run=run: (run / run_files.RESULT).exists())
    clouds[-1].close()


def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def ended(compute: Compute, run: str) -> Status:
    wait_for(lambda: compute.status(run).state == "ended")
    return compute.status(run)


def processes_of(folder: Path) -> list[int]:
    """The pids of a run's supervisor and of all its descendants."""
    wait_for(
        lambda: len((folder / "work" / "pids").read_text().split()) >= 3 if (folder / "work" / "pids").exists() else 0
    )
    leader = json.loads((folder / run_files.PROCESS).read_text())["pid"]
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
        pytest.param(Work("python_file", "/nowhere.py"), 1, "", "FileNotFoundError", id="missing-file"),
        pytest.param(Work.command("python -m ml --help"), 0, "Stages of a model's life.", "", id="plain-module-command"),
        pytest.param(Work.command("python -m ml --help | wc -l"), 0, "", "", id="command-with-a-pipe"),
        pytest.param(Work("command", "kill -SEGV $$"), -11, "", "", id="killed-by-a-signal"),
    ],
)  # fmt: skip
def test_a_run_ends_with_the_exit_code_and_output_of_its_work(
    start: Callable[[], Compute], work: Work, code: int, output: str, error: str
) -> None:
    compute = start()
    compute.submit("r", work)
    status = ended(compute, "r")
    assert (status.reason, status.exit_code) == ("exited", code)
    assert output in compute.output("r").decode()
    assert error in status.error
    assert status.succeeded == (code == 0)


def test_a_failing_file_leaves_error_and_trace(start: Callable[[], Compute], tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text("import sys\nprint(sys.argv[1:])\nraise ValueError('amount is negative')\n")
    compute = start()
    compute.submit("r", Work("python_file", str(script), arguments=("--day", "2020-02-29")))
    status = ended(compute, "r")
    assert status.error == "ValueError: amount is negative"
    assert 'job.py", line 3' in status.trace
    assert compute.output("r").decode().startswith("['--day', '2020-02-29']\nTraceback")


def test_a_run_gets_the_environment_of_the_cluster_only(
    start: Callable[[], Compute], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKE_URI", "az://lake")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    for name in ("STANDINS_CLIENT_SECRET", "HTTPS_PROXY", "SSL_CERT_FILE", "AIRFLOW_HOME"):
        monkeypatch.setenv(name, "not-for-runs")
    compute = start()
    compute.submit("r", Work("command", "env; pwd", environment={"EXTRA": "1"}))
    ended(compute, "r")
    output = compute.output("r").decode()
    for line in ("LAKE_URI=az://lake", "MLFLOW_TRACKING_URI=http://127.0.0.1:5000", "TZ=UTC", "EXTRA=1",
                 "AZURE_STORAGE_ACCOUNT_NAME=account", f"{compute.folder}/r/work"):  # fmt: skip
        assert f"{line}\n" in output
    assert "not-for-runs" not in output
    assert "secret-of-the-client" not in output


@pytest.mark.parametrize("reason", ["canceled", "timeout"])
def test_stopping_ends_every_process_of_the_run(start: Callable[[], Compute], reason: str) -> None:
    compute = start()
    compute.submit("r", Work("command", SPAWNS, timeout=1.5 if reason == "timeout" else 0))
    pids = processes_of(compute.folder / "r")
    if reason == "canceled":
        compute.stop("r")
    status = ended(compute, "r")
    assert (status.reason, status.succeeded) == (reason, False)
    wait_for(lambda: gone(pids), 2)  # the supervisor ends last


def test_a_run_that_ignores_sigterm_is_killed(start: Callable[[], Compute], monkeypatch: pytest.MonkeyPatch) -> None:
    compute = start()
    compute.submit("r", Work("command", "trap '' TERM; echo ready; while true; do sleep 0.1; done"))
    wait_for(lambda: compute.output("r"))
    compute.stop("r")
    assert ended(compute, "r").reason == "canceled"


def test_processes_that_a_finished_run_leaves_are_ended(start: Callable[[], Compute]) -> None:
    compute = start()
    compute.submit("r", Work("command", "setsid sleep 300 & echo $!"))
    assert ended(compute, "r").succeeded
    wait_for(lambda: gone([int(compute.output("r"))]), 2)


def test_runs_beyond_the_slots_are_queued_and_can_be_canceled(
    start: Callable[[], Compute], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDINS_SLOTS", "1")
    compute = start()
    compute.submit("first", Work("command", "sleep 300"))
    compute.submit("second", Work("command", "echo never"))
    wait_for(lambda: compute.status("first").state == "running")
    assert compute.status("second").state == "queued"
    compute.stop("second")
    compute.stop("first")
    assert ended(compute, "second").reason == "canceled"
    assert compute.output("second") == b""


def test_the_same_run_started_twice_runs_once(start: Callable[[], Compute]) -> None:
    compute = start()
    compute.submit("r", Work("command", "echo once >> ../count; sleep 0.5"))
    compute.submit("r", Work("command", "echo twice >> ../count"))
    wait_for(lambda: (compute.folder / "r" / run_files.PROCESS).exists())
    subprocess.run([sys.executable, "-m", "standins.compute.run", str(compute.folder / "r")], check=True, timeout=30)
    ended(compute, "r")
    assert (compute.folder / "r" / "count").read_text() == "once\n"


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
        from standins.core.cloud import Cloud, Settings
        from standins.compute.pool import Compute
        from standins.compute.work import Work
        state = Path({str(tmp_path)!r})
        cloud = Cloud(Settings(state, 1, 2, *"tcsudak", "http://127.0.0.1:9/a", "http://127.0.0.1:9/a"))
        compute = cloud.shared(Compute)
        compute.start()
        for name in ("live", "finished", "lost"):
            compute.submit(name, Work("command", {{n: w for n, w in {[(n, w.target) for n, w in works.items()]}}}[name]))
        while compute.status("finished").state != "ended" or compute.status("lost").state != "running" \\
                or compute.status("live").state != "running":
            time.sleep(0.02)
        os.kill(os.getpid(), 9)
    """
    killed = subprocess.run([sys.executable, "-c", script], env={**os.environ, "STANDINS_WARM": "never"}, timeout=60)
    assert killed.returncode == -9
    os.killpg(json.loads((tmp_path / "runs" / "lost" / run_files.PROCESS).read_text())["pgid"], signal.SIGKILL)
    compute = start()
    for name, work in works.items():
        compute.submit(name, work)
    assert compute.status("live").state == "running"
    (compute.folder / "live" / "work" / "go").touch()
    assert ended(compute, "live").exit_code == 7
    assert ended(compute, "finished").exit_code == 5
    assert ended(compute, "never").exit_code == 6
    assert ended(compute, "lost").reason == "lost"
    assert "without a result" in compute.status("lost").error


def test_the_process_group_of_a_lost_supervisor_is_ended(start: Callable[[], Compute]) -> None:
    compute = start()
    compute.submit("r", Work("command", "sleep 300 & echo $! > pid; wait"))
    pid = compute.folder / "r" / "work" / "pid"
    wait_for(lambda: pid.exists() and pid.read_text())
    os.kill(json.loads((compute.folder / "r" / run_files.PROCESS).read_text())["pid"], signal.SIGKILL)
    assert ended(compute, "r").reason == "lost"
    wait_for(lambda: gone([int(pid.read_text())]))
