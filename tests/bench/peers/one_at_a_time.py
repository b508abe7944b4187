"""What a user would write first: an aiokafka loop that gives `transformers.pipeline` one message at a time."""

import asyncio
import os

from peer import classifier, kafka_clients, label_of, message_of


async def main() -> None:
    classify = classifier()
    consumer, producer = kafka_clients()
    await consumer.start()
    await producer.start()
    async for record in consumer:
        message = message_of(record.value)
        (scores,) = classify([message["text"]])
        value = label_of(message, scores, partition=record.partition, offset=record.offset)
        await producer.send_and_wait(os.environ["OUT"], value, key=record.key)
        await consumer.commit()


asyncio.run(main())
