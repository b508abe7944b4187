import json
import urllib.error
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, Counter

from worker.core.failures import ConfigurationError
from worker.telemetry.health import Health, HealthServer


def make_server(health, port=0):
    registry = CollectorRegistry()
    Counter("tested", "a counter", registry=registry)
    return HealthServer("127.0.0.1", port, health=health, registry=registry, asyncapi=lambda: {"asyncapi": "3.0.0"})


@pytest.fixture
def ready_health():
    return Health(is_model_warm=True, is_broker_reachable=lambda: True, assigned_partitions=1)


@pytest.fixture
def get(ready_health):
    server = make_server(ready_health)
    server.start()

    def get(path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    yield get
    server.stop()


def test_a_worker_with_model_broker_and_partitions_is_ready(get):
    assert get("/ready") == (200, '{"ready": true, "problems": []}')
    assert get("/live")[0] == 200


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"is_model_warm": False}, "model"),
        ({"is_broker_reachable": lambda: False}, "broker"),
        ({"assigned_partitions": 0}, "partition"),
        ({"is_stopping": True}, "stopping"),
    ],
)
def test_ready_tells_what_is_missing_while_live_holds(get, ready_health, change, told):
    for name, value in change.items():
        setattr(ready_health, name, value)
    status, body = get("/ready")
    assert status == 503
    assert told in json.loads(body)["problems"][0]
    assert get("/live")[0] == 200


def test_live_fails_when_records_wait_and_nothing_moves(get, ready_health):
    ready_health.stall_deadline_s = 30
    ready_health.progress.last_move_s -= 60
    assert get("/live")[0] == 200  # idle since long
    ready_health.progress.look(True)
    assert get("/live")[0] == 200  # they have only just come
    ready_health.progress.waiting_since_s -= 60
    status, body = get("/live")
    assert status == 503
    assert "nothing has moved for 60 s" in body
    ready_health.is_stopping = True
    assert get("/live")[0] == 200  # the watchdog sees to that
    ready_health.is_stopping = False
    ready_health.progress.move()
    assert get("/live")[0] == 200
    ready_health.progress.last_move_s -= 60
    ready_health.progress.look(False)
    assert get("/live")[0] == 200


def test_a_spare_is_ready_and_says_so(get, ready_health):
    ready_health.assigned_partitions, ready_health.is_spare = 0, True
    status, body = get("/ready")
    assert status == 200
    assert "spare" in json.loads(body)["note"]


def test_live_fails_when_the_event_loop_hangs(get, ready_health):
    ready_health.last_beat_s -= 60
    status, body = get("/live")
    assert status == 503
    assert "event loop" in body


def test_metrics_and_asyncapi_are_served_and_nothing_else(get):
    assert "tested_total" in get("/metrics")[1]
    assert json.loads(get("/asyncapi.json")[1]) == {"asyncapi": "3.0.0"}
    assert get("/etc/passwd")[0] == 404


def test_a_taken_port_is_refused_with_the_settings_to_change(ready_health):
    server = make_server(ready_health)
    with pytest.raises(ConfigurationError, match="RUGO_HTTP_PORT"):
        make_server(ready_health, port=server.port)
    server._server.server_close()
