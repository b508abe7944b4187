"""Short chaos runs on a real Apache Kafka: what is promised holds under faults, and a broken promise is caught.

The long runs are `make chaos`; docs/chaos.md has their results.
"""

from collections import Counter
from dataclasses import replace

import pytest

from tests.chaos.mutants import laws_that_caught, options_for
from tests.chaos.mutations import MUTATIONS
from tests.chaos.plan import Options
from tests.chaos.run import RunResult, run_chaos
from tests.support.kafka_jars import KafkaUnavailableError

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

_IN_CI = ("publish_without_order",)
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


def test_laws_hold_under_one_fault_of_each_kind_that_is_quick():
    """Kill workers at three points, freeze one, stop one, kill the broker, jump a clock, slow the model: no law is broken."""
    result = run(Options(8000, len(_FAULTS), seed=1, minutes=0.6, workers=2, kinds=_FAULTS))
    assert result.is_good, (result.verdict, result.trouble)
    assert result.faults.total() == len(_FAULTS)
    assert result.verdict.positions >= 8000


@pytest.mark.parametrize("name", [pytest.param(each, marks=[] if each in _IN_CI else pytest.mark.chaos) for each in MUTATIONS])
def test_a_deliberate_bug_is_caught_by_the_law_that_it_breaks(name):
    """Put a bug into the workers, make the faults that bring it out: the ledger names the law that it breaks."""
    result = run(options_for(name))
    assert Counter(MUTATIONS[name].faults) <= result.faults, "the faults that bring it out were not made"
    assert laws_that_caught(result), (result.verdict, result.trouble)


@pytest.mark.chaos
def test_the_run_that_catches_a_bug_of_fencing_is_good_without_the_bug():
    """Freeze workers under exactly once, three times, as for the mutation `no_fencing` but without it: no law is broken."""
    options = replace(options_for("no_fencing"), mutation="")
    result = run(options)
    assert result.faults == {"worker_frozen": options.faults}
    assert result.is_good, (result.verdict, result.trouble)


def run(options: Options) -> RunResult:
    try:
        return run_chaos(options, say=print)
    except KafkaUnavailableError as error:
        pytest.skip(str(error))
