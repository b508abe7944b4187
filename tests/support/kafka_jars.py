"""The jars of a real Apache Kafka, fetched by Maven once and then kept."""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.support.processes import end_of

_POM = Path(__file__).parent / "kafka" / "pom.xml"
KAFKA_VERSION = re.findall(r"<kafka\.version>(.+)</kafka\.version>", _POM.read_text(encoding="utf-8"))[0]
OLDEST_JAVA = 17
_FETCH_DEADLINE_S = 600.0


class KafkaUnavailableError(Exception):
    """This way to have a Kafka is not open on this machine; the text says what is missing."""


def usable_jars(which: Callable[[str], str | None] = shutil.which) -> Path:
    """Return the folder of Kafka's jars where this machine can run them, else raise `KafkaUnavailableError`."""
    missing = [name for name in ("java", "mvn") if which(name) is None]
    if missing:
        raise KafkaUnavailableError(f"{' and '.join(missing)} not found (install Java {OLDEST_JAVA}+ and Maven)")
    version = java_version()
    if version < OLDEST_JAVA:
        raise KafkaUnavailableError(f"Java {version} is too old (install Java {OLDEST_JAVA}+)")
    return kafka_jars()


def kafka_jars(pom: Path = _POM, *, cache: Path | None = None) -> Path:
    """Return the folder of Kafka's jars, fetched by Maven if this pom's are not there yet; safe in parallel runs."""
    root = cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rugo-worker"
    folder = root / f"kafka-{KAFKA_VERSION}"
    marker, wanted = folder / ".complete", hashlib.sha256(pom.read_bytes()).hexdigest()
    root.mkdir(parents=True, exist_ok=True)
    with (root / f"kafka-{KAFKA_VERSION}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if marker.exists() and marker.read_text(encoding="utf-8") == wanted:
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        command = ["mvn", "-B", "-q", "-f", str(pom), "dependency:copy-dependencies", "-DincludeScope=runtime"]
        try:
            subprocess.run(
                [*command, f"-DoutputDirectory={folder}"], capture_output=True, text=True, timeout=_FETCH_DEADLINE_S, check=True
            )
        except subprocess.SubprocessError as error:
            shutil.rmtree(folder, ignore_errors=True)
            output = end_of(str(getattr(error, "stdout", None) or error))
            raise KafkaUnavailableError(f"Maven cannot fetch Kafka's jars (is its repository reachable?): {output}") from error
        marker.write_text(wanted, encoding="utf-8")
    return folder


def java_version() -> int:
    """Return the major version of the Java on the path; 0 when it does not say."""
    run = subprocess.run(["java", "-version"], capture_output=True, text=True, timeout=60, check=False)
    found = re.search(r'version "(\d+)', run.stderr + run.stdout)
    return int(found[1]) if found else 0
