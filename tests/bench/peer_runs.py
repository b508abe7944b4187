"""Runs what a user would write instead, each in a virtual environment of its own, on the same weights, texts, broker and cores.

The environments are made under .cache/bench. torch and transformers are those of the project's own environment, by a path file:
four copies of torch would prove nothing.
"""

import json
import site
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import free_ports
from tests.support.stage import Stage
from tests.support.worker_process import ROOT, WorkerProcess
from worker.inference.model_bundle import DEFAULT_BUNDLE

_CACHE = ROOT / ".cache" / "bench"
_SCRIPTS = Path(__file__).parent / "peers"


@dataclass(frozen=True, slots=True)
class Peer:
    """A consumer that is measured beside the worker. `share` is its part of the texts: slow ones get fewer."""

    name: str
    script: str
    requirements: tuple[str, ...]
    share: float


PEERS = (
    Peer("transformers.pipeline, a message at a time", "one_at_a_time.py", ("aiokafka==0.14.0",), 0.1),
    Peer("transformers.pipeline, batches of 64", "batched.py", ("aiokafka==0.14.0",), 0.2),
    Peer("Quix Streams, torch, batches of 64", "quix.py", ("quixstreams==3.28.1",), 0.2),
    Peer("LitServe behind a consumer", "litserve_consumer.py", ("litserve==0.2.19", "aiokafka==0.14.0", "httpx"), 0.2),
)


def start_peer(peer: Peer, stage: Stage, *, threads: int) -> WorkerProcess:
    """Start a peer on a stage's topics; its environment and the model's folder are made once."""
    environment = {
        "SERVERS": stage.bootstrap_servers,
        "IN": stage.names.input,
        "OUT": stage.names.emotions,
        "GROUP": stage.group_id,
        "MODEL": str(_model_folder()),
        "THREADS": str(threads),
        "PORT": str(free_ports(1)[0]),
        "TOKENIZERS_PARALLELISM": "true",
        "HF_HUB_OFFLINE": "1",
        "Quix__State__Dir": str(_CACHE / "state"),
    }
    process = WorkerProcess((str(_python_of(peer)), str(_SCRIPTS / peer.script)), environment)
    stage.workers.append(process)
    return process


def _python_of(peer: Peer) -> Path:
    folder = _CACHE / Path(peer.script).stem
    python = folder / "bin" / "python"
    made = folder / "made.json"
    wanted = json.dumps([peer.requirements, sys.version])
    if made.exists() and made.read_text("utf-8") == wanted:
        return python
    venv.create(folder, with_pip=True, clear=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    (packages / "project.pth").write_text("\n".join(site.getsitepackages()) + "\n", "utf-8")
    subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *peer.requirements], check=True
    )
    made.write_text(wanted, "utf-8")
    return python


def _model_folder() -> Path:
    """Return the shipped weights laid out as transformers expects them."""
    folder = _CACHE / "model"
    folder.mkdir(parents=True, exist_ok=True)
    manifest = json.loads((DEFAULT_BUNDLE / "manifest.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(manifest["architecture"]), "utf-8")
    for name in ("model.safetensors", "tokenizer.json"):
        link = folder / name
        link.unlink(missing_ok=True)
        link.symlink_to(DEFAULT_BUNDLE / name)
    return folder
