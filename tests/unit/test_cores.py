import os

import pytest

from worker.inference.cores import available_cores

V2_FILE, V1_QUOTA, V1_PERIOD = "cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of 8 cores whose control groups the test writes: `machine(cgroup=..., files={folder: {name: text}})`."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)

    def build(*, cgroup, files):
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(cgroup)
        for folder, contents in files.items():
            place = tmp_path / "sys/fs/cgroup" / folder
            place.mkdir(parents=True, exist_ok=True)
            for name, text in contents.items():
                (place / name).write_text(text)
        return tmp_path

    return build


@pytest.mark.parametrize(
    ("limit", "cores"), [("200000 100000", 2), ("150000 100000", 1), ("50000 100000", 1), ("max 100000", 8)]
)
def test_a_container_s_limit_counts_in_whole_cores(machine, limit, cores):
    assert available_cores(machine(cgroup="0::/\n", files={"": {V2_FILE: f"{limit}\n"}})) == cores


def test_the_tightest_limit_of_the_groups_around_counts(machine):
    files = {"a": {V2_FILE: "300000 100000"}, "a/b": {V2_FILE: "max 100000"}, "a/b/c": {V2_FILE: "600000 100000"}}
    assert available_cores(machine(cgroup="0::/a/b/c\n", files=files)) == 3


@pytest.mark.parametrize("folder", ["cpu,cpuacct/docker/1", "cpu,cpuacct", "cpu"])
def test_control_groups_of_version_1_are_read_wherever_they_are_mounted(machine, folder):
    files = {folder: {V1_QUOTA: "400000\n", V1_PERIOD: "100000\n"}}
    assert available_cores(machine(cgroup="5:memory:/docker/1\n4:cpu,cpuacct:/docker/1\n", files=files)) == 4


def test_no_quota_is_no_limit(machine):
    files = {"cpu": {V1_QUOTA: "-1\n", V1_PERIOD: "100000\n"}}
    assert available_cores(machine(cgroup="4:cpu,cpuacct:/\n", files=files)) == 8


def test_affinity_counts_where_it_is_tighter(machine, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    assert available_cores(machine(cgroup="0::/\n", files={"": {V2_FILE: "700000 100000"}})) == 2


def test_without_control_groups_the_machine_s_cores_count(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    assert available_cores(tmp_path) == 3
