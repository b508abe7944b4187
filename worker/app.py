"""Builds the worker and wires it once: `faststream run worker.app:app`, or `worker.app:create_app` with `--factory`."""

import asyncio
import logging
import os
import platform
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import structlog
from faststream import FastStream
from faststream.kafka import KafkaBroker
from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512

from worker import __version__
from worker.contracts.outbound import ModelInfo
from worker.core.escalation import EscalationPolicy
from worker.core.escalation_states import EscalationStates
from worker.core.events import EventBuilder
from worker.core.failures import WorkerError
from worker.core.records import TopicPartition
from worker.core.rejection_flood import RejectionWindow
from worker.inference.model_bundle import load_model_bundle
from worker.inference.onnx_classifier import onnx_inference
from worker.kafka.broker_watch import BrokerWatch
from worker.kafka.channels import describe_channels
from worker.kafka.committer import KafkaCommitter, committed_notes
from worker.kafka.connection import BrokerConnection
from worker.kafka.delivery import AtLeastOnce
from worker.kafka.lag_watch import LagWatch
from worker.kafka.polls_in_flight import PollsInFlight
from worker.kafka.publisher import KafkaPublisher
from worker.kafka.rebalance import RebalanceListener
from worker.kafka.rights import worker_rights
from worker.kafka.state_reader import StateReader
from worker.kafka.subscriber import SubscriptionSettings, read_polls, subscribe
from worker.kafka.topics import wait_for_topics
from worker.kafka.transactions import ExactlyOnce
from worker.kafka.work_watch import WorkWatch
from worker.pipeline import Pipeline, ScoredPoll
from worker.settings import Settings, load_settings, read_drift_baseline, read_escalation_policy, unknown_variables
from worker.telemetry.drift import DriftWatch
from worker.telemetry.health import Health, HealthServer, Progress
from worker.telemetry.logs import configure_logs
from worker.telemetry.metrics import Metrics
from worker.telemetry.tracing import NO_TRACER, Tracer, open_tracer, traces_wanted

_REJECTION_WINDOW = 1000
_BEAT_S = 1.0
_DRAIN_MARGIN_S = 5.0
_LEAST_DISORDER = 4096

_log = structlog.get_logger(__name__)


def create_app(settings: Settings | None = None) -> FastStream:
    """Return the worker, ready to run. Raises `WorkerError` when settings, policy or bundle can't be used.

    Running it ends with `SystemExit` and a sentence when the worker can't do its job any more.
    """
    settings = settings or load_settings()
    configure_logs(level=settings.log_level, log_format=settings.log_format)
    return _Worker(settings).app


class _Worker:
    """Holds the parts together for as long as the app runs."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._names = settings.topic_names
        self._failure: WorkerError | None = None
        self._metrics = Metrics()
        self._connection = settings.broker_connection
        self._rights = worker_rights(
            self._names, group_id=settings.group_id, uses_transactions=settings.delivery == "exactly_once"
        )
        self._watch = BrokerWatch(self._connection, deadline_s=settings.broker_deadline_s, rights=self._rights)
        self._health = Health(
            stall_deadline_s=max(settings.stall_deadline_s, settings.broker_deadline_s),
            is_broker_reachable=lambda: self._watch.is_reachable,
        )
        client_id = f"rugo-worker-{platform.node()}-{os.getpid()}"
        policy = read_escalation_policy(settings.escalation_policy)
        self._flood = RejectionWindow(max_share=settings.max_rejected_share, window=_REJECTION_WINDOW)
        self._delivery = self._build_delivery(client_id)
        self._states = EscalationStates(policy, max_chats=settings.max_remembered_chats)
        self._bundle = load_model_bundle(settings.model)
        manifest = self._bundle.manifest
        self._model = ModelInfo(name=manifest.name, version=manifest.version, digest=self._bundle.digest)
        self._tracer = self._open_tracer()
        self._inference = onnx_inference(
            self._bundle,
            threads=settings.inference_threads,
            max_padded_tokens=settings.max_padded_tokens,
            max_texts=settings.max_micro_batch,
            cache_texts=settings.cache_texts,
            watch=_InferenceWatch(self._metrics, self._health.progress),
        )
        self._state_reader = StateReader(
            self._connection,
            self._names,
            states=self._states,
            consumer=lambda: self._subscriber.consumer,
            deadline_s=settings.broker_deadline_s,
            max_disorder=max(_LEAST_DISORDER, 4 * settings.max_poll_records),
            now=self._now,
        )
        self._broker = self._build_broker(client_id)
        pipeline = self._build_pipeline(policy)
        self._polls = PollsInFlight(pipeline.score, self._noting_progress(pipeline.settle), on_failure=self._fail)
        self._listener = self._listen_to_rebalances()
        self._subscriber = self._subscribe()
        self._reading: asyncio.Task[None] | None = None
        self._background: list[asyncio.Task[None]] = []
        self.app = FastStream(
            self._broker,
            logger=logging.getLogger("faststream"),
            lifespan=self._lifespan,
            on_startup=[self._wait_for_broker],
            after_startup=[self._start_reading],
            on_shutdown=[self._begin_stop],
        )
        self._watch_ourselves(client_id)
        self.app.schema = describe_channels(self._connection.addresses, self._names, security=_security_of(self._connection))
        self._http = HealthServer(
            settings.http_host,
            settings.http_port,
            health=self._health,
            registry=self._metrics.registry,
            asyncapi=lambda: self.app.schema.to_specification().to_jsonable(),
        )

    def _watch_ourselves(self, client_id: str) -> None:
        health = self._health
        self._metrics.model.info(self._model.model_dump())
        self._metrics.broker_reachable.set_function(lambda: float(self._watch.is_reachable))
        self._metrics.assigned_partitions.set_function(lambda: float(health.assigned_partitions))
        self._metrics.ready.set_function(lambda: float(not health.ready_problems()))
        self._lag = LagWatch(lambda: self._subscriber.consumer, on_measured=self._metrics.set_lag)
        self._work = WorkWatch(
            self._connection,
            topic=self._names.input,
            group_id=self._settings.group_id,
            client_id=client_id,
            consumer=lambda: self._subscriber.consumer,
            polls_in_flight=lambda: len(self._polls),
            assigned_partitions=lambda: health.assigned_partitions,
            is_broker_reachable=lambda: self._watch.is_reachable,
            on_looked=health.progress.look,
            on_moved=health.progress.move,
            on_spare=self._note_spare,
        )

    def _open_tracer(self) -> Tracer:
        settings = self._settings
        if not traces_wanted(settings.otel_endpoint):
            return NO_TRACER
        return open_tracer(settings.otel_endpoint, group_id=settings.group_id, model=self._model)

    def _watch_drift(self) -> DriftWatch | None:
        settings = self._settings
        if not settings.drift_window:
            return None
        baseline = read_drift_baseline(settings.drift_baseline) if settings.drift_baseline else self._bundle.manifest.baseline
        if baseline is None:
            _log.warning("drift is not measured: the model bundle has no baseline, and RUGO_DRIFT_BASELINE names none")
            return None
        return DriftWatch(baseline.counts(), window=settings.drift_window, metrics=self._metrics)

    def _build_broker(self, client_id: str) -> KafkaBroker:
        return KafkaBroker(
            self._connection.addresses.split(","),
            security=_security_of(self._connection),
            client_id=client_id,
            consumer_only=True,  # events go out through a producer of our own
            allow_auto_create_topics=False,
            metadata_max_age_ms=30_000,  # partitions that are added are read soon, without a rebalance for other reasons
            request_timeout_ms=20_000,
            retry_backoff_ms=500,
            logger=logging.getLogger("faststream"),
            log_level=logging.DEBUG,
        )

    def _build_pipeline(self, policy: EscalationPolicy) -> Pipeline:
        manifest = self._bundle.manifest
        return Pipeline(
            self._inference,
            self._bundle.scorer(policy.weights),
            states=self._states,
            events=EventBuilder(
                topics=self._names,
                model=self._model,
                worker_version=__version__,
                label_order=manifest.labels,
                publishes_probabilities=self._settings.publish_probabilities,
            ),
            flood=self._flood,
            delivery=self._delivery,
            metrics=self._metrics,
            now=self._now,
            drift=self._watch_drift(),
            tracer=self._tracer,
        )

    def _now(self) -> datetime:
        return datetime.now(UTC)

    def _build_delivery(self, client_id: str) -> AtLeastOnce | ExactlyOnce:
        settings = self._settings
        if settings.delivery == "exactly_once":
            return ExactlyOnce(
                self._connection,
                group_id=settings.group_id,
                client_id=client_id,
                consumer=lambda: self._subscriber.consumer,
                deadline_s=settings.broker_deadline_s,
                session_timeout_s=settings.session_timeout_ms / 1000,
                on_lost=self._metrics.commits_lost.inc,
                on_failure=self._fail,
                note=self._flood.note,
            )
        return AtLeastOnce(
            KafkaPublisher(self._connection, deadline_s=settings.broker_deadline_s, client_id=client_id),
            KafkaCommitter(
                lambda: self._subscriber.consumer,
                connection=self._connection,
                deadline_s=settings.broker_deadline_s,
                on_commit_lost=self._metrics.commits_lost.inc,
                note=self._flood.note,
            ),
        )

    def _subscribe(self) -> Any:
        settings = self._settings
        return subscribe(
            self._broker,
            SubscriptionSettings(
                topic=settings.input_topic,
                group_id=settings.group_id,
                fetch_max_wait_ms=settings.fetch_max_wait_ms,
                session_timeout_ms=settings.session_timeout_ms,
                rebalance_timeout_ms=settings.rebalance_timeout_ms,
            ),
            listener=self._listener,
        )

    def _listen_to_rebalances(self) -> RebalanceListener:
        return RebalanceListener(
            self._polls,
            consumer=lambda: self._subscriber.consumer,
            timeout_s=self._settings.rebalance_timeout_ms / 1000 - _DRAIN_MARGIN_S,
            on_revoked=self._forget,
            on_assigned=self._note_assigned,
            prepare=self._delivery.prepare,
            release=self._delivery.release,
            restore=self._restore,
            on_failure=self._fail,
        )

    @asynccontextmanager
    async def _lifespan(self) -> AsyncIterator[None]:
        for name, nearest in unknown_variables().items():
            _log.warning("unknown setting is ignored", variable=name, did_you_mean=nearest)
        watchdog = threading.Timer(self._settings.stop_deadline_s, os._exit, args=(1,))
        watchdog.daemon = True
        self._watchdog = watchdog
        self._http.start()
        self._background.append(asyncio.create_task(self._beat()))
        try:
            await self._inference.classify(["проверка"])
            self._health.is_model_warm = True
            _log.info("model is warm", model=self._bundle.manifest.name, digest=self._bundle.digest, http_port=self._http.port)
            yield
            if self._failure is not None:
                raise self._failure
        except WorkerError as error:
            raise SystemExit(f"rugo-worker: {error}") from error
        finally:
            await self._clean_up()
            watchdog.cancel()

    async def _clean_up(self) -> None:
        for task in self._background:
            task.cancel()
        await self._delivery.stop()
        self._inference.close()
        self._http.stop()
        self._tracer.close()

    async def _wait_for_broker(self) -> None:
        settings = self._settings
        await wait_for_topics(self._connection, self._names, deadline_s=settings.broker_deadline_s, rights=self._rights)
        await self._delivery.start()

    async def _start_reading(self) -> None:
        self._reading = asyncio.create_task(self._read())
        self._background.append(asyncio.create_task(self._watch.run(self._fail)))
        self._background.append(asyncio.create_task(self._lag.run()))
        self._background.append(asyncio.create_task(self._work.run()))

    async def _begin_stop(self) -> None:
        """Read no more, settle what is in flight, within bounds; FastStream stops the consumer after this."""
        self._health.is_stopping = True
        self._watchdog.start()
        await self._listener.stop()
        if self._reading is not None:
            self._reading.cancel()
        if self._failure is None:
            await self._polls.wait_until_idle(timeout_s=max(1.0, self._settings.stop_deadline_s - _DRAIN_MARGIN_S))
        await self._polls.drop()

    async def _read(self) -> None:
        try:
            await read_polls(
                self._subscriber.consumer,
                max_records=self._settings.max_poll_records,
                take=self._polls.take,
                deadline_s=self._settings.broker_deadline_s,
            )
        except Exception as error:  # noqa: BLE001 - the boundary of a task of its own: nobody else would hear of it
            self._fail(error)

    def _noting_progress(self, settle: Callable[[ScoredPoll], Awaitable[None]]) -> Callable[[ScoredPoll], Awaitable[None]]:
        async def settle_and_note(poll: ScoredPoll) -> None:
            await settle(poll)
            self._health.progress.move()

        return settle_and_note

    async def _beat(self) -> None:
        while True:
            self._health.beat()
            await asyncio.sleep(_BEAT_S)

    def _fail(self, error: Exception) -> None:
        """Stop the app; the first failure is the one that is told."""
        if self._failure is None:
            known = isinstance(error, WorkerError)
            if not known:
                _log.error("unexpected failure: this is a bug of the worker", exc_info=error)
            self._failure = error if isinstance(error, WorkerError) else WorkerError(f"{type(error).__name__}: see the log")
        self.app.exit()

    def _note_assigned(self, partitions: Collection[TopicPartition]) -> None:
        self._states.forget_partitions(partitions)  # a poll that outlived the revocation may have left something
        self._metrics.rebalances.inc()
        self._health.assigned_partitions = len(partitions)

    async def _restore(self, partitions: Collection[TopicPartition]) -> None:
        settings = self._settings
        if partitions:
            notes = await committed_notes(
                self._connection, partitions, group_id=settings.group_id, deadline_s=settings.broker_deadline_s
            )
            self._flood.recall(notes)
        await self._state_reader.restore(partitions)

    def _note_spare(self, is_spare: bool) -> None:
        self._health.is_spare = is_spare

    def _forget(self, partitions: Collection[TopicPartition]) -> None:
        self._states.forget_partitions(partitions)
        self._health.assigned_partitions = 0


class _InferenceWatch:
    """Counts what the executor did, and notes that it moves: a poll may take long, a micro-batch may not."""

    def __init__(self, metrics: Metrics, progress: Progress) -> None:
        self._metrics = metrics
        self._progress = progress

    def tokenized(self, seconds: float) -> None:
        self._progress.move()
        self._metrics.tokenized(seconds)

    def ran_micro_batch(self, *, texts: int, tokens: int, padded_tokens: int, seconds: float) -> None:
        self._progress.move()
        self._metrics.ran_micro_batch(texts=texts, tokens=tokens, padded_tokens=padded_tokens, seconds=seconds)

    def looked_up(self, *, hits: int, misses: int) -> None:
        self._metrics.looked_up(hits=hits, misses=misses)


def _security_of(connection: BrokerConnection) -> BaseSecurity:
    # FastStream takes no aiokafka options but says the same things in classes of its own.
    tls, uses_tls, sasl = connection.tls, connection.tls is not None, connection.sasl
    if sasl is None:
        return BaseSecurity(tls, uses_tls)
    kinds = {"PLAIN": SASLPlaintext, "SCRAM-SHA-256": SASLScram256, "SCRAM-SHA-512": SASLScram512}
    return kinds[sasl.mechanism](sasl.username, sasl.password.get_secret_value(), tls, uses_tls)


def __getattr__(name: str) -> FastStream:
    # `worker.app:app` is built when it is asked for, so that importing this module does no work.
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return create_app()
    except WorkerError as error:
        raise SystemExit(f"rugo-worker: {error}") from error
