"""Which offsets may be committed once records are settled."""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from worker.core.records import Record, TopicPartition


def next_offsets(settled: Iterable[Record], *, owned: AbstractSet[TopicPartition]) -> dict[TopicPartition, int]:
    """Return the next offset per partition that is safe to commit: where reading resumes.

    `settled` holds all records of one poll up to the last one of each partition, so there are no gaps below the highest.
    Partitions that are no longer owned are left out: their new owner replays them.
    """
    highest: dict[TopicPartition, int] = {}
    for record in settled:
        if record.topic_partition in owned:
            highest[record.topic_partition] = max(record.offset, highest.get(record.topic_partition, -1))
    return {partition: offset + 1 for partition, offset in highest.items()}
