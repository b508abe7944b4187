"""`doctor` on a real Apache Kafka."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.kafka_server import Kafka
from tests.support.stage import Stage
from tests.support.worker_process import ROOT

pytestmark = pytest.mark.broker


def examine(stage: Stage) -> tuple[int, dict[str, list[dict[str, str]]], str]:
    done = subprocess.run(
        [sys.executable, "-m", "worker", "doctor", "--json"],
        env={**os.environ, **stage.environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=90,
    )
    said = json.loads(done.stdout)
    findings: dict[str, list[dict[str, str]]] = {}
    for each in said["findings"]:
        findings.setdefault(each["what"], []).append(each)
    return done.returncode, findings, done.stdout


def test_doctor_tells_missing_topics_then_an_idle_group_then_a_working_one(kafka: Kafka, tiny_bundle: Path) -> None:
    """Ask before topics exist, with records waiting and no worker, and once a worker has labelled them: each is told truly."""
    stage = Stage(kafka.bootstrap_servers, bundle=tiny_bundle)
    try:
        code, findings, _ = examine(stage)
        assert code == 1
        assert {findings[f"topic {name}"][0]["verdict"] for name in stage.names.all} == {"wrong"}

        stage.create_topics().publish_chats(30)
        stage.flush()
        code, findings, text = examine(stage)
        assert code == 0, text
        assert [each["verdict"] for name in stage.names.all for each in findings[f"topic {name}"]] == ["ok"] * 4
        assert "3 partitions" in findings[f"topic {stage.names.input}"][0]["found"]
        assert "no worker is running" in findings["group"][0]["found"]
        assert findings["lag"][0]["found"].startswith("30 records")

        stage.start_worker().wait_until_assigned()
        stage.wait_until_all_committed()
        code, findings, text = examine(stage)
        assert code == 0, text
        assert findings["group"][0]["found"] == "Stable, 1 worker"
        assert findings["lag"][0]["found"].startswith("0 records")
    finally:
        stage.close()
