"""`doctor`: one screen that says what is in force, what is there, and what to do about what is not."""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Literal

from worker.core.failures import WorkerError
from worker.core.records import TopicNames
from worker.inference.executor import InferenceExecutor, TextLogits
from worker.inference.model_bundle import ModelBundle
from worker.kafka.connection import BrokerConnection
from worker.kafka.survey import ClusterSurvey, GroupSurvey, survey_cluster
from worker.kafka.topics import DEAD_LETTER_MAX_BYTES

Verdict = Literal["ok", "note", "wrong"]
_MARKS: dict[Verdict, str] = {"ok": "ok   ", "note": "note ", "wrong": "WRONG"}
_LAG_NOTE = 10_000
_SHORT_DIGEST = 19
_DEAD_LETTER_HEADERS_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `advice` says what to do; it is empty when nothing is to be done."""

    what: str
    verdict: Verdict
    found: str
    advice: str = ""


def settings_findings(unknown: dict[str, str | None]) -> list[Finding]:
    """Return a note for each RUGO_ variable that is no setting."""
    return [
        Finding(
            "settings",
            "note",
            f"{name} is no setting and is ignored",
            f"did you mean {nearest}?" if nearest else "unset it; `rugo-worker settings` lists those that are",
        )
        for name, nearest in unknown.items()
    ]


def model_findings(load: Callable[[], tuple[ModelBundle, InferenceExecutor]]) -> list[Finding]:
    """Return whether the bundle's digests hold and the model answers; `load` raises `WorkerError` where it can't be used."""
    try:
        bundle, inference = load()
        (answer,) = inference.classify_texts(["проверка"])
    except WorkerError as error:
        return [Finding("model", "wrong", "can't be used", str(error))]
    manifest = bundle.manifest
    found = f"{manifest.name} {manifest.version}, {len(manifest.labels)} labels, {bundle.digest[:_SHORT_DIGEST]}…"
    if isinstance(answer, TextLogits):
        return [Finding("model", "ok", f"{found}, verified, answers")]
    return [Finding("model", "wrong", f"{found}, fails with {answer.error}", "make or fetch the bundle anew")]


def broker_findings(
    connection: BrokerConnection, names: TopicNames, *, group_id: str, timeout_s: float = 10.0
) -> list[Finding]:
    """Return what holds of brokers, topics and group; one finding when no broker answers in time."""
    try:
        survey = asyncio.run(survey_cluster(connection, names, group_id=group_id, timeout_s=timeout_s))
    except WorkerError as error:
        return [Finding("broker", "wrong", "can't be asked", str(error))]
    return cluster_findings(survey, names)


def cluster_findings(survey: ClusterSurvey, names: TopicNames) -> list[Finding]:
    """Return what holds of the brokers, the topics and the group, and what does not."""
    findings = [Finding("broker", "ok", _count(survey.brokers, "broker"))]
    for name in names.all:
        findings += _topic_findings(name, survey, names)
    findings += _partition_findings(survey, names)
    findings += [
        Finding(what, "note", f"may not be asked: {error}", "give the principal the right to describe it")
        for what, error in survey.refused.items()
    ]
    return [*findings, *(_group_findings(survey.group) if survey.group else ())]


def _topic_findings(name: str, survey: ClusterSurvey, names: TopicNames) -> Iterator[Finding]:
    what = f"topic {name}"
    topic = survey.topics.get(name)
    if topic is None:
        yield Finding(what, "wrong", "is not there", "rugo-worker topics create")
        return
    found = f"{_count(topic.partitions, 'partition')}, {_count(topic.copies, 'copy', 'copies')}"
    if topic.leaderless:
        yield Finding(what, "wrong", f"{found}, {topic.leaderless} without a leader", "start the brokers that hold them")
    elif topic.copies < min(2, survey.brokers):
        yield Finding(what, "note", found, "one broker's disk is all that holds it: raise its replication factor")
    else:
        yield Finding(what, "ok", found)
    if name == names.dead_letter:
        yield from _dead_letter_findings(name, survey, names)


def _dead_letter_findings(name: str, survey: ClusterSurvey, names: TopicNames) -> Iterator[Finding]:
    allowed = survey.topics[name].max_message_bytes
    read = survey.topics[names.input].max_message_bytes if names.input in survey.topics else None
    if allowed is None or read is None or allowed >= min(DEAD_LETTER_MAX_BYTES, read + _DEAD_LETTER_HEADERS_BYTES):
        return
    yield Finding(
        f"topic {name}",
        "wrong",
        f"max.message.bytes {allowed}: a record as large as {names.input} takes could not be kept, and would stop the worker",
        f"kafka-configs.sh --alter --topic {name} --add-config max.message.bytes={DEAD_LETTER_MAX_BYTES}",
    )


def _partition_findings(survey: ClusterSurvey, names: TopicNames) -> Iterator[Finding]:
    read, labels = survey.topics.get(names.input), survey.topics.get(names.emotions)
    if read and labels and labels.partitions < read.partitions:
        yield Finding(
            f"topic {names.emotions}",
            "note",
            f"fewer partitions than {names.input} ({labels.partitions} and {read.partitions})",
            f"give it as many (kafka-topics.sh --alter), so that a chat's labels keep to a partition of their own: it is read "
            f"back when {names.input}'s partitions move",
        )


def _group_findings(group: GroupSurvey) -> Iterator[Finding]:
    if group.members == 0:
        yield Finding("group", "note", f"{group.state}: no worker is running", "rugo-worker run")
    elif group.members > len(group.lag.by_partition):
        yield Finding(
            "group",
            "note",
            f"{group.state}, {group.members} workers for {_count(len(group.lag.by_partition), 'partition')}",
            "those beyond the partitions have nothing to do: stop them, or add partitions",
        )
    else:
        yield Finding("group", "ok", f"{group.state}, {_count(group.members, 'worker')}")
    lag = group.lag.by_partition
    most = max(lag, key=lambda each: lag[each], default=None)
    found = f"{group.lag.total} records" + ("" if most is None else f", most in partition {most}: {lag[most]}")
    if group.lag.total > _LAG_NOTE:
        yield Finding("lag", "note", found, "more workers, up to one a partition: see docs/scaling.md")
    else:
        yield Finding("lag", "ok", found)


def health_findings(host: str, port: int, *, timeout_s: float = 3.0) -> list[Finding]:
    """Return what a worker on this machine says of itself; a note when none listens. Port 0 can't be asked."""
    if port == 0:
        return []
    address = f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{port}/ready"  # noqa: S104 - compared, not bound
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(address, timeout=timeout_s):
            return [Finding("worker here", "ok", f"{address} says ready")]
    except urllib.error.HTTPError as error:
        try:
            said = "; ".join(json.loads(error.read())["problems"])
        except (ValueError, KeyError, TypeError):
            return [Finding("worker here", "note", f"{address} is answered by something else", "set RUGO_HTTP_PORT")]
        return [Finding("worker here", "wrong", f"not ready: {said}", "docs/operations.md says what each of these means")]
    except OSError:
        return [Finding("worker here", "note", f"none answers at {address}", "no harm where the workers run elsewhere")]


def screen(findings: list[Finding], in_force: dict[str, str]) -> str:
    """Return the findings as lines for a terminal, what is in force first."""
    width = max(len(each.what) for each in findings)
    lines = [f"  {name}={value}" for name, value in in_force.items()]
    lines = ["settings that are not the defaults:" if lines else "all settings are the defaults", *lines, ""]
    for each in findings:
        lines.append(f"{_MARKS[each.verdict]} {each.what:<{width}}  {each.found}")
        if each.advice:
            lines.append(f"{'':<{width + 6}}  -> {each.advice}")
    wrong = sum(each.verdict == "wrong" for each in findings)
    return "\n".join([*lines, "", f"{wrong} wrong" if wrong else "nothing is wrong"])


def screen_as_json(findings: list[Finding], in_force: dict[str, str]) -> str:
    """Return the findings as one JSON object: `ok`, `settings` (those that are not the defaults), `findings`."""
    ok = all(each.verdict != "wrong" for each in findings)
    return json.dumps(
        {"ok": ok, "settings": in_force, "findings": [asdict(each) for each in findings]}, ensure_ascii=False, indent=2
    )


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
