"""The faults, each a small generator: it breaks something, yields the seconds that it waits, and mends what it broke.

They run side by side; what a fault needs for itself alone is said in its `Fault`, and it is begun when that is free.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.chaos.ledger import Delivery
from tests.chaos.rigged_worker import DEATH_POINTS
from tests.chaos.world import World

Steps = Iterator[float]
_LOOK_S = 0.25
_SESSION_S = 6.0


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault, how often it is planned compared with others, and when it may begin."""

    make: Callable[[World], Steps]
    weight: float
    may_begin: Callable[[World], bool]


def _has_worker(world: World) -> bool:
    return any(each.is_at_work for each in world.crew.workers)


def _has_calm_broker(world: World) -> bool:
    return not (world.is_broker_in_trouble or world.are_topics_in_trouble)


def _has_worker_and_broker(world: World) -> bool:
    return _has_worker(world) and _has_calm_broker(world)


def worker_killed(world: World) -> Steps:
    """SIGKILL at any moment."""
    if worker := world.crew.pick(world.rng):
        yield world.rng.uniform(0.0, 0.5)
        worker.kill()


def worker_killed_while_starting(world: World) -> Steps:
    """SIGKILL, and again in the middle of the start that follows: joining, taking up state, first poll."""
    if worker := world.crew.pick(world.rng):
        known = list(world.crew.workers)
        worker.kill()
        yield from _until(lambda: any(each not in known for each in world.crew.workers), 10)
        yield world.rng.uniform(0.5, 6.0)
        for started in [each for each in world.crew.workers if each not in known][:1]:
            started.kill()


def all_workers_killed(world: World) -> Steps:
    """SIGKILL to every worker at once."""
    for worker in world.crew.workers:
        worker.kill()
    yield 0.0


def worker_stopped(world: World) -> Steps:
    """SIGTERM: it must finish its poll, leave the group and end with 0."""
    if worker := world.crew.pick(world.rng):
        yield world.rng.uniform(0.0, 0.5)
        worker.stop()
        yield from _until(lambda: not worker.is_running, 30)
        if worker.is_running:
            world.crew.bad_ends.append(f"did not stop within 30 s: {worker.folder.name}")
            worker.kill()


def all_workers_stopped(world: World) -> Steps:
    """SIGTERM to every worker: a deployment that waits for none."""
    for worker in [each for each in world.crew.workers if each.is_at_work]:
        worker.stop()
    yield 0.0


def worker_frozen(world: World) -> Steps:
    """SIGSTOP until the group has given its partitions to others, then SIGCONT: a zombie in the middle of what it did."""
    if worker := world.crew.pick(world.rng):
        yield world.rng.uniform(0.0, 0.5)
        worker.freeze()
        yield _SESSION_S + world.rng.uniform(1.0, 5.0)
        worker.thaw()


def crew_changed(world: World) -> Steps:
    """One worker fewer for some seconds, then as many as before: members leave and join."""
    world.crew.wanted = max(1, world.crew.wanted - 1)
    if worker := world.crew.pick(world.rng):
        worker.stop()
    yield world.rng.uniform(2.0, 8.0)
    world.crew.wanted = world.crew.most


def model_slow(world: World) -> Steps:
    """Each micro-batch takes up to seconds longer for a while."""
    if worker := world.crew.pick(world.rng):
        worker.order(slow_s=world.rng.choice([0.05, 0.3, 2.0]))
        yield world.rng.uniform(2.0, 6.0)
        if worker.is_at_work:
            worker.order()


def workers_clock_jumped(world: World) -> Steps:
    """A worker's clock is hours off for a while, or for as long as it lives."""
    if worker := world.crew.pick(world.rng):
        worker.order(clock_shift_s=world.rng.choice([-7200.0, -600.0, 600.0, 7200.0]))
        yield world.rng.uniform(2.0, 10.0)
        if worker.is_at_work and world.rng.random() < 0.5:
            worker.order()


def producers_clock_jumped(world: World) -> Steps:
    """Records carry timestamps that jump ahead or back, for a while."""
    world.is_producers_clock_wrong = True
    world.source.clock_shift_s = world.rng.choice([-86_400.0, -300.0, -30.0, 30.0, 300.0, 3600.0])
    yield world.rng.uniform(1.0, 6.0)
    world.source.clock_shift_s = 0.0
    world.is_producers_clock_wrong = False


def broker_restarted(world: World) -> Steps:
    """The broker shuts down in good order and comes back."""
    with world.broker_trouble():
        world.kafka.restart()
        yield 1.0


def broker_killed(world: World) -> Steps:
    """SIGKILL to the broker, which then comes back."""
    with world.broker_trouble():
        world.kafka.kill()
        yield world.rng.uniform(0.0, 2.0)
        world.kafka.start()
        yield 1.0


def broker_paused(world: World) -> Steps:
    """The broker freezes: connections stay open and nobody answers."""
    with world.broker_trouble():
        world.kafka.pause()
        yield world.rng.uniform(1.0, 8.0)
        world.kafka.resume()
        yield 1.0


def broker_gone(world: World) -> Steps:
    """The broker is dead for longer than the deadline: every worker must say so and end; all are started again."""
    with world.broker_trouble():
        world.kafka.kill()
        world.crew.is_on_hold = True
        yield from _until(lambda: not world.crew.workers, 60)
        if world.crew.workers:
            world.crew.bad_ends.append(f"{len(world.crew.workers)} workers outlived the broker by 60 s")
        world.kafka.start()
        world.crew.is_on_hold = False
        yield 1.0


def disk_full(world: World) -> Steps:
    """The broker can't append any more: it refuses, or gives up and ends; then there is room again."""
    with world.broker_trouble():
        world.kafka.fill_disk()
        yield world.rng.uniform(2.0, 5.0)
        world.kafka.kill()
        world.kafka.start()
        yield 1.0


def partitions_added(world: World) -> Steps:
    """The input topic gets one partition more; the output topics too, sometimes after it, sometimes not at all."""
    world.are_topics_in_trouble = True
    names = world.stage.names
    outputs = world.rng.choice([(), (names.emotions, names.escalations)])
    for topic in world.rng.sample([names.input, *outputs], 1 + len(outputs)):
        world.add_partitions(topic, 1)
        yield world.rng.uniform(0.0, 1.0)
    world.are_topics_in_trouble = False


def dead_letters_too_large(world: World) -> Steps:
    """The dead-letter topic takes small records only: the worker says what to change and ends; it is mended and goes on."""
    world.are_topics_in_trouble = True
    with world.crew.excused("refuses an event as too large"):
        world.limit_dead_letters(100)
        world.publish_malformed(20)
        yield from _until_one_says_why(world)
        world.limit_dead_letters(2 * 1024 * 1024)
    world.are_topics_in_trouble = False


def dead_letter_topic_missing(world: World) -> Steps:
    """The dead-letter topic is deleted under the workers, and made again after one of them has said why it ends."""
    world.are_topics_in_trouble = True
    topic = world.stage.names.dead_letter
    partitions = world.partitions_of(topic)
    # What is in it goes with it: nobody may be publishing between its being read and its being deleted.
    with world.crew.excused("topics missing", topic):
        yield from _stop_everybody(world)
        world.keep_dead_letters()
        world.delete_topic(topic)
        world.publish_malformed(20)
        world.crew.is_on_hold = False
        yield from _until_one_says_why(world)
        world.create_dead_letter_topic(partitions)
        yield 2.0
    world.are_topics_in_trouble = False


def dead_letter_topic_deleted(world: World) -> Steps:
    """The dead-letter topic is deleted in the middle of work: who needs it says so and ends; it is made again."""
    world.are_topics_in_trouble = True
    topic = world.stage.names.dead_letter
    partitions = world.partitions_of(topic)
    with world.crew.excused(topic):
        frozen = [each for each in world.crew.workers if each.is_running and not each.is_frozen]
        for worker in frozen:
            worker.freeze()
        yield 1.0  # what was on its way arrives; with nobody publishing, what is read is all that goes with the topic
        world.keep_dead_letters()
        world.delete_topic(topic)
        for worker in frozen:
            worker.thaw()
        world.publish_malformed(20)
        yield from _until_one_says_why(world)
        world.create_dead_letter_topic(partitions)
        yield 2.0
    world.are_topics_in_trouble = False


def _stop_everybody(world: World) -> Steps:
    world.crew.is_on_hold = True
    for worker in world.crew.workers:
        if worker.is_frozen:
            worker.thaw()
        if worker.first_commit_s is None:
            worker.kill()
        else:
            worker.stop()
    yield from _until(lambda: not world.crew.workers, 30)
    for worker in world.crew.workers:
        worker.kill()
    yield 1.0


def _until_one_says_why(world: World) -> Steps:
    before = world.crew.ends["said why"]
    yield from _until(lambda: world.crew.ends["said why"] > before, 40)
    if world.crew.ends["said why"] == before:
        world.crew.bad_ends.append("no worker ended although it could not do its job")


def _until(condition: Callable[[], bool], deadline_s: float) -> Steps:
    waited_s = 0.0
    while not condition() and waited_s < deadline_s:
        yield _LOOK_S
        waited_s += _LOOK_S


def _die_at(point: str) -> Callable[[World], Steps]:
    def die(world: World) -> Steps:
        if worker := world.crew.pick(world.rng):
            worker.order(die_at=point, after=world.rng.randrange(150) if point == "publishing" else world.rng.randrange(3))
            yield from _until(lambda: not worker.is_running, 15)

    return die


def faults_for(delivery: Delivery) -> dict[str, Fault]:
    """Return the faults that can happen to workers of this delivery."""
    # A topic that is deleted under an open transaction takes along what a reader of committed records has not seen yet.
    not_for = {"at_least_once": "die_in_commit", "exactly_once": "dead_letter_topic_deleted"}[delivery]
    return {name: fault for name, fault in FAULTS.items() if name != not_for}


_DEATHS = {f"die_{point}": Fault(_die_at(point), 8, _has_worker) for point in DEATH_POINTS}

FAULTS: dict[str, Fault] = {
    **_DEATHS,
    "worker_killed": Fault(worker_killed, 10, _has_worker),
    "worker_killed_while_starting": Fault(worker_killed_while_starting, 5, _has_worker),
    "all_workers_killed": Fault(all_workers_killed, 4, _has_worker),
    "worker_stopped": Fault(worker_stopped, 7, _has_worker_and_broker),
    "all_workers_stopped": Fault(all_workers_stopped, 4, _has_worker_and_broker),
    "worker_frozen": Fault(worker_frozen, 8, _has_worker),
    "crew_changed": Fault(crew_changed, 8, _has_worker_and_broker),
    "model_slow": Fault(model_slow, 5, _has_worker),
    "workers_clock_jumped": Fault(workers_clock_jumped, 4, _has_worker),
    "producers_clock_jumped": Fault(producers_clock_jumped, 4, lambda world: not world.is_producers_clock_wrong),
    "broker_restarted": Fault(broker_restarted, 3, _has_calm_broker),
    "broker_killed": Fault(broker_killed, 3, _has_calm_broker),
    "broker_paused": Fault(broker_paused, 4, _has_calm_broker),
    "broker_gone": Fault(broker_gone, 1, _has_calm_broker),
    "disk_full": Fault(disk_full, 1, _has_calm_broker),
    "partitions_added": Fault(partitions_added, 0.7, _has_calm_broker),
    "dead_letters_too_large": Fault(dead_letters_too_large, 1, _has_worker_and_broker),
    "dead_letter_topic_deleted": Fault(dead_letter_topic_deleted, 1, _has_worker_and_broker),
    "dead_letter_topic_missing": Fault(dead_letter_topic_missing, 1, _has_worker_and_broker),
}
