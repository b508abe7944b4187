"""docker-compose.yml is a valid Compose file, and what it promises holds together."""

import copy
import importlib.resources
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.support.worker_variables import settings_from

REPOSITORY = Path(__file__).parents[2]
Compose = dict[str, Any]
Check = Callable[[Compose], Iterator[str]]


@pytest.fixture
def compose() -> Compose:
    return yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text(encoding="utf-8"))


def schema_problems(compose: Compose) -> Iterator[str]:
    schema = importlib.resources.files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json"
    validator = jsonschema.Draft202012Validator(json.loads(schema.read_text(encoding="utf-8")))
    for error in validator.iter_errors(compose):
        yield f"{error.json_path}: {error.message}"


def dependency_problems(compose: Compose) -> Iterator[str]:
    services = compose["services"]
    for name, service in services.items():
        for needed, how in service.get("depends_on", {}).items():
            if needed not in services:
                yield f"{name} depends on {needed}, which is no service"
                continue
            if how["condition"] == "service_healthy" and "test" not in services[needed].get("healthcheck", {}):
                yield f"{name} waits for {needed} to be healthy, which it never says"
            if how["condition"] == "service_completed_successfully" and services[needed].get("restart") != "no":
                yield f"{name} waits for {needed} to end, which starts again"
            if set(services[needed].get("profiles", [])) - set(service.get("profiles", [])):
                yield f"{name} starts without {needed}'s profile"


def setting_problems(compose: Compose) -> Iterator[str]:
    for name, service in compose["services"].items():
        _, said = settings_from(service.get("environment", {}))
        yield from (f"{name}: {each}" for each in said)


def image_problems(compose: Compose) -> Iterator[str]:
    for name, service in compose["services"].items():
        if not re.search(r":v?\d+\.\d+\.\d+(@sha256:[0-9a-f]{64})?$", service["image"]):
            yield f"{name}: {service['image']} is not pinned to a version"
    kafkas = {service["image"] for service in compose["services"].values() if service["image"].startswith("apache/kafka")}
    tested = re.findall(
        r"<kafka\.version>(.+)</kafka\.version>", (REPOSITORY / "tests/support/kafka/pom.xml").read_text(encoding="utf-8")
    )
    if kafkas != {f"apache/kafka:{version}" for version in tested}:
        yield f"{sorted(kafkas)} is not the Kafka that the tests run on, {tested}"


def port_problems(compose: Compose) -> Iterator[str]:
    for name, service in compose["services"].items():
        for port in service.get("ports", []):
            if not str(port).startswith("127.0.0.1:"):
                yield f"{name}: {port} is open to the network"
        environment = service.get("environment", {})
        if "RUGO_BOARD_HOST" in environment and not environment.get("RUGO_BOARD_NAMES"):
            yield f"{name} answers under any name, so to web sites too"


def hardening_problems(compose: Compose) -> Iterator[str]:
    for name, service in compose["services"].items():
        if "no-new-privileges:true" not in service.get("security_opt", []):
            yield f"{name} may gain privileges"
        if "mem_limit" not in service:
            yield f"{name} may take all memory"
        if not service["image"].startswith("apache/kafka") and not (
            service.get("read_only") and service.get("cap_drop") == ["ALL"]
        ):
            yield f"{name} is not confined: read_only, cap_drop ALL"
        if service["image"].startswith("rugo-worker") and "/tmp" not in service.get("tmpfs", []):
            yield f"{name} has no tmpfs /tmp"


def listener_problems(compose: Compose) -> Iterator[str]:
    """Every address that a container is sent to must be one that Kafka advertises, and the host's port one it listens on."""
    kafka = compose["services"]["kafka"]
    environment = kafka["environment"]
    listeners = dict(each.split("://") for each in environment["KAFKA_LISTENERS"].split(","))
    advertised = dict(each.split("://") for each in environment["KAFKA_ADVERTISED_LISTENERS"].split(","))
    protocols = dict(each.split(":") for each in environment["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(","))
    if set(protocols) != set(listeners) or set(advertised) != set(listeners) - {"CONTROLLER"}:
        yield "listeners, advertised listeners and protocols do not name the same listeners"
    if advertised.get("CONTAINERS", "").rpartition(":")[2] != listeners.get("CONTAINERS", "").rpartition(":")[2]:
        yield "containers are sent to a port that Kafka does not listen on"
    for name, service in compose["services"].items():
        address = service.get("environment", {}).get("RUGO_BOOTSTRAP_SERVERS", advertised.get("CONTAINERS"))
        if address != advertised.get("CONTAINERS"):
            yield f"{name} looks for Kafka at {address}"
    _, outside, inside = re.fullmatch(r"([\d.]+):(\$\{.+\}|\d+):(\d+)", kafka["ports"][0]).groups()  # type: ignore[union-attr]
    if advertised.get("HOST") != f"localhost:{outside}" or listeners.get("HOST") != f":{inside}":
        yield "this machine's clients are sent to a port that is not Kafka's"


def storage_problems(compose: Compose) -> Iterator[str]:
    """Data is on named volumes that are declared; files of ours are mounted read-only, and are there."""
    kafka = compose["services"]["kafka"]
    if f"kafka-data:{kafka['environment']['KAFKA_LOG_DIRS']}" not in kafka.get("volumes", []):
        yield "Kafka's records are not on a volume"
    for name, service in compose["services"].items():
        for volume in service.get("volumes", []):
            source, _, rest = volume.partition(":")
            if not source.startswith("."):
                if source not in compose.get("volumes", {}):
                    yield f"{name}: volume {source} is not declared"
            elif not (REPOSITORY / source).exists() or not rest.endswith(":ro"):
                yield f"{name}: {volume} is not there, or not read-only"


def health_problems(compose: Compose) -> Iterator[str]:
    for name, setting, path in (("worker", "RUGO_HTTP", "/ready"), ("board", "RUGO_BOARD", "/")):
        service = compose["services"][name]
        port = service["environment"][f"{setting}_PORT"]
        if service["environment"][f"{setting}_HOST"] != "0.0.0.0" or not service["ports"][0].endswith(f":{port}"):  # noqa: S104
            yield f"{name} does not listen where this machine is let in"
        test = service.get("healthcheck", {}).get("test", ["NONE"])
        if test[:3] != ["CMD", "python", "-c"]:
            yield f"{name}'s health is not asked by python"
            continue
        compile(test[3], "healthcheck", "exec")
        if f"'http://127.0.0.1:{port}{path}'" not in test[3]:
            yield f"{name}'s health is not asked where it is told"


CHECKS = [
    schema_problems,
    dependency_problems,
    setting_problems,
    image_problems,
    port_problems,
    hardening_problems,
    listener_problems,
    storage_problems,
    health_problems,
]


@pytest.mark.parametrize("check", CHECKS)
def test_the_file_has_no_problem(compose: Compose, check: Check) -> None:
    assert list(check(compose)) == []


FAULTS: list[tuple[Check, tuple[str, ...], Any]] = [
    (schema_problems, ("worker", "mem_limits"), "512m"),
    (schema_problems, ("worker", "depends_on", "topics", "condition"), "service_done"),
    (dependency_problems, ("worker", "depends_on"), {"topic": {"condition": "service_completed_successfully"}}),
    (dependency_problems, ("kafka", "healthcheck"), {"disable": True}),
    (dependency_problems, ("topics", "restart"), "always"),
    (dependency_problems, ("topics", "profiles"), ["demo"]),
    (setting_problems, ("worker", "environment", "RUGO_HTTP_PROT"), 8080),
    (setting_problems, ("worker", "environment", "RUGO_HTTP_PORT"), 80800),
    (image_problems, ("kafka", "image"), "apache/kafka:latest"),
    (image_problems, ("kafka", "image"), "apache/kafka:4.0.0"),
    (port_problems, ("worker", "ports"), ["8080:8080"]),
    (hardening_problems, ("worker", "read_only"), False),
    (hardening_problems, ("kafka", "security_opt"), []),
    (listener_problems, ("topics", "environment", "RUGO_BOOTSTRAP_SERVERS"), "kafka:9092"),
    (
        listener_problems,
        ("kafka", "environment", "KAFKA_ADVERTISED_LISTENERS"),
        "CONTAINERS://kafka:19093,HOST://localhost:9092",
    ),
    (listener_problems, ("kafka", "ports"), ["127.0.0.1:9094:9092"]),
    (storage_problems, ("kafka", "volumes"), ["kafka-data:/data"]),
    (storage_problems, ("prometheus", "volumes"), ["./deploy/observability/alerts.yml:/etc/prometheus/alerts.yml"]),
    (storage_problems, ("prometheus", "volumes"), ["./deploy/observability/alarms.yml:/etc/prometheus/alerts.yml:ro"]),
    (storage_problems, ("grafana", "volumes"), ["dashboards:/var/lib/grafana"]),
    (hardening_problems, ("grafana", "read_only"), False),
    (port_problems, ("grafana", "ports"), ["3000:3000"]),
    (port_problems, ("board", "ports"), ["8090:8090"]),
    (port_problems, ("board", "environment", "RUGO_BOARD_NAMES"), ""),
    (hardening_problems, ("board", "read_only"), False),
    (setting_problems, ("board", "environment", "RUGO_BOARD_SHOW_TEXT"), "true"),
    (dependency_problems, ("topics", "profiles"), ["board"]),
    (health_problems, ("worker", "environment", "RUGO_HTTP_PORT"), 8081),
    (health_problems, ("worker", "environment", "RUGO_HTTP_HOST"), "127.0.0.1"),
    (health_problems, ("board", "environment", "RUGO_BOARD_HOST"), "127.0.0.1"),
    (health_problems, ("board", "ports"), ["127.0.0.1:8090:8080"]),
    (health_problems, ("board", "healthcheck"), {"disable": True}),
    (health_problems, ("board", "environment", "RUGO_BOARD_PORT"), 8091),
    (health_problems, ("worker", "healthcheck", "test"), ["CMD", "curl", "http://127.0.0.1:8080/ready"]),
]


@pytest.mark.parametrize(("check", "where", "fault"), FAULTS)
def test_a_fault_is_seen(compose: Compose, check: Check, where: tuple[str, ...], fault: Any) -> None:
    faulty = copy.deepcopy(compose)
    service: dict[str, Any] = faulty["services"]
    for name in where[:-1]:
        service[name] = copy.copy(service[name])  # a YAML anchor's mapping is shared between services
        service = service[name]
    service[where[-1]] = fault
    assert list(check(faulty)) != []


def test_the_services_and_their_profiles_are_the_documented_ones(compose: Compose) -> None:
    profiles = {name: service.get("profiles", []) for name, service in compose["services"].items()}
    assert profiles == {
        "kafka": [],
        "topics": [],
        "worker": [],
        "board": ["board"],
        "demo-producer": ["demo"],
        "demo-consumer": ["demo"],
        "prometheus": ["observability"],
        "grafana": ["observability"],
    }


def test_every_command_of_the_worker_exists(compose: Compose) -> None:
    """The command line answers `--help` for each command that a service of ours runs."""
    from typer.testing import CliRunner

    from worker.__main__ import cli

    ours = {name: service for name, service in compose["services"].items() if service["image"].startswith("rugo-worker")}
    for name, service in ours.items():
        outcome = CliRunner().invoke(cli, [*service.get("command", ["run"]), "--help"])
        assert outcome.exit_code == 0, f"{name}: {outcome.output}"


def test_the_worker_has_time_to_stop(compose: Compose) -> None:
    worker = compose["services"]["worker"]
    settings, _ = settings_from(worker["environment"])
    assert int(worker["stop_grace_period"].removesuffix("s")) > settings.stop_deadline_s
