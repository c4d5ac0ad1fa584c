"""The part of MLflow's REST API that sweeps and their trials use, in this process: a real server takes 25 s to start.

`tests/standins/azure_ml/sweep/test_job_type.py` compares it with the real server, in a slow test.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


class SmallMlflow:
    def __init__(self) -> None:
        self.down = False
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def respond(self, path: str, arguments: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        with self._lock:
            if self.down:
                return 503, {"message": "down"}
            return getattr(self, path.replace("/", "_").replace("-", "_"))(**arguments)

    def experiments_get_by_name(self, experiment_name: str) -> Any:
        experiment = self.experiments.get(experiment_name)
        return (200, {"experiment": {"experiment_id": experiment}}) if experiment else (404, {})

    def experiments_create(self, name: str) -> Any:
        self.experiments[name] = str(len(self.experiments) + 1)
        return 200, {"experiment_id": self.experiments[name]}

    def runs_search(self, experiment_ids: list[str], filter: str, max_results: int) -> Any:  # noqa: A002 - MLflow's name
        match = re.fullmatch(r"tags\.`(.+)` = '(.+)'", filter)
        assert match, filter
        tag = {"key": match[1], "value": match[2]}
        return 200, {"runs": [run for run in self.runs.values() if tag in run["data"]["tags"]]}

    def runs_create(self, experiment_id: str, run_name: str, tags: list[Any], start_time: int) -> Any:
        key = f"run{len(self.runs)}"
        info = {"run_id": key, "experiment_id": experiment_id, "run_name": run_name, "start_time": start_time}
        self.runs[key] = {"info": {**info, "status": "RUNNING"}, "data": {"tags": tags}, "logged": []}
        return 200, {"run": self.runs[key]}

    def runs_get(self, run_id: str) -> Any:
        run = self.runs[run_id]
        last = {row["key"]: row for row in run["logged"]}
        return 200, {"run": {**run, "data": {**run["data"], "metrics": list(last.values())}}}

    def runs_update(self, run_id: str, status: str, end_time: int) -> Any:
        self.runs[run_id]["info"] |= {"status": status, "end_time": end_time}
        return 200, {}

    def runs_log_metric(self, run_id: str, **row: Any) -> Any:
        self.runs[run_id]["logged"].append(row)
        return 200, {}

    def metrics_get_history(self, run_id: str, metric_key: str) -> Any:
        return 200, {"metrics": [row for row in self.runs[run_id]["logged"] if row["key"] == metric_key]}


@contextmanager
def small_mlflow() -> Iterator[tuple[SmallMlflow, str]]:
    """Start the server and yield it with its URL."""
    mlflow = SmallMlflow()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            split = urlsplit(self.path)
            self._send_response(split.path, {name: values[0] for name, values in parse_qs(split.query).items()})

        def do_POST(self) -> None:
            self._send_response(self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _send_response(self, path: str, arguments: dict[str, Any]) -> None:
            status, response = mlflow.respond(path.removeprefix("/api/2.0/mlflow/"), arguments)
            body = json.dumps(response).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield mlflow, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
