"""The supervisor, its guard and their commands, on machines of tiny real processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from local import control, processes, show
from local.control import ControlError
from local.processes import Identity
from local.settings import PORTS, Settings
from local.state import MachineStatus, current_settings, load, supervised

MACHINES = "tests.support.machines.local_machines"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    ports = {}
    sockets = [socket.socket() for _ in PORTS]
    for name, probe in zip(PORTS, sockets, strict=True):
        probe.bind(("127.0.0.1", 0))
        ports[name] = probe.getsockname()[1]
    for probe in sockets:
        probe.close()
    for port in PORTS.values():
        monkeypatch.delenv(port.variable, raising=False)
    monkeypatch.setenv("RUN_DIR", str(tmp_path / "run"))
    settings = Settings(tmp_path / "run", ports)
    yield settings
    control.down(settings, quiet())
    assert control.leftovers(settings.run_dir) == set()


def quiet() -> Console:
    return Console(file=StringIO(), width=200)


def up(settings: Settings, machine: str) -> bool:
    return control.up(settings, quiet(), f"{MACHINES}:{machine}")


def now(settings: Settings) -> MachineStatus:
    status = load(settings.run_dir)
    assert status is not None
    return status


def eventually(holds: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not true within {seconds:.0f} s"
        time.sleep(0.05)


def all_processes(settings: Settings) -> set[Identity]:
    """All processes of a machine that is up."""
    status = now(settings)
    return {status.guard, status.supervisor, *processes.marked(str(settings.run_dir))}


# starting -------------------------------------------------------------------------------------------------------


def test_a_job_that_fails_is_named_with_its_last_output_and_everything_is_stopped(settings: Settings) -> None:
    with pytest.raises(ControlError, match=r"(?s)job did not start: ended with exit code 1.*there is no such queue"):
        up(settings, "bad_job")
    assert not supervised(settings.run_dir)


def test_a_service_that_ends_before_it_is_ready_is_started_three_times_then_named(settings: Settings) -> None:
    with pytest.raises(ControlError, match=r"(?s)hopeless.*ended 3 times, last with exit code 1.*made of cheese"):
        up(settings, "never_ready")
    assert control.leftovers(settings.run_dir) == set()


def test_a_service_that_never_answers_is_given_up_and_the_message_says_what_was_missing(settings: Settings) -> None:
    with pytest.raises(ControlError, match=r"mute did not start: not ready after 0 s. it says nothing"):
        up(settings, "too_slow")


def test_a_taken_port_is_named_with_its_owner_and_the_variable_that_changes_it(settings: Settings) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", settings.ports["mlflow"]))
        other.listen()
        with pytest.raises(ControlError) as error:
            up(settings, "listening")
    message = str(error.value)
    assert f"Port {settings.ports['mlflow']}, needed for MLflow, is used by pid {os.getpid()}" in message
    assert "MLFLOW_PORT=<number>" in message
    assert not supervised(settings.run_dir)


def test_units_start_in_their_order(settings: Settings) -> None:
    assert up(settings, "pair")
    status = now(settings)
    assert status.phase == "up"
    assert {name: unit.state for name, unit in status.units.items()} == {
        "job": "done",
        "first": "ready",
        "second": "ready",
    }
    assert (settings.run_dir / "order").read_text().split() == ["job", "first", "second"]


def test_a_second_up_changes_nothing(settings: Settings) -> None:
    assert up(settings, "pair")
    before = now(settings).instance
    assert not up(settings, "pair")
    assert now(settings).instance == before


def test_two_ups_at_once_start_one_machine(settings: Settings) -> None:
    with ThreadPoolExecutor(2) as pool:
        ups = [pool.submit(up, settings, "pair") for _ in range(2)]
        assert any(call.result() for call in ups)
    assert (settings.run_dir / "order").read_text().split() == ["job", "first", "second"]


def test_a_machine_that_is_up_keeps_its_ports_when_the_environment_names_others(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    up(settings, "pair")
    assert current_settings() == settings
    monkeypatch.setenv("MLFLOW_PORT", "1")
    with pytest.raises(ControlError, match=r"MLFLOW_PORT requests port 1, but the machine is up with MLflow on"):
        up(settings, "pair")


# running -------------------------------------------------------------------------------------------------------


def test_a_service_that_crashes_is_restarted_after_growing_waits(settings: Settings) -> None:
    up(settings, "crashes_twice")
    eventually(
        lambda: now(settings).units["crashing"].restarts == 2 and now(settings).units["crashing"].pid is not None
    )
    log = (settings.log_dir / "supervisor.log").read_text()
    assert "ended with exit code 7; restarts after 0.5 s" in log
    assert "ended with exit code 7; restarts after 1 s" in log


def test_restart_gives_a_service_a_new_process_and_leaves_the_others_alone(settings: Settings) -> None:
    up(settings, "pair")
    before = now(settings).units
    control.restart(settings, "first", quiet())
    after = now(settings).units
    assert after["first"].pid != before["first"].pid
    assert after["second"].pid == before["second"].pid


def test_restart_of_an_unknown_service_names_the_known_ones(settings: Settings) -> None:
    up(settings, "pair")
    with pytest.raises(ControlError, match="there is no service 'third': choose one of first, second"):
        control.restart(settings, "third", quiet())


def test_status_is_healthy_only_while_every_service_is(settings: Settings) -> None:
    machine = f"{MACHINES}:pair"
    assert not show.status(settings, quiet(), machine)
    up(settings, "pair")
    console = quiet()
    assert show.status(settings, console, machine)
    assert isinstance(console.file, StringIO)
    shown = console.file.getvalue()
    assert "second" in shown
    assert str(now(settings).units["second"].pid) in shown
    victim = now(settings).units["first"].identity
    assert victim is not None
    processes.send(victim, signal.SIGKILL)
    eventually(lambda: now(settings).units["first"].state == "back-off")
    assert not show.status(settings, quiet(), machine)


# stopping ------------------------------------------------------------------------------------------------------


def test_down_leaves_no_process_not_even_a_daemon_in_a_session_of_its_own(settings: Settings) -> None:
    up(settings, "pair")
    eventually(lambda: len(all_processes(settings)) == 5)  # guard, supervisor, two services, the daemon
    before = all_processes(settings)
    assert control.down(settings, quiet()) == 0
    assert not [process for process in before if process.alive()]


def test_down_twice_and_down_of_nothing_are_no_errors(settings: Settings, tmp_path: Path) -> None:
    assert control.down(Settings(tmp_path / "never", settings.ports), quiet()) == 0
    up(settings, "pair")
    assert control.down(settings, quiet()) == 0
    assert control.down(settings, quiet()) == 0


def test_a_service_that_ignores_sigterm_is_killed(settings: Settings) -> None:
    up(settings, "stubborn")
    pid = now(settings).units["stubborn"].pid
    began = time.monotonic()
    control.down(settings, quiet())
    assert time.monotonic() - began < 5
    assert pid is not None
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize("victim", ["supervisor", "guard"])
def test_no_process_outlives_a_killed(settings: Settings, victim: str) -> None:
    up(settings, "pair")
    eventually(lambda: len(all_processes(settings)) == 5)
    before = all_processes(settings)
    os.kill(getattr(now(settings), victim).pid, signal.SIGKILL)
    eventually(lambda: not [process for process in before if process.alive()])
    assert not supervised(settings.run_dir)
    assert up(settings, "pair")  # and it can be started again


def test_leftovers_of_a_killed_supervisor_and_guard_are_found_and_an_unrelated_process_is_not(
    settings: Settings,
) -> None:
    up(settings, "pair")
    eventually(lambda: len(all_processes(settings)) == 5)
    before = all_processes(settings)
    status = now(settings)
    run, unrelated = (_run(settings, name) for name in ("run", "unrelated"))
    record = settings.run_dir / "standins" / "runs" / "unrelated" / "process.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"start_time": 1.0}))
    for process in (status.guard, status.supervisor):
        os.kill(process.pid, signal.SIGSTOP)  # neither may react to the other's death
    for process in (status.guard, status.supervisor):
        os.kill(process.pid, signal.SIGKILL)
    assert control.down(settings, quiet()) >= 1
    assert not [process for process in before if process.alive()]
    assert run.wait(5) == -signal.SIGTERM
    assert unrelated.poll() is None
    unrelated.kill()
    unrelated.wait()


def _run(settings: Settings, name: str) -> subprocess.Popen[bytes]:
    """A remote run, as the stand-ins' compute starts and records it."""
    run = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    folder = settings.run_dir / "standins" / "runs" / name
    folder.mkdir(parents=True)
    record = {"pid": run.pid, "pgid": run.pid, "start_time": psutil.Process(run.pid).create_time()}
    (folder / "process.json").write_text(json.dumps(record))
    return run
