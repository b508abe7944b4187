"""The real worker as a process: started as its users start it, waited for, asked over HTTP, stopped."""

import json
import os
import re
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def wait_until(condition: Callable[[], object], deadline_s: float = 60.0, *, what: str = "") -> None:
    """Return once the condition holds; fail the test when it does not in time."""
    give_up_at_s = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > give_up_at_s:
            raise AssertionError(f"not within {deadline_s:g} s: {what or condition}")
        time.sleep(0.05)


@dataclass
class WorkerProcess:
    """A worker started as its users start it; its log is kept for the failure message."""

    command: Sequence[str]
    environment: dict[str, str]
    process: "subprocess.Popen[bytes]" = field(init=False)
    log_path: Path = field(init=False)

    def __post_init__(self) -> None:
        handle, name = tempfile.mkstemp(prefix="rugo-worker-", suffix=".log")
        self.log_path = Path(name)
        with os.fdopen(handle, "wb") as log:
            self.process = subprocess.Popen(
                self.command, env={**os.environ, **self.environment}, stdout=log, stderr=log, cwd=ROOT
            )

    @property
    def log(self) -> str:
        return self.log_path.read_text("utf-8", "replace")

    @property
    def http_port(self) -> int:
        """The port of /live, /ready and /metrics, which the worker says in its log once its model is warm."""
        return int(re.findall(r'"http_port": ?(\d+)', self.log)[0])

    def wait_until_assigned(self, deadline_s: float = 60.0) -> None:
        wait_until(lambda: "partitions assigned" in self.log or self.process.poll() is not None, deadline_s, what=self.log)
        assert self.process.poll() is None, self.log

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self, deadline_s: float = 30.0) -> int:
        return self.process.wait(deadline_s)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill()
        self.log_path.unlink(missing_ok=True)


def ask(worker: WorkerProcess, path: str) -> tuple[int, dict[str, Any]]:
    """Return status and body of a probe of the worker's health."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{worker.http_port}{path}", timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def wait_until_ready(worker: WorkerProcess) -> None:
    worker.wait_until_assigned()
    wait_until(lambda: ask(worker, "/ready")[0] == 200, 20, what=worker.log)
