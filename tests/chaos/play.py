"""The middle of a chaos run: faults are made while messages are published, then the workers settle what is left."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.faults import FAULTS, Steps
from tests.chaos.plan import Options, PlannedFault
from tests.chaos.world import World

_TICK_S = 0.1
_REPORT_S = 5.0
_SETTLE_S = 150.0
_STUCK_S = 90.0
# Faults begin this far apart at least, also those that waited for the same thing: in between some work shall be done.
_APART_S = 1.5
_RESTART_MESSAGES = 3000


@dataclass
class Play:
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


def break_things(play: Play, say: Callable[[str], None]) -> None:
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


def _go_on(play: Play) -> None:
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


def _step(play: Play, steps: Steps) -> None:
    wait_s = next(steps, None)
    if wait_s is not None:
        play.under_way.append((time.monotonic() + wait_s, steps))


def settle(play: Play, say: Callable[[str], None]) -> None:
    """Let the workers that are left do what is left; then stop them: all must be committed."""
    crew, world = play.world.crew, play.world
    world.flush(_SETTLE_S)
    if not drain(play, say):
        crew.bad_ends.append(f"stuck: {world.unsettled()} records stay uncommitted with nothing broken any more")
        for worker in crew.workers:
            worker.kill()
        if not drain(play, say):
            crew.bad_ends.append(f"stuck for good: {world.unsettled()} records stay uncommitted after a restart of all")
    play.restart_s = {how: _time_restart(play, how, say) for how in ("stopped", "killed")}
    crew.is_on_hold = True
    for worker in crew.workers:
        worker.stop()
    _wait(play, lambda: not crew.workers, 30, say)
    crew.bad_ends.extend(f"{each.folder.name} could not be stopped" for each in crew.workers)
    if unsettled := world.unsettled():
        crew.bad_ends.append(f"{unsettled} records uncommitted after everybody stopped")


def _time_restart(play: Play, how: str, say: Callable[[str], None]) -> float | None:
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
    if not drain(play, say):
        crew.bad_ends.append(f"stuck after all were {how}: {world.unsettled()} records stay uncommitted")
    return min((each.first_commit_s for each in crew.workers if each.first_commit_s is not None), default=None)


def drain(play: Play, say: Callable[[str], None]) -> bool:
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


def _wait(play: Play, condition: Callable[[], bool], deadline_s: float, say: Callable[[str], None]) -> bool:
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


def _progress(play: Play) -> str:
    world = play.world
    unsettled: Any = "?" if world.is_broker_in_trouble else world.unsettled()
    return (
        f"{play.elapsed_s:6.0f} s  fault {play.done.total()}/{play.options.faults} ({len(play.under_way)} under way)  "
        f"published {world.source.published:,}  uncommitted {unsettled}  workers {len(world.crew.workers)}  "
        f"ends {dict(world.crew.ends)}  unexcused {len(world.crew.bad_ends)}"
    )
