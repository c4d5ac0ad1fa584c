"""A model registry without models that responds when the test allows it: a stage that waits for it runs as long as needed."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class EmptyRegistry:
    """The part of MLflow's REST API that reports missing models: it responds to every request with 404."""

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
                with suppress(BrokenPipeError):  # the client was cancelled while it waited
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Log nothing."""

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
