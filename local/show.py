"""The machine as a table: each service with its uptime, port, memory and log."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from local import processes
from local.control import MACHINE
from local.settings import Settings, load_secrets
from local.state import MachineStatus, UnitStatus, load, supervised
from local.unit import Check, load_machine, ordered


@dataclass(frozen=True)
class Row:
    """One service and its present health."""

    name: str
    healthy: bool
    state: str
    status: UnitStatus
    ports: str
    memory: int  # bytes of it and all its processes; shared pages are divided among their users (PSS)


def status(settings: Settings, console: Console, machine: str = MACHINE) -> bool:
    """Check every service and print the table; True only if all are healthy."""
    now = load(settings.run_dir) if supervised(settings.run_dir) else None
    if now is None:
        console.print(f"The machine in {settings.run_dir} is not up: `make up` starts it.")
        return False
    rows = check_services(settings, now, machine)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("service", "state", "pid", "port", "uptime", "memory", "log"):
        table.add_column(
            heading, justify="right" if heading in ("pid", "uptime", "memory") else "left", overflow="fold"
        )
    for row in rows:
        state = f"[{'green' if row.healthy else 'red'}]{row.state}[/]"
        uptime = _duration(time.time() - row.status.started) if row.status.pid and row.status.started else ""
        table.add_row(
            row.name,
            state,
            str(row.status.pid or ""),
            row.ports,
            uptime,
            _megabytes(row.memory),
            _log(settings, row.name),
        )
    own = sum(_memory(process.pid) for process in (now.guard, now.supervisor))
    table.add_row(
        "supervisor",
        now.phase,
        str(now.supervisor.pid),
        "",
        "",
        _megabytes(own),
        _log(settings, "supervisor"),
    )
    table.add_row("together", "", "", "", "", _megabytes(own + sum(row.memory for row in rows)), "")
    console.print(table)
    return now.phase == "up" and all(row.healthy for row in rows)


def check_services(settings: Settings, now: MachineStatus, machine: str = MACHINE) -> list[Row]:
    """Every service (jobs only if they failed), with its present health."""
    rows = []
    with ThreadPoolExecutor(8) as pool:
        checks = []
        for name, unit in ordered(load_machine(machine)(settings)).items():
            unit_status = now.units.get(name)
            if unit_status is not None and (not unit_status.once or unit_status.state == "failed"):
                checks.append((unit, unit_status, pool.submit(_problem, unit.check, unit_status)))
        for unit, unit_status, check in checks:
            problem = check.result()
            state = "healthy" if problem is None else problem
            if unit_status.restarts:
                state += f" ({unit_status.restarts} restarts)"
            ports = ", ".join(str(settings.ports[port]) for port in unit.ports)
            memory = sum(_memory(pid) for pid in _tree(unit_status)) if unit_status.pid else 0
            rows.append(Row(unit.name, problem is None, state, unit_status, ports, memory))
    return rows


def _problem(check: Check | None, unit: UnitStatus) -> str | None:
    """None when healthy, else the state and what is missing."""
    if unit.state != "ready":
        return f"{unit.state}: {unit.detail}" if unit.detail else unit.state
    missing = check(unit.started or 0.0) if check else None
    return None if missing is None else f"not answering: {missing}"


def _tree(unit: UnitStatus) -> list[int]:
    assert unit.pid is not None  # the only caller checks it
    return [unit.pid, *(process.pid for process in processes.descendants(unit.pid))]


def _memory(pid: int) -> int:
    try:
        process = psutil.Process(pid)
        try:
            size: int = process.memory_full_info().pss
        except psutil.AccessDenied:
            size = process.memory_info().rss
    except psutil.NoSuchProcess:
        return 0
    return size


def _log(settings: Settings, name: str) -> str:
    path = settings.log_dir / f"{name}.log"
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def addresses(settings: Settings, console: Console) -> None:
    """Print the addresses to open in a browser, and the password."""
    password = load_secrets(settings)["airflow_admin_password"]
    console.print(f"Airflow  {settings.url('airflow')}  (user admin, password {password})", highlight=False)
    console.print(f"MLflow   {settings.url('mlflow')}", highlight=False)
