"""Topics of a test's own. A module that wants another Kafka, partitions or settings overrides the fixture of that name."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.kafka_server import Kafka
from tests.support.stage import Stage


@pytest.fixture
def partitions() -> int:
    return 3


@pytest.fixture
def stage(kafka: Kafka, tiny_bundle: Path, partitions: int) -> Iterator[Stage]:
    made = Stage(kafka.bootstrap_servers, bundle=tiny_bundle, partitions=partitions).create_topics()
    yield made
    made.close()
