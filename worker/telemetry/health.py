"""Live and ready, told truthfully, and the small HTTP server that says so from a thread of its own.

The server is not on the event loop, so that it can tell that the loop hangs.
"""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from worker.core.failures import ConfigurationError

_LOOP_STALL_S = 15.0
_JSON = "application/json; charset=utf-8"


@dataclass(slots=True)
class Health:
    """What is known of the worker's state. Written on the event loop, read from the server's threads."""

    is_model_warm: bool = False
    is_broker_reachable: Callable[[], bool] = field(default=lambda: False)
    assigned_partitions: int = 0
    is_stopping: bool = False
    last_beat_s: float = field(default_factory=time.monotonic)

    def beat(self) -> None:
        """Note that the event loop turns."""
        self.last_beat_s = time.monotonic()

    def live_problems(self) -> list[str]:
        """Return why the process should be restarted; empty when live."""
        stalled_s = time.monotonic() - self.last_beat_s
        return [f"the event loop has not turned for {stalled_s:.0f} s"] if stalled_s > _LOOP_STALL_S else []

    def ready_problems(self) -> list[str]:
        """Return why the worker can't do its job now; empty when ready."""
        checks = {
            "the model is not loaded yet": self.is_model_warm,
            "the broker does not answer": self.is_broker_reachable(),
            "no partition is assigned": self.assigned_partitions > 0,
            "the worker is stopping": not self.is_stopping,
        }
        return self.live_problems() + [problem for problem, holds in checks.items() if not holds]


class HealthServer:
    """Serves /live, /ready, /metrics and /asyncapi.json. `port` 0 takes any free one."""

    def __init__(
        self, host: str, port: int, *, health: Health, registry: CollectorRegistry, asyncapi: Callable[[], dict[str, Any]]
    ) -> None:
        routes: dict[str, Callable[[], tuple[HTTPStatus, str, bytes]]] = {
            "/live": lambda: _verdict("live", health.live_problems()),
            "/ready": lambda: _verdict("ready", health.ready_problems()),
            "/metrics": lambda: (HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(registry)),
            "/asyncapi.json": lambda: (HTTPStatus.OK, _JSON, json.dumps(asyncapi(), ensure_ascii=False).encode()),
        }
        try:
            self._server = ThreadingHTTPServer((host, port), _handler_of(routes))
        except OSError as error:
            raise ConfigurationError(
                f"can't listen on {host}:{port} ({error.strerror or error}): set RUGO_HTTP_HOST and RUGO_HTTP_PORT "
                "(0 takes any free port)."
            ) from error
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering and free the port."""
        self._server.shutdown()
        self._server.server_close()


def _verdict(claim: str, problems: list[str]) -> tuple[HTTPStatus, str, bytes]:
    body = json.dumps({claim: not problems, "problems": problems}).encode()
    return (HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK), _JSON, body


def _handler_of(routes: dict[str, Callable[[], tuple[HTTPStatus, str, bytes]]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 5.0

        def do_GET(self) -> None:
            route = routes.get(self.path.partition("?")[0])
            if route is None:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            status, content_type, body = route()
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing: probes come every few seconds."""

    return Handler
