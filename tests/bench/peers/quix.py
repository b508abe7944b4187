"""Quix Streams with the torch model: batches gathered by hand into `transformers.pipeline`."""

import os

from peer import BATCH, classifier, label_of
from quixstreams import Application


def main() -> None:
    classify = classifier()
    app = Application(
        broker_address=os.environ["SERVERS"],
        consumer_group=os.environ["GROUP"],
        auto_offset_reset="earliest",
        loglevel="WARNING",
        auto_create_topics=True,
        producer_extra_config={"acks": "all"},
    )
    messages = app.topic(os.environ["IN"], value_deserializer="json")
    producer = app.get_producer()
    waiting: list[tuple[dict, bytes, int, int]] = []

    # Its windows are by key, and a chat has few messages: batches across chats have to be gathered by hand.
    def take(value: dict, key: bytes, _timestamp: int, _headers: object) -> None:
        from quixstreams import message_context

        context = message_context()
        waiting.append((value, key, context.partition, context.offset))
        if len(waiting) < BATCH:
            return
        found = classify([each[0]["text"] for each in waiting], batch_size=BATCH)
        for (value, key, partition, offset), scores in zip(waiting, found, strict=True):
            producer.produce(os.environ["OUT"], label_of(value, scores, partition=partition, offset=offset), key=key)
        producer.poll(0)
        waiting.clear()

    app.dataframe(messages).update(take, metadata=True)
    app.run()


main()
