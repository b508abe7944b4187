"""Live and ready, told truthfully, and the small HTTP server that says so from a thread of its own.

The server is not on the event loop, so that it can tell that the loop hangs.
"""

import json
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from http import HTTPStatus
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from worker.core.failures import ConfigurationError
from worker.telemetry.http_server import BoundedHttpServer, Route

_LOOP_STALL_S = 15.0
_JSON = "application/json; charset=utf-8"


@dataclass(slots=True)
class Progress:
    """Whether records wait, and when anything of the work last moved. Any thread may write and read."""

    waiting_since_s: float | None = None
    last_move_s: float = field(default_factory=time.monotonic)

    def move(self) -> None:
        """Note that something moved: a micro-batch, a poll that was settled, a position."""
        self.last_move_s = time.monotonic()

    def look(self, are_records_waiting: bool) -> None:
        """Note whether records wait now."""
        if not are_records_waiting:
            self.waiting_since_s = None
        elif self.waiting_since_s is None:
            self.waiting_since_s = time.monotonic()

    def stalled_s(self) -> float:
        """Return for how long records have waited while nothing moved; 0 where none wait."""
        waiting_since_s = self.waiting_since_s
        return 0.0 if waiting_since_s is None else time.monotonic() - max(waiting_since_s, self.last_move_s)


@dataclass(slots=True)
class Health:
    """What is known of the worker's state. Written on the event loop, read from the server's threads."""

    stall_deadline_s: float = math.inf
    progress: Progress = field(default_factory=Progress)
    is_model_warm: bool = False
    is_broker_reachable: Callable[[], bool] = field(default=lambda: False)
    assigned_partitions: int = 0
    is_spare: bool = False
    is_stopping: bool = False
    last_beat_s: float = field(default_factory=time.monotonic)

    def beat(self) -> None:
        """Note that the event loop turns."""
        self.last_beat_s = time.monotonic()

    def live_problems(self) -> list[str]:
        """Return why the process should be restarted; empty when live."""
        still_s, stalled_s = time.monotonic() - self.last_beat_s, self.progress.stalled_s()
        problems = []
        if still_s > _LOOP_STALL_S:
            problems.append(f"the event loop has not turned for {still_s:.0f} s")
        if stalled_s > self.stall_deadline_s and not self.is_stopping:
            problems.append(f"records wait and nothing has moved for {stalled_s:.0f} s")
        return problems

    def ready_problems(self) -> list[str]:
        """Return why the worker can't do its job now; empty when ready."""
        checks = {
            "the model is not loaded yet": self.is_model_warm,
            "the broker does not answer": self.is_broker_reachable(),
            "no partition is assigned": self.assigned_partitions > 0 or self.is_spare,
            "the worker is stopping": not self.is_stopping,
        }
        return self.live_problems() + [problem for problem, holds in checks.items() if not holds]

    def ready_note(self) -> str | None:
        """Return what is unusual though nothing is wrong."""
        if not self.is_spare or self.assigned_partitions:
            return None
        return "a spare: the group has more workers than the topic has partitions, this one takes over when one leaves"


class HealthServer:
    """Serves /live, /ready, /metrics and /asyncapi.json. `port` 0 takes any free one."""

    def __init__(
        self, host: str, port: int, *, health: Health, registry: CollectorRegistry, asyncapi: Callable[[], dict[str, Any]]
    ) -> None:
        # Made once: whoever asks for it again and again shall not keep the interpreter busy.
        document = cache(lambda: json.dumps(asyncapi(), ensure_ascii=False).encode())
        routes: dict[str, Route] = {
            "/live": lambda: _verdict("live", health.live_problems()),
            "/ready": lambda: _verdict("ready", health.ready_problems(), note=health.ready_note()),
            "/metrics": lambda: (HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(registry)),
            "/asyncapi.json": lambda: (HTTPStatus.OK, _JSON, document()),
        }
        try:
            self._server = BoundedHttpServer((host, port), routes)
        except OSError as error:
            raise ConfigurationError(
                f"can't listen on {host}:{port} ({error.strerror or error}): set RUGO_HTTP_HOST and RUGO_HTTP_PORT "
                "(0 takes any free port)."
            ) from error
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


def _verdict(claim: str, problems: list[str], *, note: str | None = None) -> tuple[HTTPStatus, str, bytes]:
    body = json.dumps({claim: not problems, "problems": problems, **({"note": note} if note else {})}).encode()
    return (HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK), _JSON, body
