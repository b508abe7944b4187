"""What all tests share: the hypothesis profile, a real Kafka for the session, and a tiny bundle."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from tests.support.kafka_server import (
    Kafka,
    KafkaContainer,
    KafkaServer,
    NoKafka,
    kafka_for_tests,
    own_kafka_for_tests,
)
from tests.support.tiny_bundle import make_tiny_bundle

# Busy machines are no failure of the code under test.
hypothesis_settings.register_profile("rugo", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("rugo")


@pytest.fixture(scope="session")
def kafka() -> Iterator[Kafka]:
    """A running Apache Kafka, shared by the session: tests take topics and groups of their own."""
    with kafka_for_tests() as found:
        if isinstance(found, NoKafka):
            pytest.skip(found.reason)
        yield found


@pytest.fixture(scope="module")
def own_kafka() -> Iterator[KafkaServer | KafkaContainer]:
    """A running Apache Kafka of the module's own, which its tests may kill, pause and restart."""
    with own_kafka_for_tests() as found:
        if isinstance(found, NoKafka):
            pytest.skip(found.reason)
        yield found


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a bundle whose known words speak for one label each."""
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny-words")
