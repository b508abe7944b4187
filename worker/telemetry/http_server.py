"""A small HTTP server that a stranger can't wear out: GET of a few paths, and nothing of the request comes back.

- Connections are bounded; when there are too many, the oldest is dropped, so that slow ones can't keep a probe out.
- Answers don't tell which Python serves them, and a client's broken connection leaves no traceback.
"""

import socket
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import structlog

MAX_CONNECTIONS = 32
_READ_TIMEOUT_S = 5.0

Route = Callable[[], tuple[HTTPStatus, str, bytes]]

_log = structlog.get_logger(__name__)


class BoundedHttpServer(ThreadingHTTPServer):
    """Answers each path with its route's status, content type and body, from threads that don't outlive the process."""

    daemon_threads = True
    request_queue_size = MAX_CONNECTIONS

    def __init__(self, address: tuple[str, int], routes: Mapping[str, Route]) -> None:
        self._open: dict[Any, None] = {}  # in the order in which they came
        self._lock = threading.Lock()
        super().__init__(address, _handler_of(routes))

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection from a thread of its own, at the cost of the oldest if there are too many."""
        with self._lock:
            self._open[request] = None
            if len(self._open) > MAX_CONNECTIONS:
                oldest = next(iter(self._open))
                del self._open[oldest]
                _shut(oldest)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection that was served."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Name the error and no more: the standard traceback is for a client that hung up, and could show what it sent."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            _log.error("HTTP request failed", error=type(error).__name__)


def _shut(connection: Any) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)  # its thread sees the end, and closes it


def _handler_of(routes: Mapping[str, Route]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _READ_TIMEOUT_S
        server_version, sys_version = "rugo-worker", ""

        def do_GET(self) -> None:
            route = routes.get(self.path.partition("?")[0])
            if route is None:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            self._answer(*route())

        def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
            """Answer with the status alone: the standard page would show the request."""
            status = HTTPStatus(code)
            self.close_connection, self.request_version = True, "HTTP/1.0"  # else nonsense gets an answer without a status
            if status is HTTPStatus.NOT_IMPLEMENTED:  # how the standard library names a method without a do_
                status = HTTPStatus.METHOD_NOT_ALLOWED
            self._answer(status, "text/plain; charset=utf-8", status.phrase.encode())

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing: probes come every few seconds."""

        def _answer(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
            self.send_response(status)
            if status is HTTPStatus.METHOD_NOT_ALLOWED:
                self.send_header("Allow", "GET")
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(body)

    return Handler
