"""A real Apache Kafka for tests: one that is running already, one started from jars, or one in a container.

`with kafka_for_tests() as kafka` gives the first that can be had, or a `NoKafka` whose reason names what to install.
The methods block: call them with `asyncio.to_thread` from a coroutine.
"""

import fcntl
import hashlib
import os
import random
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

POM = Path(__file__).parent / "kafka" / "pom.xml"
KAFKA_VERSION = re.findall(r"<kafka\.version>(.+)</kafka\.version>", POM.read_text(encoding="utf-8"))[0]
IMAGE = f"apache/kafka:{KAFKA_VERSION}"
OLDEST_JAVA = 17
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


class KafkaUnavailableError(Exception):
    """This way to have a Kafka is not open on this machine; the text says what is missing."""


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
        yield kafka  # type: ignore[misc]


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
    missing = [name for name in ("java", "mvn") if which(name) is None]
    if missing:
        raise KafkaUnavailableError(f"{' and '.join(missing)} not found (install Java {OLDEST_JAVA}+ and Maven)")
    version = java_version()
    if version < OLDEST_JAVA:
        raise KafkaUnavailableError(f"Java {version} is too old (install Java {OLDEST_JAVA}+)")
    return KafkaServer(kafka_jars(), settings=settings)


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

        if not wait_until(answers, READY_DEADLINE_S):
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

    def __init__(self, jars: Path, *, settings: Mapping[str, str] | None = None) -> None:
        self._java = ["java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dlog4j2.level=INFO"]
        self._java += ["-cp", f"{jars}/*"]
        self._port, self._controller_port = free_ports(2)
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

    def shut_down(self) -> None:
        """End the server in good order (SIGTERM); `start` brings it back with its data."""
        self._running()
        self._end(signal.SIGTERM)

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
            raise KafkaStartError(f"Kafka's storage tool ended with {run.returncode}: {_tail(run.stdout + run.stderr)}")

    def _wait_until_ready(self) -> None:
        process = self._running()
        wait_until(lambda: process.poll() is not None or broker_answers("127.0.0.1", self._port), READY_DEADLINE_S)
        if process.poll() is None and broker_answers("127.0.0.1", self._port):
            return
        log = _tail(self.log_file.read_text(encoding="utf-8", errors="replace"))
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
    """The official image in a container of its own, with the same abilities as `KafkaServer`."""

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
        if not wait_until(lambda: broker_answers("127.0.0.1", self._port), READY_DEADLINE_S):
            raise KafkaStartError(f"Kafka in {self._name} did not answer: {_tail(self._docker(['logs', self._name]))}")

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

    def shut_down(self) -> None:
        self._docker(["stop", self._name])

    def restart(self) -> None:
        self.shut_down()
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


def kafka_jars(pom: Path = POM, *, cache: Path | None = None) -> Path:
    """Return the folder of Kafka's jars, fetched by Maven if this pom's are not there yet; safe in parallel runs."""
    root = cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rugo-worker"
    folder = root / f"kafka-{KAFKA_VERSION}"
    marker, wanted = folder / ".complete", hashlib.sha256(pom.read_bytes()).hexdigest()
    root.mkdir(parents=True, exist_ok=True)
    with (root / f"kafka-{KAFKA_VERSION}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if marker.exists() and marker.read_text(encoding="utf-8") == wanted:
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        command = ["mvn", "-B", "-q", "-f", str(pom), "dependency:copy-dependencies", "-DincludeScope=runtime"]
        try:
            subprocess.run(
                [*command, f"-DoutputDirectory={folder}"], capture_output=True, text=True, timeout=PULL_DEADLINE_S, check=True
            )
        except subprocess.SubprocessError as error:
            shutil.rmtree(folder, ignore_errors=True)
            output = _tail(str(getattr(error, "stdout", None) or error))
            raise KafkaUnavailableError(f"Maven cannot fetch Kafka's jars (is its repository reachable?): {output}") from error
        marker.write_text(wanted, encoding="utf-8")
    return folder


def java_version() -> int:
    """Return the major version of the Java on the path; 0 when it does not say."""
    run = subprocess.run(["java", "-version"], capture_output=True, text=True, timeout=60, check=False)
    found = re.search(r'version "(\d+)', run.stderr + run.stdout)
    return int(found[1]) if found else 0


def broker_answers(host: str, port: int, *, timeout_s: float = 2.0) -> bool:
    """Say whether a Kafka broker there answers a Metadata request and counts at least one broker fit for work."""
    body = struct.pack(">hhih", 3, 1, 1, -1) + struct.pack(">i", 0)
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            connection.sendall(struct.pack(">i", len(body)) + body)
            with connection.makefile("rb") as answer:
                header = answer.read(12)
    except OSError:
        return False
    return len(header) == 12 and struct.unpack(">iii", header)[2] >= 1


def free_ports(count: int) -> list[int]:
    """Return loopback ports that nobody listens on.

    They lie below the ephemeral range: while a broker is down, a client that keeps dialling an ephemeral port can be given
    that very port as its own, and the broker could not come back to it.
    """
    ports: list[int] = []
    for port in random.SystemRandom().sample(range(15_000, 30_000), 1_000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        ports.append(port)
        if len(ports) == count:
            return ports
    raise KafkaStartError("no free loopback port between 15000 and 30000")


def start_guard(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a small process that runs the command if this one dies, however it dies, before `dismiss_guard`."""
    # not PR_SET_PDEATHSIG: that fires when the thread that started the child ends, and tests start it from threads
    script = 'read -r _ && exit 0; exec "$@" >/dev/null 2>&1'
    return subprocess.Popen(["/bin/sh", "-c", script, "guard", *command], stdin=subprocess.PIPE, start_new_session=True)


def dismiss_guard(guard: subprocess.Popen[bytes]) -> None:
    """End the guard without its command having run."""
    guard.communicate(b"dismissed\n", timeout=STOP_DEADLINE_S)


def wait_until(condition: Callable[[], bool], deadline_s: float) -> bool:
    """Return whether the condition came true before the deadline, looking every 50 ms."""
    give_up_at = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > give_up_at:
            return False
        time.sleep(0.05)
    return True


def _succeeds(command: Sequence[str], *, deadline_s: float) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=deadline_s, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _docker(arguments: Sequence[str]) -> str:
    run = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=READY_DEADLINE_S, check=False)
    if run.returncode != 0:
        raise KafkaStartError(f"docker {arguments[0]} ended with {run.returncode}: {_tail(run.stdout + run.stderr)}")
    return run.stdout + run.stderr


def _tail(text: str, *, characters: int = 1500) -> str:
    return text.strip()[-characters:]
