"""Short chaos runs on a real Apache Kafka: what is promised holds under faults, and a broken promise is caught.

The long runs are `make chaos`; docs/chaos.md has their results.
"""

import pytest

from tests.chaos.mutations import MUTATIONS
from tests.chaos.run import Options, RunResult, run_chaos
from tests.support.kafka_server import KafkaUnavailableError

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

_IN_CI = ("random_event_id",)
_FAULTS = (
    "die_inferring",
    "die_publishing",
    "die_before_commit",
    "worker_frozen",
    "worker_stopped",
    "broker_killed",
    "producers_clock_jumped",
    "model_slow",
)


def run(options: Options) -> RunResult:
    try:
        return run_chaos(options, say=print)
    except KafkaUnavailableError as error:
        pytest.skip(str(error))


def test_laws_hold_under_one_fault_of_each_kind_that_is_quick():
    """Kill workers at three points, freeze one, stop one, kill the broker, jump a clock, slow the model: no law is broken."""
    result = run(Options(8000, len(_FAULTS), seed=1, minutes=0.6, workers=2, kinds=_FAULTS))
    assert result.is_good, (result.verdict, result.trouble)
    assert result.faults.total() == len(_FAULTS)
    assert result.verdict.positions >= 8000


@pytest.mark.parametrize(
    "mutation", [pytest.param(name, marks=[] if name in _IN_CI else pytest.mark.chaos) for name in MUTATIONS]
)
def test_a_deliberate_bug_is_caught_by_the_law_that_it_breaks(mutation):
    """Put a bug into the workers, make the faults that bring it out: the ledger names the law that it breaks."""
    bug = MUTATIONS[mutation]
    faults = bug.faults or ("model_slow",)
    options = Options(
        4000, len(faults), 5, len(faults) * 0.2, bug.delivery, workers=2, mutation=mutation, kinds=tuple(dict.fromkeys(faults))
    )
    result = run(options)
    assert set(result.verdict.broken) & set(bug.breaks), (result.verdict, result.trouble)
