"""`python -m local up|down|status|restart NAME|logs NAME|env|demo`: the whole machine from one command."""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import sys

from rich.console import Console

from local import control, environment, show
from local.settings import Settings, SettingsError
from local.state import current_settings


def main() -> int:
    if sys.argv[1:2] == ["demo"]:
        code: int = importlib.import_module("local.demo").main(sys.argv[2:])
        return code
    parser = argparse.ArgumentParser(prog="python -m local", description="The whole machine on one computer.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start every service; returns when all are ready")
    commands.add_parser("down", help="stop every service and leave no process behind")
    commands.add_parser("status", help="a table of the services; exit code 0 only if all are healthy")
    commands.add_parser(
        "env", help='shell exports for `eval "$(python -m local env)"`, to use airflow and python -m ml'
    )
    commands.add_parser("restart", help="stop one service and start it again").add_argument("name")
    logs = commands.add_parser("logs", help="the log of one service, or of the supervisor")
    logs.add_argument("name")
    logs.add_argument("-f", "--follow", action="store_true", help="keep printing as the log grows")
    commands.add_parser("demo", help="the whole loop on real data", add_help=False)
    arguments = parser.parse_args()
    console = Console(stderr=arguments.command == "env", soft_wrap=True)
    if not console.is_terminal:
        console.width = 160  # a pipe has no width, and a file can be scrolled
    try:
        return _run(arguments, current_settings(), console)
    except (control.ControlError, SettingsError, PermissionError, TimeoutError) as error:
        console.print(str(error), style="red", markup=False, highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted; the services that were started keep running: `make status`, `make down`.")
        return 130


def _run(arguments: argparse.Namespace, settings: Settings, console: Console) -> int:
    match arguments.command:
        case "up":
            if not control.up(settings, console):
                console.print("The machine is already up.")
            show.addresses(settings, console)
        case "down":
            leftovers = control.down(settings, console)
            ended = f" ({leftovers} left by a killed supervisor were ended)" if leftovers else ""
            console.print(f"Down; no process is left{ended}.")
        case "status":
            healthy = show.status(settings, console)
            if healthy:
                show.addresses(settings, console)
            return 0 if healthy else 1
        case "env":
            print(environment.exports(environment.full(settings)))
        case "restart":
            control.restart(settings, arguments.name, console)
        case "logs":
            _logs(settings, arguments.name, arguments.follow)
    return 0


def _logs(settings: Settings, name: str, follow: bool) -> None:
    path = settings.log_dir / f"{name}.log"
    if not path.exists():
        names = sorted(log.stem for log in settings.log_dir.glob("*.log"))
        raise control.ControlError(f"there is no log {name!r}; existing logs: {', '.join(names) or 'none yet'}")
    tail = shutil.which("tail") or "/usr/bin/tail"
    os.execv(tail, ["tail", "-n", "200", *(["-F"] if follow else []), str(path)])  # noqa: S606 - no shell is meant


if __name__ == "__main__":
    sys.exit(main())
