"""At-least-once delivery: published and confirmed first, committed after. A crash between makes repeats, with the same ids."""

from collections.abc import Collection, Sequence

from worker.core.records import Outcome, Record, TopicPartition
from worker.kafka.committer import KafkaCommitter
from worker.kafka.publisher import KafkaPublisher


class AtLeastOnce:
    """Publishes with one producer, commits with the consumer."""

    def __init__(self, publisher: KafkaPublisher, committer: KafkaCommitter) -> None:
        self._publisher = publisher
        self._committer = committer

    async def start(self) -> None:
        """Connect."""
        await self._publisher.start()

    async def stop(self) -> None:
        """Disconnect."""
        await self._publisher.stop()

    async def prepare(self, partitions: Collection[TopicPartition]) -> None:
        """Do nothing: the producer knows no partitions of the input."""

    async def release(self) -> None:
        """Do nothing, for the same reason."""

    async def publish(self, outcomes: Sequence[Outcome]) -> Collection[TopicPartition]:
        """Publish. No partition is found to be lost here: what its new owner publishes too has the same ids."""
        await self._publisher.publish([each for outcome in outcomes for each in outcome.outgoing])
        return ()

    async def commit(self, settled: Sequence[Record]) -> None:
        """Commit the next offsets of the partitions that are still owned."""
        await self._committer.commit(settled)
