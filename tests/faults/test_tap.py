"""The tap itself: it forwards everything, and kills exactly at the requested change."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from tests.faults.tap import Tap, Trap, normalise

pytestmark = pytest.mark.timeout(60)


class Service(ThreadingHTTPServer):
    """Responds with the body of the request and records its path."""

    def __init__(self) -> None:
        self.done: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self) -> None:
                if self.headers.get("Transfer-Encoding") == "chunked":
                    body = b""
                    while size := int(self.rfile.readline(), 16):
                        body += self.rfile.read(size)
                        self.rfile.readline()
                    self.rfile.readline()
                else:
                    body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                outer.done.append(self.path)
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_HEAD = do_POST = do_PUT  # noqa: N815 - as http.server calls them

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as service:
        yield service
        service.shutdown()


@pytest.fixture
def tap(service: Service) -> Iterator[Tap]:
    with Tap({"blob": service.server_address[1]}) as tap:
        yield tap


def url(tap: Tap, path: str) -> str:
    return f"http://127.0.0.1:{tap.ports['blob']}{path}"


def test_every_way_to_send_a_body_is_forwarded(tap: Tap, service: Service) -> None:
    big = bytes(range(256)) * 4096
    with httpx.Client(trust_env=False) as http:
        assert http.put(url(tap, "/a"), content=big).content == big
        assert http.put(url(tap, "/b"), content=iter([big, b"end"])).content == big + b"end"
        assert http.head(url(tap, "/c")).content == b""
        assert http.get(url(tap, "/d")).content == b""
    assert service.done == ["/a", "/b", "/c", "/d"]
    assert [change.name for change in tap.changes] == ["/a", "/b"]


@pytest.mark.parametrize(("when", "done"), [("before", ["/one"]), ("after", ["/one", "/two"])])
def test_the_requesting_process_is_killed_at_its_second_change(
    tap: Tap, service: Service, when: str, done: list[str]
) -> None:
    trap = Trap(lambda change: change.service == "blob", number=2, when=when)
    tap.traps = [trap]
    code = "import sys, httpx; [httpx.put(sys.argv[1] + path, trust_env=False) for path in ('/one', '/two', '/three')]"
    process = subprocess.run([sys.executable, "-c", code, url(tap, "")], check=False)
    assert process.returncode == -9
    assert service.done == done
    assert trap.sprung.wait(10)  # another thread records the kill after it
    assert trap.change is not None
    assert trap.change.kind == "blob PUT /two"


@pytest.mark.parametrize(
    ("target", "name"),
    [
        pytest.param(
            "/a/lake/silver/day=2025-06-27/part-00000-1a2b3c4d-0000-0000-0000-1a2b3c4d5e6f-c000.snappy.parquet",
            "/a/lake/silver/day={day}/part-*.snappy.parquet",
            id="a-file-of-a-partition",
        ),
        pytest.param(
            "/a/lake/x/_delta_log/00000000000000000012.json", "/a/lake/x/_delta_log/{version}.json", id="a-commit"
        ),
        pytest.param("/a/lake/f?comp=block&blockid=QUJD", "/a/lake/f?comp=block", id="a-block"),
        pytest.param(
            "/execution/task-instances/019f1a2b-0000-7000-8000-1a2b3c4d5e6f/run",
            "/execution/task-instances/*/run",
            id="a-task-instance",
        ),
        pytest.param(
            "/mlflow-artifacts/1/m-" + 32 * "a" + "/x%3D1.json", "/mlflow-artifacts/1/*/x=1.json", id="a-model"
        ),
        pytest.param(
            "/a/lake/ops/_ready/features.households/2024-05-28-0123456789abcdef",
            "/a/lake/ops/_ready/features.households/{day}-*",
            id="a-claim-of-a-day",
        ),
        pytest.param("/a/reports/models/churn/12.html", "/a/reports/models/churn/{n}.html", id="a-report-of-a-model"),
    ],
)
def test_a_boundary_has_the_same_name_in_every_run(target: str, name: str) -> None:
    assert normalise(target) == name
