"""One chaos run: publish, break, mend, read everything back, and judge by the ledger."""

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.faults import FAULTS, Steps, faults_for
from tests.chaos.ledger import Delivery, Escalation, Ledger, Verdict
from tests.chaos.plan import PlannedFault, make_plan
from tests.chaos.reading import escalation_of, label_of
from tests.chaos.reference import Reference
from tests.chaos.world import BROKER_SETTINGS, World, make_world
from tests.support.kafka_server import kafka_from_jars
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.topic_reader import TopicReader

WORKERS = 3
_TICK_S = 0.1
_REPORT_S = 5.0
_SETTLE_S = 150.0
_STUCK_S = 90.0
# Faults that waited for the same thing begin this far apart: between them some work shall be done, or nothing is broken.
_APART_S = 1.5
_RESTART_MESSAGES = 3000


@dataclass(frozen=True, slots=True)
class Options:
    """What a run does. It breaks things for `minutes` at most; settling and reading back come on top."""

    messages: int
    faults: int
    seed: int
    minutes: float
    delivery: Delivery = "at_least_once"
    workers: int = WORKERS
    mutation: str = ""
    kinds: tuple[str, ...] = ()


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


@dataclass
class _Play:
    """A run in progress: the faults that are due, waiting and under way."""

    world: World
    options: Options
    plan: list[PlannedFault]
    started_s: float = field(default_factory=time.monotonic)
    done: Counter[str] = field(default_factory=Counter)
    under_way: list[tuple[float, Steps]] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    restart_s: dict[str, float | None] = field(default_factory=dict)
    began_last_s: float = 0.0

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started_s


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
        play = _Play(world, options, _plan_of(options))
        _break_things(play, say)
        _settle(play, say)
        say("reading everything back")
        verdict = _judge(world, bundle)
        return _result(play, verdict, seconds=time.monotonic() - began_s)
    finally:
        if world is not None:
            world.crew.close()
        kafka.stop()
        _clear(folder, told=world.crew.bad_ends if world is not None else [])


def _clear(folder: Path, *, told: Sequence[str]) -> None:
    named = [each for each in folder.glob("*.log") if any(str(each) in what for what in told)]
    for each in folder.iterdir():
        if each.is_dir():
            shutil.rmtree(each)
        elif each not in named:
            each.unlink()
    if not named:
        folder.rmdir()


def _plan_of(options: Options) -> list[PlannedFault]:
    open_to = faults_for(options.delivery)
    weights: Mapping[str, float] = {name: open_to[name].weight for name in options.kinds or open_to}
    return make_plan(weights, seed=options.seed, count=options.faults, duration_s=options.minutes * 60 * 0.85)


def _break_things(play: _Play, say: Callable[[str], None]) -> None:
    world, options = play.world, play.options
    per_fault = options.messages // (options.faults + 1)
    world.publish(options.messages - per_fault * options.faults)
    due, told_s = list(play.plan), 0.0
    while (due or play.waiting or play.under_way) and play.elapsed_s < options.minutes * 60:
        while due and due[0].at_s <= play.elapsed_s:
            play.waiting.append(due.pop(0).name)
            world.publish(per_fault)
        _go_on(play)
        if play.elapsed_s - told_s > _REPORT_S:
            told_s = play.elapsed_s
            say(_progress(play))
        time.sleep(_TICK_S)
    world.publish(options.messages - world.source.published)
    play.waiting.clear()
    while play.under_way:  # what is broken is mended
        _go_on(play)
        time.sleep(_TICK_S)


def _go_on(play: _Play) -> None:
    """Take every fault that is due a step further, begin those that may, and see to the workers."""
    now_s = time.monotonic()
    for entry in [each for each in play.under_way if each[0] <= now_s]:
        play.under_way.remove(entry)
        _step(play, entry[1])
    ready = next((each for each in play.waiting if FAULTS[each].may_begin(play.world)), None)
    if ready is not None and now_s - play.began_last_s >= _APART_S:
        play.waiting.remove(ready)
        play.began_last_s = now_s
        play.done[ready] += 1
        _step(play, FAULTS[ready].make(play.world))
    play.world.crew.tend()
    play.world.poll_producer()


def _step(play: _Play, steps: Steps) -> None:
    wait_s = next(steps, None)
    if wait_s is not None:
        play.under_way.append((time.monotonic() + wait_s, steps))


def _settle(play: _Play, say: Callable[[str], None]) -> None:
    """Let the workers that are left do what is left; then stop them: all must be committed."""
    crew, world = play.world.crew, play.world
    if not world.flush(_SETTLE_S):
        raise AssertionError("not all messages could be published")
    if not _drain(play, say):
        crew.bad_ends.append(f"stuck: {world.unsettled()} records stay uncommitted with nothing broken any more")
        for worker in crew.workers:
            worker.kill()
        if not _drain(play, say):
            crew.bad_ends.append(f"stuck for good: {world.unsettled()} records stay uncommitted after a restart of all")
    play.restart_s = {how: _time_restart(play, how, say) for how in ("stopped", "killed")}
    crew.is_on_hold = True
    for worker in crew.workers:
        worker.stop()
    _wait(play, lambda: not crew.workers, 30, say)
    crew.bad_ends.extend(f"{each.folder.name} could not be stopped" for each in crew.workers)
    if unsettled := world.unsettled():
        crew.bad_ends.append(f"{unsettled} records uncommitted after everybody stopped")


def _time_restart(play: _Play, how: str, say: Callable[[str], None]) -> float | None:
    """End all workers in one way, start them again at once, and return the seconds from start to the first commit."""
    crew, world = play.world.crew, play.world
    crew.is_on_hold = True
    for worker in crew.workers:
        worker.kill() if how == "killed" else worker.stop()
    _wait(play, lambda: not crew.workers, 30, say)
    world.publish(_RESTART_MESSAGES)
    world.flush(_SETTLE_S)
    crew.is_on_hold = False
    crew.tend()
    if not _drain(play, say):
        crew.bad_ends.append(f"stuck after all were {how}: {world.unsettled()} records stay uncommitted")
    return min((each.first_commit_s for each in crew.workers if each.first_commit_s is not None), default=None)


def _drain(play: _Play, say: Callable[[str], None]) -> bool:
    """Return whether everything was committed; give up when for long nothing more is.

    Nothing is published meanwhile, and what was published is confirmed: what is left can only fall. More of it is no progress.
    """
    least: int | None = None

    def has_fallen() -> bool:
        nonlocal least
        left = play.world.unsettled()
        if left is None or (least is not None and left >= least):
            return False
        least = left
        return True

    while least != 0:
        if not _wait(play, has_fallen, _STUCK_S, say):
            return False
    return True


def _wait(play: _Play, condition: Callable[[], bool], deadline_s: float, say: Callable[[str], None]) -> bool:
    give_up_s, told_s = time.monotonic() + deadline_s, time.monotonic()
    while not condition():
        if time.monotonic() > give_up_s:
            return False
        if time.monotonic() - told_s > _REPORT_S:
            told_s = time.monotonic()
            say(_progress(play))
        play.world.crew.tend()
        time.sleep(_TICK_S)
    return True


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


def _result(play: _Play, verdict: Verdict, *, seconds: float) -> RunResult:
    crew = play.world.crew
    trouble = list(crew.bad_ends)
    if verdict.positions < play.world.confirmed:  # there may be more: a producer repeats what was not confirmed
        trouble.append(f"{play.world.confirmed} messages were confirmed to their producer, {verdict.positions} are there")
    return RunResult(play.options, verdict, play.done, crew.ends, trouble, play.restart_s, seconds)


def _progress(play: _Play) -> str:
    world = play.world
    unsettled: Any = "?" if world.is_broker_in_trouble else world.unsettled()
    return (
        f"{play.elapsed_s:6.0f} s  fault {play.done.total()}/{play.options.faults} ({len(play.under_way)} under way)  "
        f"published {world.source.published:,}  uncommitted {unsettled}  workers {len(world.crew.workers)}  "
        f"ends {dict(world.crew.ends)}  unexcused {len(world.crew.bad_ends)}"
    )
