"""The Kubernetes manifests obey the API's schemas, and what they say of each other and of the worker holds together."""

import copy
import re
import warnings
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.support.worker_variables import settings_from

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
KUBERNETES = "1.35"
Manifest = dict[str, Any]

# From KEDA's documentation of ScaledObject and of the Apache Kafka scaler: the fields that there are, and their types.
_TEXT, _COUNT = {"type": "string"}, {"type": "integer", "minimum": 0}
_NUMBER_AS_TEXT, _FLAG_AS_TEXT = {"type": "string", "pattern": r"^[1-9]\d*$"}, {"enum": ["true", "false"]}
KAFKA_TRIGGER = {
    "type": "object",
    "additionalProperties": False,
    "required": ["bootstrapServers", "consumerGroup"],
    "properties": dict.fromkeys(
        ("bootstrapServers", "consumerGroup", "topic", "version", "partitionLimitation", "sasl", "tls", "unsafeSsl"), _TEXT
    )
    | dict.fromkeys(("lagThreshold", "activationLagThreshold"), _NUMBER_AS_TEXT)
    | {"offsetResetPolicy": {"enum": ["latest", "earliest"]}}
    | dict.fromkeys(
        (
            "allowIdleConsumers",
            "scaleToZeroOnInvalidOffset",
            "excludePersistentLag",
            "limitToPartitionsWithLag",
            "ensureEvenDistributionOfPartitions",
        ),
        _FLAG_AS_TEXT,
    ),
}
SCALED_OBJECT = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "keda.sh/v1alpha1"},
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "required": ["scaleTargetRef", "triggers"],
            "properties": {
                "scaleTargetRef": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["name"],
                    "properties": dict.fromkeys(("apiVersion", "kind", "name", "envSourceContainerName"), _TEXT),
                },
                **dict.fromkeys(
                    (
                        "pollingInterval",
                        "cooldownPeriod",
                        "initialCooldownPeriod",
                        "idleReplicaCount",
                        "minReplicaCount",
                        "maxReplicaCount",
                    ),
                    _COUNT,
                ),
                "fallback": {"type": "object"},
                "advanced": {"type": "object"},
                "triggers": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["type", "metadata"],
                        "properties": {
                            "type": {"const": "kafka"},
                            "name": _TEXT,
                            "metadata": KAFKA_TRIGGER,
                            "authenticationRef": {"type": "object"},
                            "useCachedMetrics": {"type": "boolean"},
                            "metricType": _TEXT,
                        },
                    },
                },
            },
        },
    },
}

# From the Prometheus operator's reference of PodMonitor: of its fields those that a worker could need, and their types.
POD_MONITOR = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "monitoring.coreos.com/v1"},
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "required": ["selector", "podMetricsEndpoints"],
            "properties": {
                "jobLabel": _TEXT,
                "podTargetLabels": {"type": "array", "items": _TEXT},
                "selector": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["matchLabels"],
                    "properties": {"matchLabels": {"type": "object", "minProperties": 1, "additionalProperties": _TEXT}},
                },
                "podMetricsEndpoints": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["port"],
                        "properties": dict.fromkeys(("port", "path", "scheme"), _TEXT)
                        | {"interval": {"type": "string", "pattern": r"^\d+(ms|s|m|h)$"}},
                    },
                },
            },
        },
    },
}
CUSTOM = {"ScaledObject": SCALED_OBJECT, "PodMonitor": POD_MONITOR}
NEEDS_AN_OPERATOR = {"podmonitor.yaml"}  # listed, but commented out


def manifests() -> dict[str, Manifest]:
    paths = [path for path in sorted(FOLDER.glob("*.yaml")) if path.name != "kustomization.yaml"]
    loaded = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths]
    return {f"{each['kind']}/{each['metadata']['name']}": each for each in loaded}


def problems(found: dict[str, Manifest]) -> list[str]:
    return [*_schema_problems(found), *_worker_problems(found), *_reference_problems(found), *_monitor_problems(found)]


def _schema_problems(found: dict[str, Manifest]) -> list[str]:
    said = []
    for name, manifest in found.items():
        try:
            if manifest["kind"] in CUSTOM:
                jsonschema.Draft202012Validator(CUSTOM[manifest["kind"]]).validate(manifest)
            else:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", DeprecationWarning)
                    kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
        except (kubernetes_validate.ValidationError, jsonschema.ValidationError) as error:
            said.append(f"{name}: {error.message}")
    return said


def _worker_problems(found: dict[str, Manifest]) -> list[str]:
    settings, said = settings_from(found["ConfigMap/rugo-worker"]["data"])
    pod = found["Deployment/rugo-worker"]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    if pod["terminationGracePeriodSeconds"] <= settings.stop_deadline_s:
        said.append("the grace period ends before the worker's stop deadline")
    if container["ports"][0]["containerPort"] != settings.http_port:
        said.append("the port is not the worker's")
    paths = {probe: container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
    if paths != {"startupProbe": "/live", "livenessProbe": "/live", "readinessProbe": "/ready"}:
        said.append(f"probes ask {paths}")
    trigger = found["ScaledObject/rugo-worker"]["spec"]["triggers"][0]["metadata"]
    told = (trigger["bootstrapServers"], trigger["consumerGroup"], trigger["topic"])
    if told != (settings.bootstrap_servers, settings.group_id, settings.input_topic):
        said.append("the scaler watches another broker, group or topic than the worker reads")
    return said


def _reference_problems(found: dict[str, Manifest]) -> list[str]:
    said = []
    deployment = found["Deployment/rugo-worker"]
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    for name in ("PodDisruptionBudget/rugo-worker", "NetworkPolicy/rugo-worker", "PodMonitor/rugo-worker"):
        spec = found[name]["spec"]
        wanted = (spec.get("selector") or spec["podSelector"])["matchLabels"].items()
        if not wanted <= labels:
            said.append(f"{name} selects other pods")
    partitions = found["Job/rugo-worker-topics"]["spec"]["template"]["spec"]["containers"][0]["args"][-1]
    if found["ScaledObject/rugo-worker"]["spec"]["maxReplicaCount"] > int(partitions):
        said.append("more workers than partitions")
    for name in ("Deployment/rugo-worker", "Job/rugo-worker-topics"):
        pod = found[name]["spec"]["template"]["spec"]
        security = pod["containers"][0]["securityContext"]
        if not (pod["securityContext"]["runAsNonRoot"] and security["readOnlyRootFilesystem"]):
            said.append(f"{name} runs as root or may write its files")
        if security["capabilities"]["drop"] != ["ALL"] or security["allowPrivilegeEscalation"]:
            said.append(f"{name} may gain rights")
    return said


def _monitor_problems(found: dict[str, Manifest]) -> list[str]:
    """Prometheus must find the workers and nothing else, under the job that the rules ask for, where the policy lets it in."""
    said = []
    monitor = found["PodMonitor/rugo-worker"]["spec"]
    template = found["Deployment/rugo-worker"]["spec"]["template"]
    job = yaml.safe_load((FOLDER.parent / "observability" / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"][0]
    if template["metadata"]["labels"].get(monitor.get("jobLabel")) != job["job_name"]:
        said.append(f"the pods are not scraped as the job {job['job_name']}")
    topics = found["Job/rugo-worker-topics"]["spec"]["template"]["metadata"]["labels"]
    if monitor["selector"]["matchLabels"].items() <= topics.items():
        said.append("the pod that makes the topics is scraped too")
    ports = {each["name"]: each["containerPort"] for each in template["spec"]["containers"][0]["ports"]}
    open_ports = {each["port"] for rule in found["NetworkPolicy/rugo-worker"]["spec"]["ingress"] for each in rule["ports"]}
    for endpoint in monitor["podMetricsEndpoints"]:
        if ports.get(endpoint["port"]) not in open_ports:
            said.append(f"the port {endpoint['port']} is not the worker's, or closed to Prometheus")
        if endpoint.get("path", "/metrics") != "/metrics":
            said.append(f"metrics are not at {endpoint['path']}")
    return said


def test_the_manifests_hold_together() -> None:
    assert problems(manifests()) == []


def test_kustomize_takes_every_manifest() -> None:
    text = (FOLDER / "kustomization.yaml").read_text(encoding="utf-8")
    commented_out = re.findall(r"^  # - (\S+)$", text, re.MULTILINE)
    assert set(commented_out) == NEEDS_AN_OPERATOR
    listed = [*yaml.safe_load(text)["resources"], *commented_out]
    assert sorted(listed) == sorted(path.name for path in FOLDER.glob("*.yaml") if path.name != "kustomization.yaml")


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("Deployment/rugo-worker", "spec.template.spec.terminationGracePeriodSeconds", 15),
        ("Deployment/rugo-worker", "spec.template.spec.containers.0.livenessProbe.httpGet.path", "/ready"),
        ("Deployment/rugo-worker", "spec.template.spec.containers.0.ports.0.containerPort", 9090),
        ("Deployment/rugo-worker", "spec.template.spec.containers.0.colour", "red"),
        ("Deployment/rugo-worker", "spec.template.spec.containers.0.securityContext.readOnlyRootFilesystem", False),
        ("Deployment/rugo-worker", "spec.strategy.rollingUpdate.maxSurge", [1]),
        ("PodDisruptionBudget/rugo-worker", "spec.selector.matchLabels", {"app": "other"}),
        ("NetworkPolicy/rugo-worker", "spec.podSelector.matchLabels", {"app": "other"}),
        ("ScaledObject/rugo-worker", "spec.triggers.0.metadata.lagThreshold", 4000),
        ("ScaledObject/rugo-worker", "spec.triggers.0.metadata.topic", "other"),
        ("ScaledObject/rugo-worker", "spec.maxReplicaCount", 13),
        ("PodMonitor/rugo-worker", "spec.jobLabel", "app"),
        ("PodMonitor/rugo-worker", "spec.selector.matchLabels", {"app.kubernetes.io/name": "other"}),
        ("PodMonitor/rugo-worker", "spec.selector.matchLabels", {"rugo-worker/talks-to-kafka": "true"}),
        ("PodMonitor/rugo-worker", "spec.podMetricsEndpoints.0.port", "metrics"),
        ("PodMonitor/rugo-worker", "spec.podMetricsEndpoints.0.path", "/ready"),
        ("PodMonitor/rugo-worker", "spec.podMetricsEndpoints.0.every", "15s"),
        ("ConfigMap/rugo-worker", "data.RUGO_GROUP", "rugo-worker"),
        ("ConfigMap/rugo-worker", "data.RUGO_HTTP_PORT", "eighty"),
    ],
)
def test_a_manifest_that_goes_wrong_is_noticed(name: str, path: str, value: Any) -> None:
    changed = copy.deepcopy(manifests())
    *parents, last = path.split(".")
    place: Any = changed[name]
    for each in parents:
        place = place[int(each)] if each.isdigit() else place[each]
    place[last] = value
    assert problems(changed) != []
