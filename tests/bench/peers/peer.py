"""What the peers share: the same weights in `transformers.pipeline`, and the least that a label needs to hold."""

import json
import os
from typing import Any

BATCH = 64


def classifier() -> Any:
    """Return the pipeline on the shipped weights, with the threads that the run gives everybody."""
    import torch
    from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast, pipeline

    torch.set_num_threads(int(os.environ["THREADS"]))
    folder = os.environ["MODEL"]
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=f"{folder}/tokenizer.json", pad_token="<pad>", model_max_length=128)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    return pipeline(
        "text-classification", model=model, tokenizer=tokenizer, top_k=None, function_to_apply="sigmoid", truncation=True
    )


def message_of(value: bytes) -> dict[str, Any]:
    return json.loads(value)


def label_of(message: dict[str, Any], scores: list[dict[str, Any]], *, partition: int, offset: int) -> bytes:
    """Return a label by one threshold for all: the peers are spared ours, and events, escalations and dead letters."""
    emotions = [each for each in scores if each["score"] >= 0.5]
    source = {"partition": partition, "offset": offset}
    return json.dumps({"message_id": message["message_id"], "emotions": emotions, "source": source}).encode()


def kafka_clients() -> tuple[Any, Any]:
    """Return an aiokafka consumer of the input topic that commits when it is told to, and a producer; neither is started."""
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

    servers = os.environ["SERVERS"]
    consumer = AIOKafkaConsumer(
        os.environ["IN"],
        bootstrap_servers=servers,
        group_id=os.environ["GROUP"],
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    return consumer, AIOKafkaProducer(bootstrap_servers=servers, acks="all")
