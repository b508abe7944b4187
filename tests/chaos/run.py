"""One chaos run: publish, break, mend, read everything back, and judge by the ledger."""

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.ledger import Escalation, Ledger, Verdict
from tests.chaos.plan import Options, plan_of
from tests.chaos.play import Play, break_things, settle
from tests.chaos.reading import escalation_of, label_of
from tests.chaos.reference import Reference
from tests.chaos.world import BROKER_SETTINGS, World, make_world
from tests.support.kafka_server import kafka_from_jars
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.topic_reader import TopicReader


@dataclass(slots=True)
class RunResult:
    """What a run came to. `trouble` holds what was wrong besides the ledger's laws."""

    options: Options
    verdict: Verdict
    faults: Counter[str]
    ends: Counter[str]
    trouble: list[str]
    restart_s: dict[str, float | None]
    seconds: float

    @property
    def is_good(self) -> bool:
        return not self.verdict.broken and not self.trouble


def run_chaos(options: Options, *, say: Callable[[str], None] = lambda _: None) -> RunResult:
    """Run the whole of it on a Kafka of its own. Raises `KafkaUnavailableError` where none can be had from jars.

    Logs that a bad end names stay in the temporary folder; nothing else does.
    """
    began_s = time.monotonic()
    kafka = kafka_from_jars(settings=BROKER_SETTINGS)
    folder = Path(tempfile.mkdtemp(prefix="rugo-chaos-"))
    world: World | None = None
    try:
        bundle = make_tiny_bundle(folder / "bundle")
        kafka.start()
        world = make_world(
            kafka,
            bundle=bundle,
            folder=folder,
            seed=options.seed,
            delivery=options.delivery,
            workers=options.workers,
            mutation=options.mutation,
        )
        play = Play(world, options, plan_of(options))
        break_things(play, say)
        settle(play, say)
        say("reading everything back")
        verdict = _judge(world, bundle)
        return _result(play, verdict, seconds=time.monotonic() - began_s)
    finally:
        if world is not None:
            world.crew.close()
        kafka.stop()
        _clear(folder, told=world.crew.bad_ends if world is not None else [])


def _judge(world: World, bundle: Path) -> Verdict:
    names, servers = world.stage.names, world.kafka.bootstrap_servers
    ledger = Ledger(world.delivery)
    policy = Path(world.crew.environment["RUGO_ESCALATION_POLICY"])
    reference = Reference(names, bundle=bundle, policy=policy)
    for due in reference.outcomes(TopicReader(servers, names.input).read()):
        ledger.expect_escalation(due) if isinstance(due, Escalation) else ledger.expect(due)
    for message in TopicReader(servers, names.emotions).read():
        ledger.see(label_of(message), partition=message.partition())
    world.keep_dead_letters()
    for outcome in world.dead_letters:
        ledger.see(outcome, partition=0)
    for message in TopicReader(servers, names.escalations).read():
        ledger.see_escalation(escalation_of(message.value()), partition=message.partition())
    return ledger.verdict()


def _result(play: Play, verdict: Verdict, *, seconds: float) -> RunResult:
    crew = play.world.crew
    trouble = list(crew.bad_ends)
    if verdict.positions < play.world.confirmed:  # there may be more: a producer repeats what was not confirmed
        trouble.append(f"{play.world.confirmed} messages were confirmed to their producer, {verdict.positions} are there")
    return RunResult(play.options, verdict, play.done, crew.ends, trouble, play.restart_s, seconds)


def _clear(folder: Path, *, told: Sequence[str]) -> None:
    named = [each for each in folder.glob("*.log") if any(str(each) in what for what in told)]
    for each in folder.iterdir():
        if each.is_dir():
            shutil.rmtree(each)
        elif each not in named:
            each.unlink()
    if not named:
        folder.rmdir()
