from dataclasses import replace

import pytest

from worker.core.failures import ModelBundleError
from worker.core.records import TopicNames
from worker.doctor import Finding, cluster_findings, health_findings, model_findings, screen, screen_as_json, settings_findings
from worker.kafka.group_lag import GroupLag
from worker.kafka.survey import ClusterSurvey, GroupSurvey, TopicSurvey

NAMES = TopicNames("in", "emotions", "escalations", "dlq")
TOPIC = TopicSurvey(partitions=6, copies=3, leaderless=0, max_message_bytes=1_048_588)
GROUP = GroupSurvey("Stable", members=2, lag=GroupLag({0: 0, 1: 20}, has_committed=True))
WELL = ClusterSurvey(
    brokers=3,
    topics=dict.fromkeys(NAMES.all, TOPIC) | {"dlq": replace(TOPIC, max_message_bytes=2_097_152)},
    group=GROUP,
)


def with_topic(name, **changes):
    return replace(WELL, topics={**WELL.topics, name: replace(WELL.topics[name], **changes)})


def told(findings):
    return [(each.what, each.verdict) for each in findings if each.verdict != "ok"]


def test_a_cluster_that_has_everything_is_found_well():
    findings = cluster_findings(WELL, NAMES)
    assert told(findings) == []
    assert findings[-1] == Finding("lag", "ok", "20 records, most in partition 1: 20")


@pytest.mark.parametrize(
    ("survey", "expected", "advice"),
    [
        (replace(WELL, topics={n: t for n, t in WELL.topics.items() if n != "dlq"}), ("topic dlq", "wrong"), "topics create"),
        (with_topic("emotions", leaderless=2), ("topic emotions", "wrong"), "start the brokers"),
        (with_topic("in", copies=1), ("topic in", "note"), "replication factor"),
        (with_topic("dlq", max_message_bytes=1_048_588), ("topic dlq", "wrong"), "max.message.bytes=2097152"),
        (with_topic("emotions", partitions=4), ("topic emotions", "note"), "give it as many"),
        (replace(WELL, group=replace(GROUP, members=0, state="Empty")), ("group", "note"), "rugo-worker run"),
        (replace(WELL, group=replace(GROUP, members=3)), ("group", "note"), "have nothing to do"),
        (
            replace(WELL, group=replace(GROUP, lag=GroupLag({0: 20_000, 1: 0}, has_committed=True))),
            ("lag", "note"),
            "more workers",
        ),
        (replace(WELL, group=None, refused={"group": "GroupAuthorizationFailedError"}), ("group", "note"), "right to describe"),
    ],
)
def test_what_is_amiss_is_told_with_what_to_do(survey, expected, advice):
    findings = [each for each in cluster_findings(survey, NAMES) if each.verdict != "ok"]
    assert told(findings) == [expected]
    assert advice in findings[0].advice


def test_a_single_broker_is_not_told_to_keep_several_copies():
    alone = replace(WELL, brokers=1, topics={name: replace(topic, copies=1) for name, topic in WELL.topics.items()})
    assert told(cluster_findings(alone, NAMES)) == []


def test_a_model_that_can_not_be_loaded_is_wrong_and_says_why():
    def load():
        raise ModelBundleError("model.onnx was altered")

    assert model_findings(load) == [Finding("model", "wrong", "can't be used", "model.onnx was altered")]


def test_a_misspelt_variable_is_a_note():
    assert settings_findings({"RUGO_GRUOP_ID": "RUGO_GROUP_ID", "RUGO_X": None}) == [
        Finding("settings", "note", "RUGO_GRUOP_ID is no setting and is ignored", "did you mean RUGO_GROUP_ID?"),
        Finding(
            "settings", "note", "RUGO_X is no setting and is ignored", "unset it; `rugo-worker settings` lists those that are"
        ),
    ]


def test_a_port_where_nobody_listens_is_a_note(unused_tcp_port):
    (finding,) = health_findings("127.0.0.1", unused_tcp_port)
    assert (finding.what, finding.verdict) == ("worker here", "note")


def test_the_screen_ends_with_how_many_are_wrong():
    wrong = Finding("broker", "wrong", "can't be asked", "start it")
    assert screen([wrong], {}).endswith("1 wrong")
    assert screen([Finding("broker", "ok", "1 broker")], {"RUGO_GROUP_ID": "g"}).endswith("nothing is wrong")
    assert '"ok": false' in screen_as_json([wrong], {})
