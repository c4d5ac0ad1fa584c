"""The machine in a table: what runs, since when, on which port, how much memory, and where its log is."""

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
    """One service, asked just now."""

    name: str
    healthy: bool
    state: str
    status: UnitStatus
    ports: str
    memory: int  # bytes: what it and all its processes use, shared pages divided among their users (PSS)


def status(settings: Settings, console: Console, machine: str = MACHINE) -> bool:
    """Print the table; True only if every service is healthy, which each is asked now."""
    now = load(settings.run_dir) if supervised(settings.run_dir) else None
    if now is None:
        console.print(f"The machine in {settings.run_dir} is not up: `make up` starts it.")
        return False
    rows = look(settings, now, machine)
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
    own = sum(_memory(one.pid) for one in (now.guard, now.supervisor))
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


def look(settings: Settings, now: MachineStatus, machine: str = MACHINE) -> list[Row]:
    """Every service (jobs only where they failed), with its health asked now."""
    rows = []
    with ThreadPoolExecutor(8) as pool:
        asked = []
        for name, unit in ordered(load_machine(machine)(settings)).items():
            one = now.units.get(name)
            if one is not None and (not one.once or one.state == "failed"):
                asked.append((unit, one, pool.submit(_ask, unit.check, one)))
        for unit, one, answer in asked:
            missing = answer.result()
            state = "healthy" if missing is None else missing
            if one.restarts:
                state += f" ({one.restarts} restarts)"
            ports = ", ".join(str(settings.ports[port]) for port in unit.ports)
            memory = sum(_memory(pid) for pid in _tree(one)) if one.pid else 0
            rows.append(Row(unit.name, missing is None, state, one, ports, memory))
    return rows


def _ask(check: Check | None, unit: UnitStatus) -> str | None:
    """None when healthy, else the state and what is missing."""
    if unit.state != "ready":
        return f"{unit.state}: {unit.detail}" if unit.detail else unit.state
    missing = check(unit.started or 0.0) if check else None
    return None if missing is None else f"not answering: {missing}"


def _tree(unit: UnitStatus) -> list[int]:
    assert unit.pid is not None  # asked by the only caller
    return [unit.pid, *(one.pid for one in processes.descendants(unit.pid))]


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
    """What to open in a browser, and with which password."""
    password = load_secrets(settings)["airflow_admin_password"]
    console.print(f"Airflow  {settings.url('airflow')}  (user admin, password {password})", highlight=False)
    console.print(f"MLflow   {settings.url('mlflow')}", highlight=False)
