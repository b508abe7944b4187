"""The demo: an embedded Kafka-protocol broker, the real worker as a process of its own, and what comes out of it.

The broker is librdkafka's mock cluster, which lives in this process. It serves one group member well; it keeps only the newest
few megabytes of a partition, so what is published never runs far ahead of what has come out.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Protocol

from worker.contracts import dead_letter
from worker.core.failures import ConfigurationError, WorkerError
from worker.core.records import TopicNames
from worker.demo_shift import Shift
from worker.demo_view import DemoSummary, JsonView, OutputRecord, TerminalView
from worker.kafka.demo_producer import lines_with_keys

_MAX_AHEAD_RECORDS = 500
_MAX_AHEAD_BYTES = 512 * 1024
_MAX_LINE_BYTES = 1_500_000  # what the worker can still send on as a dead letter
_RECORD_OVERHEAD_BYTES = 1024
_SILENCE_DEADLINE_S = 90.0
_STOP_DEADLINE_S = 30.0
_READY_DEADLINE_S = 30.0
_READY_EVENT = "partitions ready"  # what is published earlier would show how long a start takes, not how long a label does
_LOG_LINES_SHOWN = 15
_PARTITIONS = 4  # librdkafka's mock cluster makes topics of four

Position = tuple[int, int]


class View(Protocol):
    """Shows what comes out."""

    def show(self, output: OutputRecord, source: dict[str, Any] | None) -> None:
        """Show one output record and the message that it answers, if that could be read."""
        ...

    def close(self, summary: DemoSummary) -> None:
        """Show the closing summary."""
        ...


def run_demo(names: TopicNames, chats: Path, *, as_json: bool, rate: float) -> None:
    """Publish a file's lines in order at `rate` a second (0: unpaced), and show every output record until all have come.

    Raises `WorkerError` when the worker stops or falls silent before every line has its outcome.
    """
    view: View = JsonView() if as_json else TerminalView()
    with tempfile.TemporaryDirectory(prefix="rugo-demo-") as folder:
        cluster = EmbeddedCluster(names)
        with _worker_process(cluster.bootstrap_servers, log_path=Path(folder) / "worker.log") as worker:
            journey = _Journey(cluster, worker, view=view, rate=rate)
            journey.carry(lines_with_keys(chats))
            worker.stop()
            journey.drain()
        view.close(journey.summary)


def run_board_demo(names: TopicNames, chats: Path, *, rate: float) -> None:
    """Publish a file's chats over and over, sent now and under new ids, with the live board open on them, until Ctrl-C."""
    shift = Shift(chats)
    view = _ShiftView(TerminalView(), shift)
    with tempfile.TemporaryDirectory(prefix="rugo-demo-") as folder:
        cluster = EmbeddedCluster(names)
        with (
            _board_process(cluster.bootstrap_servers, log_path=Path(folder) / "board.log"),
            _worker_process(cluster.bootstrap_servers, log_path=Path(folder) / "worker.log") as worker,
        ):
            journey = _Journey(cluster, worker, view=view, rate=rate)
            with suppress(KeyboardInterrupt):
                journey.carry(shift.lines())
            worker.stop()
            journey.drain()
        view.close(journey.summary)


class _ShiftView:
    """Shows what another view shows, and tells the shift of escalations."""

    def __init__(self, view: View, shift: Shift) -> None:
        self._view = view
        self._shift = shift

    def show(self, output: OutputRecord, source: dict[str, Any] | None) -> None:
        self._view.show(output, source)
        if output.kind == "escalation":
            self._shift.note_escalation(output.value)

    def close(self, summary: DemoSummary) -> None:
        self._view.close(summary)


class EmbeddedCluster:
    """librdkafka's mock cluster, with a producer for its input topic and a consumer of its output topics."""

    def __init__(self, names: TopicNames) -> None:
        try:
            from confluent_kafka import Consumer, Producer, TopicPartition
        except ImportError as error:
            raise ConfigurationError("the demo needs confluent-kafka: pip install 'rugo-worker[demo]'") from error
        self.names = names
        self._producer = Producer(
            {
                "test.mock.num.brokers": 1,
                "bootstrap.servers": "embedded",
                "linger.ms": 5,
                "log_level": 2,
                "message.max.bytes": _MAX_LINE_BYTES,
            }
        )
        brokers = self._producer.list_topics(timeout=10).brokers.values()
        self.bootstrap_servers = ",".join(f"{each.host}:{each.port}" for each in brokers)
        for name in names.all:
            self._producer.list_topics(name, timeout=10)  # asking for a topic creates it
        self._consumer = Consumer(
            {"bootstrap.servers": self.bootstrap_servers, "group.id": "demo-view", "fetch.wait.max.ms": 5, "log_level": 2}
        )
        outputs = (names.emotions, names.escalations, names.dead_letter)
        self._consumer.assign([TopicPartition(name, each, 0) for name in outputs for each in range(_PARTITIONS)])

    def publish(self, value: bytes, *, key: bytes | None) -> Position:
        """Publish one record to the input topic and return its position once it is confirmed."""
        if len(value) > _MAX_LINE_BYTES - _RECORD_OVERHEAD_BYTES:
            raise WorkerError(
                f"a line of {len(value)} bytes is more than a Kafka record holds here: shorten it or leave it out"
            )
        confirmed: list[tuple[Any, Any]] = []
        self._producer.produce(
            self.names.input, value=value, key=key, on_delivery=lambda error, message: confirmed.append((error, message))
        )
        while not confirmed:
            self._producer.poll(0.1)
        error, message = confirmed[0]
        if error is not None:
            raise WorkerError(f"the embedded broker refused a record: {error}")
        return message.partition(), message.offset()

    def poll(self, timeout_s: float) -> OutputRecord | None:
        """Return the next output record, or None when there is none in time."""
        message = self._consumer.poll(timeout_s)
        if message is None or message.error():
            return None
        return self._output_of(message)

    def _output_of(self, message: Any) -> OutputRecord:
        topic, headers = message.topic(), dict(message.headers() or ())
        if topic == self.names.dead_letter:
            answers = (int(headers[dead_letter.PARTITION]), int(headers[dead_letter.OFFSET]))
            reason = headers[dead_letter.REASON].decode()
            return OutputRecord("dead letter", topic, (message.value() or b"").decode("utf-8", "replace"), answers, reason)
        value = json.loads(message.value())
        if topic == self.names.escalations:
            _, partition, offset = value["event_id"].rsplit("-", 2)
            return OutputRecord("escalation", topic, value, (int(partition), int(offset)))
        return OutputRecord("emotions", topic, value, (value["source"]["partition"], value["source"]["offset"]))


class _Process:
    """The real worker or the real board, started as its users start it; `name` is what sentences call it."""

    def __init__(self, name: str, process: "subprocess.Popen[Any]", *, log_path: Path) -> None:
        self._name = name
        self._process = process
        self._log_path = log_path

    def check(self) -> None:
        """Raise `WorkerError` if the process has ended."""
        if self._process.poll() is not None:
            raise self.failure(f"the {self._name} ended with exit code {self._process.returncode}")

    def failure(self, sentence: str) -> WorkerError:
        """Return a failure that carries the end of the process' log."""
        tail = self._log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES_SHOWN:]
        return WorkerError("\n".join([f"{sentence}. Its last words:", *tail]))

    def wait_until_it_says(self, event: str, *, deadline_s: float) -> None:
        """Return once the log holds the event, or the deadline is over. Raises `WorkerError` if the process has ended."""
        give_up_at_s = time.monotonic() + deadline_s
        while event not in self._log_path.read_text(encoding="utf-8", errors="replace") and time.monotonic() < give_up_at_s:
            self.check()
            time.sleep(0.05)

    def stop(self) -> None:
        """Ask the process to stop, which lets a worker finish and commit what it has begun; kill one that takes too long."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def _worker_process(bootstrap_servers: str, *, log_path: Path) -> Iterator[_Process]:
    overrides = {
        "RUGO_BOOTSTRAP_SERVERS": bootstrap_servers,
        "RUGO_HTTP_PORT": "0",
        "RUGO_MAX_REJECTED_SHARE": "1",  # a file of malformed lines is a fair thing to show
        "RUGO_FETCH_MAX_WAIT_MS": "5",  # the mock cluster does not wake a waiting fetch
        "RUGO_LOG_LEVEL": "INFO",  # it says there when it is ready
    }
    log: IO[bytes]
    with log_path.open("wb") as log:
        process = subprocess.Popen(  # our own module, no shell
            [sys.executable, "-m", "worker", "run"], env={**os.environ, **overrides}, stdout=log, stderr=log
        )
        worker = _Process("worker", process, log_path=log_path)
        try:
            worker.wait_until_it_says(_READY_EVENT, deadline_s=_READY_DEADLINE_S)
            yield worker
        finally:
            worker.stop()


@contextmanager
def _board_process(bootstrap_servers: str, *, log_path: Path) -> Iterator[None]:
    with log_path.open("wb") as log:
        process = subprocess.Popen(  # our own module, no shell
            [sys.executable, "-m", "worker", "board"],
            env={**os.environ, "RUGO_BOOTSTRAP_SERVERS": bootstrap_servers},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        board = _Process("board", process, log_path=log_path)
        try:
            announcement = process.stdout.readline() if process.stdout else ""
            if not announcement:
                process.wait(_STOP_DEADLINE_S)
                board.check()
            sys.stdout.write(f"{announcement.rstrip()}   (Ctrl-C ends the demo)\n")
            sys.stdout.flush()
            _open_in_browser(announcement.split()[-1])
            yield
        finally:
            board.stop()


def _open_in_browser(url: str) -> None:
    # Without a screen a text browser might take the terminal.
    if sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(url)


class _Journey:
    """Publishes lines no further ahead than the cluster can keep, and shows what comes out."""

    def __init__(self, cluster: EmbeddedCluster, worker: _Process, *, view: View, rate: float) -> None:
        self.summary = DemoSummary()
        self._cluster = cluster
        self._worker = worker
        self._view = view
        self._rate = rate
        self._waiting: dict[Position, tuple[bytes, float]] = {}
        self._waiting_bytes = 0
        self._held: dict[Position, OutputRecord] = {}

    def carry(self, lines: Iterator[tuple[bytes, bytes | None]]) -> None:
        """Return once every line is published and has its outcome."""
        started_s = time.monotonic()
        try:
            for value, key in lines:
                while self._is_too_far_ahead():
                    self._take_one()
                self._waiting[self._cluster.publish(value, key=key)] = (value, time.monotonic())
                self._waiting_bytes += len(value)
                self.summary.published += 1
                self._pause_until(started_s + self.summary.published / self._rate if self._rate else 0.0)
            while self._waiting:
                self._take_one()
        finally:
            self.summary.seconds = time.monotonic() - started_s

    def drain(self) -> None:
        """Show what is left once the worker has stopped: an escalation may come after the last label."""
        quiet_polls = 0
        while quiet_polls < 3:
            output = self._cluster.poll(0.2)
            quiet_polls = quiet_polls + 1 if output is None else 0
            if output is not None:
                self._show(output)

    def _is_too_far_ahead(self) -> bool:
        return len(self._waiting) >= _MAX_AHEAD_RECORDS or self._waiting_bytes >= _MAX_AHEAD_BYTES

    def _pause_until(self, deadline_s: float) -> None:
        while (left_s := deadline_s - time.monotonic()) > 0:
            output = self._cluster.poll(min(left_s, 0.05))
            if output is not None:
                self._show(output)

    def _take_one(self) -> None:
        give_up_at_s = time.monotonic() + _SILENCE_DEADLINE_S
        while (output := self._cluster.poll(0.1)) is None:
            self._worker.check()
            if time.monotonic() > give_up_at_s:
                raise self._worker.failure(f"nothing came out for {_SILENCE_DEADLINE_S:g} s")
        self._show(output)

    def _show(self, output: OutputRecord) -> None:
        source: dict[str, Any] | None = None
        if output.kind == "escalation" and output.answers in self._waiting:
            # Topics are read side by side: it waits for the label of the message that set it off.
            self._held[output.answers] = output
            return
        if output.answers in self._waiting:
            value, published_s = self._waiting.pop(output.answers)
            self._waiting_bytes -= len(value)
            self.summary.latencies_s.append(time.monotonic() - published_s)
            source = json.loads(value) if output.kind == "emotions" else None
        self.summary.count(output)
        self._view.show(output, source)
        if output.answers in self._held:
            self._show(self._held.pop(output.answers))
