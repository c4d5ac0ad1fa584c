"""A model registry without models, that answers when the test lets it: what waits for it runs as long as is needed."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class EmptyRegistry:
    """Speaks as much of MLflow's REST API as says that there is nothing: 404 to every question."""

    def __init__(self) -> None:
        self.answering = threading.Event()
        self.answering.set()
        answering = self.answering

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answering.wait(60)
                body = json.dumps({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "there are no models"}).encode()
                self.send_response(404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with suppress(BrokenPipeError):  # who asked was cancelled while it waited
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self.answering.set()
        self._server.shutdown()
        self._server.server_close()
