"""A real Apache Kafka for tests: one that is running already, one started from jars, or one in a container.

`with kafka_for_tests() as kafka` gives the first that can be had, or a `NoKafka` whose reason names what to install.
The methods block: call them with `asyncio.to_thread` from a coroutine.
"""

import os
import resource
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.support.kafka_jars import KAFKA_VERSION, KafkaUnavailableError, usable_jars
from tests.support.processes import broker_answers, comes_true, dismiss_guard, end_of, free_ports, start_guard

IMAGE = f"apache/kafka:{KAFKA_VERSION}"
CLUSTER_ID = "cnVnby13b3JrZXItdGVzdA"

READY_DEADLINE_S = 60.0
STOP_DEADLINE_S = 20.0
PULL_DEADLINE_S = 600.0


class Kafka(Protocol):
    """What every way to have a Kafka offers; `start` returns once it answers."""

    @property
    def bootstrap_servers(self) -> str: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class NoKafka:
    """Why no Kafka can be had here, and what would change that: the text for `pytest.skip`."""

    reason: str


class KafkaStartError(Exception):
    """A Kafka that should have answered did not."""


@contextmanager
def kafka_for_tests(ways: "Sequence[Callable[[], Kafka]] | None" = None) -> Iterator[Kafka | NoKafka]:
    """Yield a started Kafka and stop it afterwards, or yield the reason why there is none.

    Tries in turn the one that KAFKA_BOOTSTRAP_SERVERS names, Java with Maven, and Docker. One that can be had but does
    not start is a `KafkaStartError`, never a reason to skip.
    """
    kafka = find_kafka(ways if ways is not None else (running_kafka, kafka_from_jars, kafka_in_container))
    if isinstance(kafka, NoKafka):
        yield kafka
        return
    try:
        kafka.start()
        yield kafka
    finally:
        kafka.stop()


@contextmanager
def own_kafka_for_tests() -> "Iterator[KafkaServer | KafkaContainer | NoKafka]":
    """Like `kafka_for_tests`, but always a Kafka of the caller's own, which it may kill, pause and restart."""
    with kafka_for_tests((kafka_from_jars, kafka_in_container)) as kafka:
        yield kafka


def find_kafka(ways: Sequence[Callable[[], Kafka]]) -> Kafka | NoKafka:
    """Return the Kafka of the first way that is open, not started yet."""
    missing = []
    for way in ways:
        try:
            return way()
        except KafkaUnavailableError as error:
            missing.append(str(error))
    return NoKafka("no Apache Kafka: " + "; ".join(missing))


def running_kafka(environment: Mapping[str, str] = os.environ) -> "RunningKafka":
    """Return the Kafka that KAFKA_BOOTSTRAP_SERVERS names."""
    servers = environment.get("KAFKA_BOOTSTRAP_SERVERS", "").strip()
    if not servers:
        raise KafkaUnavailableError("KAFKA_BOOTSTRAP_SERVERS is not set (name a running Kafka there)")
    return RunningKafka(servers)


def kafka_from_jars(
    which: Callable[[str], str | None] = shutil.which, *, settings: Mapping[str, str] | None = None
) -> "KafkaServer":
    """Return a Kafka to be run by this machine's Java, its jars fetched by Maven once and then kept."""
    return KafkaServer(usable_jars(which), settings=settings)


def kafka_in_container(which: Callable[[str], str | None] = shutil.which) -> "KafkaContainer":
    """Return a Kafka to be run from the official image by a Docker engine that answers."""
    if which("docker") is None:
        raise KafkaUnavailableError("docker not found (install Docker)")
    if not _succeeds(["docker", "version", "--format", "{{.Server.Version}}"], deadline_s=20):
        raise KafkaUnavailableError("no Docker engine answers (start Docker)")
    if not _succeeds(["docker", "image", "inspect", IMAGE], deadline_s=20) and not _succeeds(
        ["docker", "pull", "--quiet", IMAGE], deadline_s=PULL_DEADLINE_S
    ):
        raise KafkaUnavailableError(f"Docker cannot pull {IMAGE} (pull it where the network allows)")
    return KafkaContainer()


class RunningKafka:
    """A Kafka that somebody else started and will stop."""

    def __init__(self, bootstrap_servers: str) -> None:
        self.bootstrap_servers = bootstrap_servers

    def start(self) -> None:
        addresses = [address.strip().rpartition(":") for address in self.bootstrap_servers.split(",")]

        def answers() -> bool:
            return any(broker_answers(host.strip("[]"), int(port)) for host, _, port in addresses)

        if not comes_true(answers, READY_DEADLINE_S):
            raise KafkaStartError(
                f"no answer from KAFKA_BOOTSTRAP_SERVERS={self.bootstrap_servers} within {READY_DEADLINE_S:.0f} s: "
                "start that Kafka or unset the variable"
            )

    def stop(self) -> None:
        pass


class KafkaServer:
    """One Kafka process, broker and controller in one, on loopback ports that stay its own over restarts.

    - Only the process started here is ever signalled; it is killed when the session that started it dies.
    - Records, offsets and the cluster's id live in a temporary folder until `stop`.
    """

    def __init__(self, jars: Path, *, settings: Mapping[str, str] | None = None, ports: tuple[int, int] | None = None) -> None:
        """`settings` come on top of `broker_settings`; `ports` are the broker's and the controller's, by default free ones."""
        self._java = ["java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dlog4j2.level=INFO"]
        self._java += ["-cp", f"{jars}/*"]
        self._port, self._controller_port = ports or free_ports(2)
        self._extra_settings = dict(settings or {})
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self._port}"

    @property
    def log_file(self) -> Path:
        return self._data_folder() / "kafka.log"

    @property
    def pid(self) -> int:
        return self._running().pid

    def start(self) -> None:
        """Start the server, on a new data folder the first time, and return once it answers."""
        if self._process is not None:
            raise KafkaStartError("this Kafka runs already: stop or kill it first")
        if not (self._data_folder() / "data" / "meta.properties").exists():
            self._format_data()
        with self.log_file.open("ab") as log:
            command = [*self._java, "kafka.Kafka", str(self._data_folder() / "server.properties")]
            # a session of its own: Ctrl-C in the terminal is for pytest, which then stops Kafka
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        self._guard = start_guard(["kill", "-9", str(self._process.pid)])
        self._wait_until_ready()

    def stop(self) -> None:
        """End the server if it runs, by force if it must be, and remove its data."""
        self._end(signal.SIGTERM)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def kill(self) -> None:
        """End the server as a power cut would (SIGKILL); `start` brings it back with its data."""
        self._running()
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Shut the server down if it runs, and start it again on the same port and data."""
        self._end(signal.SIGTERM)
        self.start()

    def pause(self) -> None:
        """Freeze the server: connections stay open and nobody answers."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._running().send_signal(signal.SIGCONT)

    def fill_disk(self) -> None:
        """Let no file of the server grow beyond what the largest is now, until it is started anew: appends there fail."""
        segments = (self._data_folder() / "data").glob("*/*.log")
        largest = max(path.stat().st_size for path in segments)
        _, hard = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (largest, hard))

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise KafkaStartError("this Kafka does not run: start it first")
        return self._process

    def _data_folder(self) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="rugo-kafka-"))
        return self._folder

    def _format_data(self) -> None:
        properties = self._data_folder() / "server.properties"
        settings = broker_settings(self._port, self._controller_port) | {"log.dirs": str(self._data_folder() / "data")}
        lines = [f"{name}={value}\n" for name, value in (settings | self._extra_settings).items()]
        properties.write_text("".join(lines), encoding="utf-8")
        command = [*self._java, "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(properties)]
        run = subprocess.run(command, capture_output=True, text=True, timeout=READY_DEADLINE_S, check=False)
        if run.returncode != 0:
            raise KafkaStartError(f"Kafka's storage tool ended with {run.returncode}: {end_of(run.stdout + run.stderr)}")

    def _wait_until_ready(self) -> None:
        process = self._running()
        comes_true(lambda: process.poll() is not None or broker_answers("127.0.0.1", self._port), READY_DEADLINE_S)
        if process.poll() is None and broker_answers("127.0.0.1", self._port):
            return
        log = end_of(self.log_file.read_text(encoding="utf-8", errors="replace"))
        self._end(signal.SIGKILL)
        raise KafkaStartError(f"Kafka did not answer on {self.bootstrap_servers}; its log ends with: {log}")

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        guard, self._guard = self._guard, None
        if process is None:
            return
        process.send_signal(how)
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_DEADLINE_S)
        if guard is not None:
            dismiss_guard(guard)


class KafkaContainer:
    """The official image in a container of its own: does what `KafkaServer` does, but for settings and a full disk."""

    def __init__(self, docker: Callable[[Sequence[str]], str] | None = None) -> None:
        self._docker = docker or _docker
        self._name = f"rugo-kafka-{uuid.uuid4().hex[:12]}"
        self._port = free_ports(1)[0]
        self._exists = False
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self._port}"

    def start(self) -> None:
        if self._exists:
            self._docker(["start", self._name])
        else:
            self._guard = start_guard(["docker", "rm", "-f", "-v", self._name])
            self._exists = True
            self._docker(self.run_arguments())
        if not comes_true(lambda: broker_answers("127.0.0.1", self._port), READY_DEADLINE_S):
            raise KafkaStartError(f"Kafka in {self._name} did not answer: {end_of(self._docker(['logs', self._name]))}")

    def run_arguments(self) -> list[str]:
        """Return the arguments of `docker` that create the container; the port is the same inside and outside it."""
        every_address_inside = "0.0.0.0"  # noqa: S104 - the container's own; outside it only loopback is published
        settings = broker_settings(self._port, self._port + 1, listen_on=every_address_inside)
        arguments = ["run", "-d", "--name", self._name, "-p", f"127.0.0.1:{self._port}:{self._port}"]
        arguments += ["-e", f"CLUSTER_ID={CLUSTER_ID}", "-e", "KAFKA_HEAP_OPTS=-Xmx512m"]
        for name, value in (settings | {"log.dirs": "/tmp/kafka-data"}).items():
            arguments += ["-e", f"KAFKA_{name.upper().replace('.', '_')}={value}"]
        return [*arguments, IMAGE]

    def stop(self) -> None:
        if self._exists:
            self._docker(["rm", "-f", "-v", self._name])
            self._exists = False
        if self._guard is not None:
            dismiss_guard(self._guard)
            self._guard = None

    def kill(self) -> None:
        self._docker(["kill", self._name])

    def restart(self) -> None:
        self._docker(["stop", self._name])
        self.start()

    def pause(self) -> None:
        self._docker(["pause", self._name])

    def resume(self) -> None:
        self._docker(["unpause", self._name])


def broker_settings(port: int, controller_port: int, *, listen_on: str = "127.0.0.1") -> dict[str, str]:
    """Return Kafka's settings for one small node that answers soon and creates no topic by itself."""
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{listen_on}:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "auto.create.topics.enable": "false",
        "offsets.topic.num.partitions": "4",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
        # a killed broker may register again only after its old session has run out
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        # the defaults take 128 MB of the heap for compaction and 10 MB of address space per index
        "log.cleaner.dedupe.buffer.size": "4194304",
        "log.index.size.max.bytes": "1048576",
    }


def _succeeds(command: Sequence[str], *, deadline_s: float) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=deadline_s, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _docker(arguments: Sequence[str]) -> str:
    run = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=READY_DEADLINE_S, check=False)
    if run.returncode != 0:
        raise KafkaStartError(f"docker {arguments[0]} ended with {run.returncode}: {end_of(run.stdout + run.stderr)}")
    return run.stdout + run.stderr
