"""The same with batches: what `getmany` gives goes through `transformers.pipeline` at once, and is committed at once."""

import asyncio
import os

from peer import BATCH, classifier, kafka_clients, label_of, message_of


async def main() -> None:
    classify = classifier()
    consumer, producer = kafka_clients()
    await consumer.start()
    await producer.start()
    while True:
        polled = await consumer.getmany(timeout_ms=200, max_records=256)
        records = [record for part in polled.values() for record in part]
        if not records:
            continue
        messages = [message_of(record.value) for record in records]
        found = await asyncio.to_thread(classify, [message["text"] for message in messages], batch_size=BATCH)
        sent = [
            await producer.send(
                os.environ["OUT"], label_of(message, scores, partition=record.partition, offset=record.offset), key=record.key
            )
            for record, message, scores in zip(records, messages, found, strict=True)
        ]
        await asyncio.gather(*sent)
        await consumer.commit()


asyncio.run(main())
