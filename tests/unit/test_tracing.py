import socket
import sys
import time
from datetime import UTC, datetime

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from tests.support.records import START_S, chat_json, make_record
from worker.contracts.outbound import ModelInfo
from worker.core.escalation import parse_escalation_policy
from worker.core.escalation_states import EscalationStates
from worker.core.events import EventBuilder
from worker.core.failures import BrokerUnavailableError, ConfigurationError
from worker.core.records import TopicNames
from worker.core.rejection_flood import RejectionWindow
from worker.inference.executor import InferenceExecutor
from worker.inference.model_bundle import load_model_bundle
from worker.inference.onnx_classifier import OnnxClassifier
from worker.pipeline import Pipeline
from worker.settings import DEFAULT_POLICY
from worker.telemetry.metrics import Metrics
from worker.telemetry.tracing import NO_TRACER, OtelTracer, _traces_url, open_tracer, traces_wanted

TOPICS = TopicNames("chat.messages", "chat.emotions", "chat.escalations", "chat.messages.dlq")
MODEL = ModelInfo(name="m", version="1", digest="d")
PRODUCERS = "4bf92f3577b34da6a3ce929d0e0e4736"


def traceparent(span=1, trace=PRODUCERS):
    return ("traceparent", f"00-{trace}-{span:016x}-01".encode())


class Delivery:
    def __init__(self):
        self.published = []
        self.fails = False

    async def publish(self, outcomes):
        if self.fails:
            raise BrokerUnavailableError("the text of an error is not for traces")
        self.published += [each for outcome in outcomes for each in outcome.outgoing]
        return ()

    async def commit(self, settled):
        """Commit nothing."""


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


@pytest.fixture
def delivery():
    return Delivery()


@pytest.fixture
def pipeline_with(tiny_bundle, delivery):
    bundle = load_model_bundle(tiny_bundle)
    policy = parse_escalation_policy(DEFAULT_POLICY.read_text("utf-8"), source="default")

    def make(tracer):
        return Pipeline(
            InferenceExecutor(OnnxClassifier(bundle, threads=1), max_padded_tokens=512, max_texts=8),
            bundle.scorer(policy.weights),
            states=EscalationStates(policy, max_chats=100),
            events=EventBuilder(TOPICS, model=MODEL, worker_version="0", label_order=bundle.manifest.labels),
            flood=RejectionWindow(max_share=0.5, window=1000),
            delivery=delivery,
            metrics=Metrics(),
            now=lambda: datetime.fromtimestamp(START_S, tz=UTC),
            tracer=tracer,
        )

    return make


@pytest.fixture
def pipeline(pipeline_with, exporter):
    return pipeline_with(OtelTracer(SimpleSpanProcessor(exporter), group_id="workers", model=MODEL))


async def process(pipeline, poll):
    await pipeline.settle(await pipeline.score(poll))


def record(text, *, offset=0, headers=()):
    return make_record(chat_json(text, message_id=f"m{offset}"), offset=offset, headers=headers)


async def test_a_poll_is_a_span_with_its_stages_as_children_in_order(pipeline, exporter):
    await process(pipeline, [record("спасибо"), make_record(b"broken", offset=1)])
    *stages, poll = exporter.get_finished_spans()
    assert [each.name for each in stages] == ["classify", "publish", "commit"]
    assert (poll.name, poll.kind, poll.parent) == ("process chat.messages", SpanKind.CONSUMER, None)
    assert all(each.parent.span_id == poll.context.span_id for each in stages)
    assert poll.attributes["messaging.batch.message_count"] == 2
    assert poll.attributes["rugo.rejected_records"] == 1
    assert poll.resource.attributes["rugo.model.digest"] == "d"


async def test_a_poll_is_linked_to_the_traces_that_its_messages_came_with(pipeline, exporter):
    came = [
        record("спасибо", headers=(traceparent(1),)),
        record("рада", offset=1),
        record("зря", offset=2, headers=(traceparent(2),)),
    ]
    await process(pipeline, came)
    poll = exporter.get_finished_spans()[-1]
    assert [each.context.span_id for each in poll.links] == [1, 2]
    assert {f"{each.context.trace_id:032x}" for each in poll.links} == {PRODUCERS}


async def test_links_are_bounded_and_those_left_out_are_counted(pipeline, exporter):
    await process(pipeline, [record("спасибо", offset=each, headers=(traceparent(each + 1),)) for each in range(70)])
    poll = exporter.get_finished_spans()[-1]
    assert (len(poll.links), poll.attributes["rugo.links_left_out"]) == (64, 6)


async def test_a_message_s_trace_goes_on_with_its_label_and_its_escalation(pipeline, delivery):
    headers = (traceparent(7), ("tracestate", b"vendor=1"), ("other", b"x"))
    await process(pipeline, [record("злюсь", headers=headers)])
    assert [each.topic for each in delivery.published] == [TOPICS.emotions, TOPICS.escalations]
    for each in delivery.published:
        assert [header for header in each.headers if header[0].startswith("trace")] == list(headers[:2])
        assert "other" not in dict(each.headers)


@pytest.mark.parametrize("headers", [(), (("traceparent", b"\xff\x00"),), (("traceparent", None),), (traceparent(0),)])
async def test_a_message_without_a_trace_of_its_own_goes_on_in_the_poll_s(pipeline, exporter, delivery, headers):
    await process(pipeline, [record("спасибо", headers=headers)])
    poll = exporter.get_finished_spans()[-1]
    expected = f"00-{poll.context.trace_id:032x}-{poll.context.span_id:016x}-".encode()
    assert dict(delivery.published[0].headers)["traceparent"].startswith(expected)
    assert poll.links == ()


async def test_an_escalation_is_an_event_with_its_reason_and_position(pipeline, exporter):
    await process(pipeline, [record("спасибо"), record("злюсь", offset=5)])
    (event,) = exporter.get_finished_spans()[-1].events
    assert (event.name, event.attributes["rugo.reason"], event.attributes["messaging.kafka.offset"]) == (
        "escalation",
        "severe_message",
        5,
    )


async def test_a_stage_that_fails_ends_its_poll_with_the_error_s_type_alone(pipeline, exporter, delivery):
    delivery.fails = True
    with pytest.raises(BrokerUnavailableError):
        await process(pipeline, [record("спасибо")])
    _, publish, poll = exporter.get_finished_spans()
    for each in (publish, poll):
        assert each.attributes["error.type"] == "BrokerUnavailableError"
        assert not each.status.is_ok
        assert each.events == ()


async def test_no_text_and_no_chat_is_in_any_span(pipeline, exporter):
    await process(pipeline, [record("злюсь"), make_record("отрава злюсь".encode(), offset=1), record("отрава", offset=2)])
    told = "".join(each.to_json() for each in exporter.get_finished_spans())
    for secret in ("злюсь", "\\u0437\\u043b\\u044e", "отрава", "chat-1", "m0"):
        assert secret not in told


async def test_without_traces_records_go_out_without_trace_headers(pipeline_with, delivery):
    await process(pipeline_with(NO_TRACER), [record("злюсь", headers=(traceparent(1),))])
    assert all("traceparent" not in dict(each.headers) for each in delivery.published)


@pytest.mark.parametrize(
    ("endpoint", "environment", "wanted"),
    [
        (None, {}, False),
        ("http://collector:4318", {}, True),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
        (None, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ("http://collector:4318", {"OTEL_SDK_DISABLED": "true"}, False),
        ("http://collector:4318", {"OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_traces_are_off_unless_asked_for(endpoint, environment, wanted):
    assert traces_wanted(endpoint, environment) is wanted


@pytest.mark.parametrize("endpoint", ["http://c:4318", "http://c:4318/", "http://c:4318/v1/traces"])
def test_an_endpoint_s_path_may_be_left_out(endpoint):
    assert _traces_url(endpoint) == "http://c:4318/v1/traces"


async def test_a_collector_that_never_answers_holds_up_neither_a_poll_nor_the_stop(pipeline_with, delivery, monkeypatch):
    monkeypatch.setattr("worker.telemetry.tracing._FLUSH_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        tracer = open_tracer(f"http://127.0.0.1:{silent.getsockname()[1]}", group_id="workers", model=MODEL)
        began_s = time.monotonic()
        await process(pipeline_with(tracer), [record("спасибо")])
        tracer.close()
        assert time.monotonic() - began_s < 2.0
    assert len(delivery.published) == 1


def test_without_opentelemetry_the_failure_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ConfigurationError, match=r"rugo-worker\[otel\]"):
        open_tracer("http://collector:4318", group_id="workers", model=MODEL)
