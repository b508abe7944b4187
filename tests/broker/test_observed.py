"""What a running worker tells of itself, on a real Apache Kafka: metrics over HTTP, traces to a collector."""

import gzip
import json
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.stage import Stage
from tests.support.worker_process import WorkerProcess, wait_until

pytestmark = pytest.mark.broker

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01".encode()


class Collector:
    """Takes traces as an OTLP/HTTP collector does."""

    def __init__(self) -> None:
        self.raw: list[bytes] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.raw.append(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Say nothing."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    @property
    def spans(self) -> list:
        requests = [ExportTraceServiceRequest.FromString(each) for each in self.raw]
        return [
            span for each in requests for found in each.resource_spans for scope in found.scope_spans for span in scope.spans
        ]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def metrics_of(worker: WorkerProcess) -> dict[tuple[str, ...], float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{worker.http_port}/metrics", timeout=5) as response:
        families = text_string_to_metric_families(response.read().decode())
        return {(each.name, *sorted(each.labels.values())): each.value for family in families for each in family.samples}


def test_metrics_and_traces_of_a_running_worker_are_true(stage: Stage, collector: Collector) -> None:
    """Publish 300 messages, two of them angry and one with a trace of its own, and a record that is no JSON.

    The worker's metrics count exactly that, with no lag left; its spans arrive at the collector without a text in them, one of
    them linked to the message's trace, which goes on in the headers of its label and its escalation.
    """
    stage.publish_chats(298, chats=10)
    stage.publish(b"broken", key=b"x")
    for chat, headers in (("a", [("traceparent", TRACEPARENT)]), ("b", [])):
        value = json.dumps({"message_id": "m", "chat_id": chat, "text": "злюсь"}, ensure_ascii=False).encode()
        stage.publish(value, key=chat.encode(), headers=headers)
    stage.flush()
    worker = stage.start_worker(RUGO_OTEL_ENDPOINT=collector.endpoint, NO_PROXY="127.0.0.1", OTEL_BSP_SCHEDULE_DELAY="200")
    worker.wait_until_assigned()
    wait_until(lambda: metrics_of(worker).get(("rugo_records_in_total",)) == 301, what=worker.log)
    partitions = [("rugo_consumer_lag_records", *sorted([str(each), stage.names.input])) for each in range(3)]
    wait_until(lambda: [metrics_of(worker).get(each) for each in partitions] == [0, 0, 0], what="no lag on any partition")

    found = metrics_of(worker)
    assert found[("rugo_events_out_total", stage.names.emotions)] == 300
    assert found[("rugo_events_out_total", stage.names.escalations)] == 2
    assert found[("rugo_dead_letters_total", "not_json")] == 1
    assert found[("rugo_labels_total", "gratitude")] == 298
    assert found[("rugo_escalations_total", "severe_message")] == 2
    assert found[("rugo_latency_seconds_count",)] == 301
    assert found[("rugo_broker_reachable",)] == found[("rugo_ready",)] == 1
    assert found[("rugo_assigned_partitions",)] == 3
    assert any(name == "rugo_model_info" and "tiny-words" in labels for name, *labels in found)

    worker.terminate()
    assert worker.wait() == 0, worker.log
    polls = [each for each in collector.spans if each.name == f"process {stage.names.input}"]
    assert sum(each.value.int_value for poll in polls for each in poll.attributes if each.key.endswith("message_count")) == 301
    assert {each.name for each in collector.spans} == {polls[0].name, "classify", "publish", "commit"}
    assert [link.trace_id.hex() for poll in polls for link in poll.links] == [TRACE]
    assert sum(event.name == "escalation" for poll in polls for event in poll.events) == 2
    assert not any("злюсь".encode() in raw or "спасибо".encode() in raw for raw in collector.raw)

    labels = {each.value["chat_id"]: dict(each.headers) for each in stage.outcomes() if each.kind == "emotions"}
    assert labels["a"]["traceparent"] == TRACEPARENT
    assert labels["b"]["traceparent"].split(b"-")[1].decode() in {poll.trace_id.hex() for poll in polls}
