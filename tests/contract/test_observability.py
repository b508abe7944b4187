"""Dashboard, alert rules and what is written about them belong together, and Prometheus' own tool takes them.

promtool comes with Debian's package `prometheus`; `PROMTOOL` names one that is not on the path.
"""

import json
import os
import re
import runpy
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from worker.telemetry.metrics import Metrics

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / "deploy" / "observability"
DASHBOARD = FOLDER / "grafana" / "dashboards" / "rugo-worker.json"
_SUFFIXES = {"histogram": ("_bucket", "_sum", "_count")}


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


def alerts() -> list[dict[str, Any]]:
    return [rule for group in load(FOLDER / "alerts.yml")["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return json.loads(DASHBOARD.read_text("utf-8"))["panels"]


def dashboard_queries() -> list[str]:
    """Return the panels' queries as Prometheus gets them, with Grafana's variables filled in."""
    found = [target["expr"] for panel in panels() for target in panel.get("targets", [])]
    return [each.replace("$__rate_interval", "1m").replace("$instance", ".*") for each in found]


def known_names() -> set[str]:
    ours = {each.name + suffix for each in Metrics().declared for suffix in _SUFFIXES.get(each.kind, ("",))}
    return ours | {f"process_{each}" for each in ("cpu_seconds_total", "resident_memory_bytes", "start_time_seconds")} | {"up"}


def names_in(query: str) -> set[str]:
    return set(re.findall(r"\b(?:rugo_\w+|process_\w+|up(?=\{))", query))


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which(os.environ.get("PROMTOOL", "promtool"))
    if found is None:
        pytest.skip("no promtool on the path: it comes with Debian's package prometheus; PROMTOOL names another place")
    return found


def run(*command: str) -> None:
    outcome = subprocess.run(command, capture_output=True, text=True, cwd=FOLDER, check=False)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def test_prometheus_takes_the_configuration_and_the_rules(promtool: str) -> None:
    run(promtool, "check", "config", "prometheus.yml")


def test_every_alert_fires_when_it_should_and_not_when_it_should_not(promtool: str) -> None:
    run(promtool, "test", "rules", "alerts_test.yml")


def test_prometheus_takes_every_query_of_the_dashboard(promtool: str, tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(dashboard_queries())]
    (tmp_path / "queries.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}), "utf-8")
    run(promtool, "check", "rules", str(tmp_path / "queries.yml"))


def test_every_alert_has_a_test_of_both_kinds() -> None:
    tests = [each for test in load(FOLDER / "alerts_test.yml")["tests"] for each in test["alert_rule_test"]]
    names = {rule["alert"] for rule in alerts()}
    assert {each["alertname"] for each in tests if each["exp_alerts"]} == names
    assert {each["alertname"] for each in tests if not each["exp_alerts"]} == names


def test_rules_and_dashboard_name_only_metrics_that_are_served() -> None:
    for query in [rule["expr"] for rule in alerts()] + dashboard_queries():
        assert names_in(query), query
        assert names_in(query) - known_names() == set(), query


def test_rules_and_dashboard_ask_for_the_job_that_is_scraped() -> None:
    (job,) = load(FOLDER / "prometheus.yml")["scrape_configs"]
    for query in [rule["expr"] for rule in alerts()] + dashboard_queries():
        selectors = re.findall(r"(?:rugo_\w+|process_\w+|\bup)(\{[^}]*\})?", query)
        assert all(f'job="{job["job_name"]}"' in each for each in selectors), query


def test_every_metric_of_ours_is_on_the_dashboard_or_in_a_rule() -> None:
    asked = set().union(*(names_in(query) for query in [rule["expr"] for rule in alerts()] + dashboard_queries()))
    declared = {each.name: [each.name + suffix for suffix in _SUFFIXES.get(each.kind, ("",))] for each in Metrics().declared}
    unused = {name for name, series in declared.items() if asked.isdisjoint(series)}
    assert unused <= {"rugo_drift_window_messages"}


def test_every_alert_says_how_grave_it_is_and_what_to_do() -> None:
    operations = (REPOSITORY / "docs" / "operations.md").read_text("utf-8")
    section = operations.partition("\n## Alerts\n")[2].partition("\n## ")[0]
    for rule in alerts():
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"
    assert re.findall(r"^### (.+)$", section, re.MULTILINE) == [rule["alert"] for rule in alerts()]


def test_the_dashboard_is_what_its_source_writes() -> None:
    source = runpy.run_path(str(FOLDER / "dashboard.py"))
    assert source["rendered"]() == DASHBOARD.read_text("utf-8"), "write it anew: python deploy/observability/dashboard.py"


def cells(panel: dict[str, Any]) -> Iterator[tuple[int, int]]:
    place = panel["gridPos"]
    for y in range(place["y"], place["y"] + place["h"]):
        for x in range(place["x"], place["x"] + place["w"]):
            yield x, y


def test_panels_have_ids_of_their_own_and_stand_side_by_side() -> None:
    found = panels()
    assert len({panel["id"] for panel in found}) == len(found)
    taken = [cell for panel in found for cell in cells(panel)]
    assert len(set(taken)) == len(taken), "panels overlap"
    assert max(x for x, _ in taken) < 24


def test_panels_ask_the_data_source_that_is_provisioned() -> None:
    (source,) = load(FOLDER / "grafana" / "datasources" / "prometheus.yml")["datasources"]
    for panel in panels():
        for target in panel.get("targets", []):
            assert (target["datasource"]["uid"], target["datasource"]["type"]) == (source["uid"], source["type"])
        assert len({target["refId"] for target in panel.get("targets", [])}) == len(panel.get("targets", []))
    services = load(REPOSITORY / "docker-compose.yml")["services"]
    ((name, prometheus),) = [each for each in services.items() if each[1]["image"].startswith("prom/prometheus:")]
    assert source["url"] == f"http://{name}:{prometheus['ports'][0].rpartition(':')[2]}"


def test_grafana_finds_the_dashboard_where_it_is_mounted() -> None:
    (provider,) = load(FOLDER / "grafana" / "dashboards" / "provider.yml")["providers"]
    grafana = load(REPOSITORY / "docker-compose.yml")["services"]["grafana"]
    mounts = dict(volume.removesuffix(":ro").split(":") for volume in grafana["volumes"])
    assert mounts["./deploy/observability/grafana/dashboards"] == provider["options"]["path"]
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/{DASHBOARD.name}"
