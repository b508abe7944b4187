"""What a run without faults comes to: the pure core over the input topic, in the order of each partition."""

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.chaos.ledger import Escalation, Outcome
from tests.chaos.reading import dead_letter_of, escalation_of, label_outcome
from worker import __version__
from worker.contracts.outbound import ModelInfo
from worker.core.decode import decode_record
from worker.core.escalation_states import EscalationStates
from worker.core.events import EventBuilder, ScoredMessage, judged_message_of
from worker.core.records import Record, Rejected, TopicNames
from worker.core.scoring import Score
from worker.inference.executor import InferenceExecutor, PoisonText
from worker.inference.model_bundle import load_model_bundle
from worker.inference.onnx_classifier import OnnxClassifier
from worker.settings import read_escalation_policy

_ANY_TIME = datetime(2026, 1, 1, tzinfo=UTC)


class Reference:
    """One judge without faults for a whole run; give it the input's messages, each partition's in order."""

    def __init__(self, names: TopicNames, *, bundle: Path, policy: Path) -> None:
        loaded = load_model_bundle(bundle)
        rules = read_escalation_policy(policy)
        self._scorer = loaded.scorer(rules.weights)
        self._inference = InferenceExecutor(OnnxClassifier(loaded, threads=1), max_padded_tokens=1024, max_texts=32)
        self._states = EscalationStates(rules, max_chats=1_000_000)
        self._heard: dict[str, Score | None] = {}
        manifest = loaded.manifest
        self._events = EventBuilder(
            topics=names,
            model=ModelInfo(name=manifest.name, version=manifest.version, digest=loaded.digest),
            worker_version=__version__,
            label_order=manifest.labels,
        )

    def outcomes(self, messages: Iterable[Any]) -> Iterator[Outcome | Escalation]:
        """Yield what each message must come to, and the escalations where they are due."""
        for message in messages:
            record = _record_of(message)
            decoded = decode_record(record)
            score = None if isinstance(decoded, Rejected) else self._score(decoded.message.text)
            if isinstance(decoded, Rejected) or score is None:
                yield self._dead_letter(record, decoded)
                continue
            yield from self._judge(ScoredMessage(decoded, score, False))
        self._inference.close()

    def _score(self, text: str) -> Score | None:
        if text not in self._heard:
            [classified] = self._inference.classify_texts([text])
            self._heard[text] = None if isinstance(classified, PoisonText) else self._scorer.score(classified.logits)
        return self._heard[text]

    def _dead_letter(self, record: Record, decoded: Any) -> Outcome:
        rejected = decoded if isinstance(decoded, Rejected) else Rejected(record, "poison", "")
        made = self._events.dead_letter_record(rejected)
        return dead_letter_of(made.key, made.value, made.headers)

    def _judge(self, scored: ScoredMessage) -> Iterator[Outcome | Escalation]:
        record, chat_id = scored.decoded.record, scored.decoded.message.chat_id
        state, decision = self._states.judge(record.topic_partition, chat_id, judged_message_of(scored))
        self._states.keep()
        value = self._events.emotion_record(scored, facts=state.facts, classified_at=_ANY_TIME).value or b""
        yield label_outcome(json.loads(value), value)
        if decision is not None:
            yield escalation_of(self._events.escalation_record(scored, decision, raised_at=_ANY_TIME).value or b"")


def _record_of(message: Any) -> Record:
    return Record(
        topic=message.topic(),
        partition=message.partition(),
        offset=message.offset(),
        timestamp_ms=message.timestamp()[1],
        key=message.key(),
        value=message.value(),
        headers=tuple(message.headers() or ()),
    )
