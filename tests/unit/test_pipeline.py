import asyncio
import json
from datetime import UTC, datetime

import pytest

from tests.support.records import START_S, chat_json, make_record
from worker.contracts.outbound import ModelInfo
from worker.core.escalation import parse_escalation_policy
from worker.core.escalation_states import EscalationStates
from worker.core.events import EventBuilder
from worker.core.failures import BrokerUnavailableError, RejectionFloodError
from worker.core.records import TopicNames, TopicPartition
from worker.core.rejection_flood import RejectionWindow
from worker.inference.executor import InferenceExecutor
from worker.inference.model_bundle import load_model_bundle
from worker.inference.onnx_classifier import OnnxClassifier
from worker.pipeline import Pipeline
from worker.settings import DEFAULT_POLICY
from worker.telemetry.metrics import Metrics

TOPICS = TopicNames("chat.messages", "chat.emotions", "chat.escalations", "chat.messages.dlq")


class Journal:
    """A delivery that notes what it is asked, in order. `lost` are partitions that turn out to be another worker's."""

    def __init__(self):
        self.steps = []
        self.fails = False
        self.lost = ()

    async def publish(self, outcomes):
        if self.fails:
            raise BrokerUnavailableError("gone")
        self.steps.append(("publish", [each for outcome in outcomes for each in outcome.outgoing]))
        return self.lost

    async def commit(self, settled):
        self.steps.append(("commit", [each.offset for each in settled]))

    @property
    def published(self):
        return [each for step, records in self.steps if step == "publish" for each in records]


@pytest.fixture
def journal():
    return Journal()


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def make_pipeline(tiny_bundle, journal, metrics):
    bundle = load_model_bundle(tiny_bundle)
    policy = parse_escalation_policy(DEFAULT_POLICY.read_text("utf-8"), source="default")

    def make(*, window=1000):
        model = ModelInfo(name="m", version="1", digest="d")
        return Pipeline(
            InferenceExecutor(OnnxClassifier(bundle, threads=1), max_padded_tokens=512, max_texts=8),
            bundle.scorer(policy.weights),
            states=EscalationStates(policy, max_chats=100),
            events=EventBuilder(TOPICS, model=model, worker_version="0", label_order=bundle.manifest.labels),
            flood=RejectionWindow(max_share=0.5, window=window),
            delivery=journal,
            metrics=metrics,
            now=lambda: datetime.fromtimestamp(START_S, tz=UTC),
        )

    return make


def records(*texts, chat="chat-1", first_offset=0):
    return [
        make_record(chat_json(text, message_id=f"m{i}", chat_id=chat), offset=i) for i, text in enumerate(texts, first_offset)
    ]


async def process(pipeline, poll):
    await pipeline.settle(await pipeline.score(poll))


async def test_every_record_gets_its_outcome_in_order_and_the_commit_comes_last(make_pipeline, journal):
    poll = [*records("спасибо"), make_record(b"broken", offset=1), *records("отрава", "почему", first_offset=2)]
    await process(make_pipeline(), poll)
    assert [step for step, _ in journal.steps] == ["publish", "commit"]
    assert [each.topic for each in journal.published] == [
        TOPICS.emotions,
        TOPICS.dead_letter,
        TOPICS.dead_letter,
        TOPICS.emotions,
    ]
    reasons = [dict(each.headers)["dlq.reason"] for each in journal.published if each.topic == TOPICS.dead_letter]
    assert reasons == [b"not_json", b"poison"]
    assert journal.steps[-1] == ("commit", [0, 1, 2, 3])


async def test_an_escalation_follows_the_label_of_the_message_that_set_it_off(make_pipeline, journal):
    await process(make_pipeline(), records("спасибо", "злюсь", "рада"))
    assert [each.topic for each in journal.published] == [TOPICS.emotions, TOPICS.emotions, TOPICS.escalations, TOPICS.emotions]
    escalation = json.loads(journal.published[2].value)
    assert [each["message_id"] for each in escalation["evidence"]] == ["m1"]


async def test_nothing_is_committed_or_remembered_when_publishing_fails(make_pipeline, journal):
    pipeline = make_pipeline()
    journal.fails = True
    with pytest.raises(BrokerUnavailableError):
        await process(pipeline, records("злюсь"))
    assert journal.steps == []
    journal.fails = False
    await process(pipeline, records("злюсь"))
    assert [each.topic for each in journal.published] == [TOPICS.emotions, TOPICS.escalations]


async def test_decisions_do_not_depend_on_how_records_were_batched(make_pipeline, journal):
    texts = ["спасибо", "раздражает", "зря", "почему", "раздражает", "злюсь", "мерзость", "рада"]
    await process(make_pipeline(), records(*texts))
    at_once = [each.value for each in journal.published]
    journal.steps.clear()
    pipeline = make_pipeline()
    for record in records(*texts):
        await process(pipeline, [record])
    assert [each.value for each in journal.published] == at_once


async def test_a_flood_of_rejects_stops_before_anything_is_published(make_pipeline, journal):
    with pytest.raises(RejectionFloodError):
        await process(make_pipeline(window=4), [make_record(b"broken", offset=i) for i in range(4)])
    assert journal.steps == []


async def test_what_turns_out_to_be_another_workers_is_not_remembered(make_pipeline, journal):
    pipeline = make_pipeline()
    journal.lost = {TopicPartition("chat.messages", 0)}
    await process(pipeline, records("злюсь"))
    journal.steps.clear()
    journal.lost = ()
    await process(pipeline, records("злюсь"))
    assert [each.topic for each in journal.published] == [TOPICS.emotions, TOPICS.escalations]


async def test_a_poll_that_is_cut_short_is_not_remembered(make_pipeline, journal):
    pipeline = make_pipeline()
    scored = await pipeline.score(records("злюсь"))
    journal.publish, publish = never, journal.publish
    settling = asyncio.create_task(pipeline.settle(scored))
    await asyncio.sleep(0)
    settling.cancel()
    await asyncio.wait([settling])
    journal.publish = publish
    await process(pipeline, records("злюсь"))
    assert [each.topic for each in journal.published] == [TOPICS.emotions, TOPICS.escalations]


async def never(outcomes):
    await asyncio.Event().wait()


async def test_what_was_heard_is_counted_when_it_is_confirmed_and_not_before(make_pipeline, journal, metrics):
    def counted():
        ask = metrics.registry.get_sample_value
        return ask("rugo_escalations_total", {"reason": "severe_message"}), ask("rugo_labels_total", {"emotion": "anger"})

    pipeline = make_pipeline()
    journal.fails = True
    with pytest.raises(BrokerUnavailableError):
        await process(pipeline, records("злюсь"))
    assert counted() == (0, 0)
    journal.fails = False
    await process(pipeline, records("злюсь", "рада"))
    assert counted() == (1, 1)
    assert metrics.registry.get_sample_value("rugo_records_in_total") == 2
    assert metrics.registry.get_sample_value("rugo_commit_seconds_count") == 1


async def test_what_another_worker_makes_anew_is_not_counted(make_pipeline, journal, metrics):
    poll = records("злюсь")
    journal.lost = [poll[0].topic_partition]
    await process(make_pipeline(), poll)
    assert metrics.registry.get_sample_value("rugo_records_in_total") == 0
    assert metrics.registry.get_sample_value("rugo_escalations_total", {"reason": "severe_message"}) == 0
