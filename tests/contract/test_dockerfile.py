"""The image's recipe: what it copies exists, what it installs works without torch, what it runs is not root."""

import fnmatch
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

from tests.support.worker_variables import settings_from

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction of a Dockerfile, its continued lines joined."""

    name: str
    value: str


def read_stages() -> list[list[Instruction]]:
    lines = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    stages: list[list[Instruction]] = []
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if not line.strip():
            continue
        name, value = line.split(maxsplit=1)
        if name == "FROM":
            stages.append([])
        stages[-1].append(Instruction(name, value))
    return stages


def values(stage: list[Instruction], name: str) -> list[str]:
    return [instruction.value for instruction in stage if instruction.name == name]


def environment(stage: list[Instruction]) -> dict[str, str]:
    return dict(word.split("=", 1) for value in values(stage, "ENV") for word in shlex.split(value))


def copies_from_here(stage: list[Instruction]) -> list[tuple[list[str], str]]:
    """Return the sources and the target of every COPY from the repository."""
    copies = [shlex.split(value) for value in values(stage, "COPY") if "--from=" not in value]
    return [(words[:-1], words[-1]) for words in copies]


def is_ignored(path: str) -> bool:
    """Say whether .dockerignore keeps a path from the builder: the last pattern that matches it decides."""
    ignored = False
    for line in (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        pattern = line.removeprefix("!").removeprefix("**/")
        parts = PurePosixPath(path).parts
        candidates = parts if "**/" in line else ["/".join(parts[: n + 1]) for n in range(len(parts))]
        if any(fnmatch.fnmatch(each, pattern) for each in candidates):
            ignored = not line.startswith("!")
    return ignored


BUILDER, RUNTIME = read_stages()
COPIED = [source for stage in (BUILDER, RUNTIME) for sources, _ in copies_from_here(stage) for source in sources]


@pytest.mark.parametrize("source", COPIED)
def test_what_is_copied_exists_and_reaches_the_builder(source: str) -> None:
    assert (REPOSITORY / source).exists()
    assert not is_ignored(source)


@pytest.mark.parametrize("path", [".git", ".venv", "tests/conftest.py", "worker/core/__pycache__", "training", ".env"])
def test_the_rest_stays_out_of_the_builder(path: str) -> None:
    assert is_ignored(path)


def test_the_stages_share_a_python_of_a_named_version() -> None:
    images = [values(stage, "FROM")[0].split(" AS ")[0] for stage in (BUILDER, RUNTIME)]
    assert len(set(images)) == 1
    assert re.fullmatch(r"python:3\.\d+-slim", images[0])


def test_it_does_not_run_as_root() -> None:
    user = values(RUNTIME, "USER")[-1]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    uid, gid = user.split(":")
    assert f"--uid {uid} --gid {gid}" in " ".join(values(RUNTIME, "RUN"))
    after_user = RUNTIME[[each.name for each in RUNTIME].index("USER") :]
    assert not values(after_user, "RUN")


def test_it_starts_stops_and_tells_its_health_as_documented() -> None:
    assert values(RUNTIME, "ENTRYPOINT") == ['["rugo-worker"]']
    assert values(RUNTIME, "CMD") == ['["run"]']
    assert values(RUNTIME, "STOPSIGNAL") == ["SIGTERM"]
    (health,) = values(RUNTIME, "HEALTHCHECK")
    assert "/live" in health
    assert "curl" not in health


def test_its_settings_are_known_and_its_weights_are_where_they_say() -> None:
    settings, said = settings_from(environment(RUNTIME))
    assert said == []
    assert settings.http_host == "0.0.0.0"  # noqa: S104
    assert str(settings.http_port) in values(RUNTIME, "EXPOSE")
    folder = PurePosixPath(values(RUNTIME, "WORKDIR")[0])
    targets = [folder / target for _, target in copies_from_here(RUNTIME)]
    assert any(PurePosixPath(settings.model).is_relative_to(target) for target in targets)


def test_the_default_bundle_is_the_one_it_names() -> None:
    from worker.inference.model_bundle import DEFAULT_BUNDLE

    assert PurePosixPath(environment(RUNTIME)["RUGO_MODEL"]).name == DEFAULT_BUNDLE.name


def python_of_the_image() -> str:
    """Return the image's Python if this machine has it, else the one that runs the tests."""
    name = re.match(r"python:(3\.\d+)", values(BUILDER, "FROM")[0])
    found = shutil.which(f"python{name[1]}") if name else None
    if found and subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode == 0:
        return found
    return sys.executable


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Replay the builder's COPY and RUN in an empty folder, and yield the virtual environment that comes of it."""
    folder = tmp_path_factory.mktemp("image")
    build, venv = folder / "build", folder / "venv"
    build.mkdir()
    skip = shutil.ignore_patterns("__pycache__")
    for instruction in BUILDER:
        if instruction.name == "COPY":
            *sources, target = shlex.split(instruction.value)
            for source in sources:
                here = REPOSITORY / source
                if here.is_dir():
                    shutil.copytree(here, build / target, ignore=skip)
                else:
                    shutil.copy(here, build / target / source if target.endswith("/") else build / target)
        if instruction.name == "RUN":
            command = re.sub(r"--mount=\S+\s*", "", instruction.value).replace("/opt/venv", str(venv))
            command = re.sub(r"^python\b", shlex.quote(python_of_the_image()), command)
            run = subprocess.run(
                ["/bin/sh", "-c", command], cwd=build, capture_output=True, text=True, timeout=280, check=False
            )
            assert run.returncode == 0, f"{command}\n{(run.stdout + run.stderr)[-3000:]}"
    shutil.rmtree(build)
    yield venv
    shutil.rmtree(folder)


def run_installed(installed: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("RUGO_", "PYTHON"))}
    return subprocess.run(
        [str(installed / "bin" / command[0]), *command[1:]],
        cwd=installed,
        env=kept | {"RUGO_MODEL": str(installed / "no-weights-here")} | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.timeout(300)
def test_what_is_installed_has_no_torch_and_no_training(installed: Path) -> None:
    code = "import importlib.util as u; print([n for n in ('torch', 'transformers', 'training', 'pytest') if u.find_spec(n)])"
    assert run_installed(installed, "python", "-c", code).stdout.strip() == "[]"
    assert not (installed / "bin" / "rugo-train").exists()


@pytest.mark.timeout(300)
def test_the_entry_point_works_as_installed(installed: Path) -> None:
    outcome = run_installed(installed, "rugo-worker", "--help")
    assert outcome.returncode == 0, outcome.stderr
    for command in ("run", "topics", "publish-demo"):
        assert command in outcome.stdout


@pytest.mark.timeout(300)
def test_the_worker_as_installed_refuses_to_run_without_weights(installed: Path) -> None:
    """Everything that the worker imports is there: it comes as far as its weights, and names them."""
    outcome = run_installed(installed, "rugo-worker", "run")
    assert outcome.returncode == 1
    assert "no-weights-here" in outcome.stderr
    assert "Traceback" not in outcome.stderr


@pytest.mark.timeout(300)
def test_the_board_as_installed_comes_as_far_as_its_port(installed: Path) -> None:
    """What the board imports is there: where it can't listen it says so, and what to set."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        outcome = run_installed(installed, "rugo-worker", "board", RUGO_BOARD_PORT=str(taken.getsockname()[1]))
    assert outcome.returncode == 1
    assert "set RUGO_BOARD_HOST and RUGO_BOARD_PORT" in outcome.stderr
    assert "Traceback" not in outcome.stderr


@pytest.mark.timeout(300)
def test_the_files_that_the_worker_reads_are_installed(installed: Path) -> None:
    """The policy, the demo's chats and the board's page travel inside the package."""
    code = "import pathlib, worker; print(*sorted(p.name for p in pathlib.Path(worker.__file__).parent.rglob('*.*l')))"
    listed = run_installed(installed, "python", "-c", code).stdout.split()
    assert {"demo_chats.jsonl", "escalation_policy.toml", "page.html"} <= set(listed)
