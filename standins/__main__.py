"""`python -m standins --state DIR --port P --proxy-port Q`: the local cloud as one process.

Listens with TLS on P and as CONNECT proxy on Q; 0 selects a free port. `DIR/address.json` holds both ports and the
path of the certificate authority; it is written when the server accepts requests.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import json
import logging
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from standins.core.cloud import Cloud, Settings, SettingsError
from standins.core.files import write_public
from standins.faults.injection import protocol
from standins.faults.rules import Faults
from standins.server import certificates
from standins.server.app import create_app
from standins.server.proxy import Proxy


class _Server(uvicorn.Server):
    """uvicorn without its signal handling, which would end the process before the proxy is closed."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        raise SystemExit(
            f"standins: {host}:{port} cannot be listened on: {error.strerror}. Choose another port"
        ) from error
    # inherited by every connection: otherwise Nagle and delayed acknowledgements add 40 ms to each response
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.listen(128)
    listener.setblocking(False)
    return listener


async def _serve(cloud: Cloud, listener: socket.socket, proxy_listener: socket.socket) -> None:
    settings = cloud.settings
    ca, certificate, key = certificates.ensure(settings.state_dir)
    faults = Faults()
    config = uvicorn.Config(
        create_app(cloud, faults),
        http=protocol(faults),
        ssl_certfile=str(certificate),
        ssl_keyfile=str(key),
        log_config=None,
        access_log=True,
        timeout_graceful_shutdown=1,
        timeout_keep_alive=75,
    )
    server = _Server(config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, setattr, server, "should_exit", True)
    listening_on = listener.getsockname()[0]
    host = "127.0.0.1" if ipaddress.ip_address(listening_on).is_unspecified else listening_on
    proxy = Proxy((host, settings.port), faults.clients)
    await proxy.start(proxy_listener)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.02)
    if server.started:
        address = {"port": settings.port, "proxy_port": settings.proxy_port, "ca": str(ca.resolve())}
        write_public(settings.state_dir / "address.json", json.dumps(address).encode())
        logging.getLogger("standins").info("serving: %s", address)
    await serving
    await proxy.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="standins", description="A local cloud.")
    parser.add_argument("--state", type=Path, required=True, help="folder for state, keys and certificates")
    parser.add_argument("--port", type=int, default=0, help="TLS port of all services (0: any free port)")
    parser.add_argument("--proxy-port", type=int, default=0, help="port of the CONNECT proxy (0: any free port)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 inside a container")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    for chatty in ("azure", "urllib3"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    (args.state / "address.json").unlink(missing_ok=True)
    listener, proxy_listener = _listen(args.host, args.port), _listen(args.host, args.proxy_port)
    ports = listener.getsockname()[1], proxy_listener.getsockname()[1]
    try:
        settings = Settings.from_environment(args.state, *ports)
    except SettingsError as error:
        raise SystemExit(f"standins: {error}") from error
    asyncio.run(_serve(Cloud(settings), listener, proxy_listener))


if __name__ == "__main__":
    main()
