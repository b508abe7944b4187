"""A consumer in front of an inference server: many requests in flight, published and committed poll by poll."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
from peer import kafka_clients, label_of, message_of

_IN_FLIGHT = 256


def main() -> None:
    url = f"http://127.0.0.1:{os.environ['PORT']}"
    server = subprocess.Popen([sys.executable, str(Path(__file__).with_name("litserve_server.py"))])
    try:
        _wait_for(url)
        asyncio.run(_consume(url))
    finally:
        server.terminate()


def _wait_for(url: str) -> None:
    for _ in range(600):
        try:
            if httpx.get(f"{url}/health", trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise SystemExit("the server did not start")


async def _consume(url: str) -> None:
    consumer, producer = kafka_clients()
    await consumer.start()
    await producer.start()
    limits = httpx.Limits(max_connections=_IN_FLIGHT)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits, trust_env=False) as client:
        while True:
            polled = await consumer.getmany(timeout_ms=200, max_records=_IN_FLIGHT)
            records = [record for part in polled.values() for record in part]
            messages = [message_of(record.value) for record in records]
            asked = [client.post("/predict", json={"text": message["text"]}) for message in messages]
            answers = await asyncio.gather(*asked)
            sent = [
                await producer.send(
                    os.environ["OUT"],
                    label_of(message, answer.json()["scores"], partition=record.partition, offset=record.offset),
                    key=record.key,
                )
                for record, message, answer in zip(records, messages, answers, strict=True)
            ]
            await asyncio.gather(*sent)
            if records:
                await consumer.commit()


main()
