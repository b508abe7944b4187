"""What a model is asked before it is scored: every split, noised copies of the corpora's parts, whole chats.

Saved logits are [texts, 28] float32 in GoEmotions' order: <split>.npz beside multi-hot labels, <corpus part>.noised.npz by
kind of noise, chats-<file>.npz beside who wrote each message of which chat.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.data.chats import read_whole_chats
from training.data.rows import multi_hot, read_rows
from training.finetune.noise import NOISE_KINDS, noised

Ask = Callable[[Sequence[str], str], npt.NDArray[np.float32]]
NOISED_SUFFIX, CHATS_PREFIX = ".noised", "chats-"


def save_predictions(ask: Ask, *, prepared: Path, chats: Sequence[Path], output: Path) -> dict[str, int]:
    """Ask about every text that is scored and save the logits; return how many texts each file answers.

    `ask(texts, name)` returns the texts' logits and may show its progress under that name.
    """
    counts = {}
    for path in sorted(prepared.glob("*.jsonl")):
        if path.stem == "train":
            continue
        rows = read_rows(path)
        texts = [row.text for row in rows]
        logits = ask(texts, path.stem)
        np.savez(output / f"{path.stem}.npz", logits=logits, labels=multi_hot(rows))
        counts[path.stem] = len(rows)
        if path.stem.endswith(("_tuning", "_reporting")):
            name = f"{path.stem}{NOISED_SUFFIX}"
            answers = _noised_logits(ask, texts, clean=logits, name=name)
            np.savez(output / f"{name}.npz", **answers)  # type: ignore[arg-type]
            counts[name] = len(texts) * len(NOISE_KINDS)
    for path in chats:
        counts[f"{CHATS_PREFIX}{path.stem}"] = _save_chats(ask, path, output=output)
    return counts


def _noised_logits(
    ask: Ask, texts: Sequence[str], *, clean: npt.NDArray[np.float32], name: str
) -> dict[str, npt.NDArray[np.generic]]:
    """Return logits of the texts with each kind of noise, and under `<kind>_changed` which texts it changed at all."""
    answers: dict[str, npt.NDArray[np.generic]] = {}
    for kind in NOISE_KINDS:
        copies = [noised(text, kind, seed=number) for number, text in enumerate(texts)]
        changed = np.array([copy != text for copy, text in zip(copies, texts, strict=True)], bool)
        logits = clean.copy()
        if changed.any():
            logits[changed] = ask([copies[row] for row in np.flatnonzero(changed)], f"{name} {kind}")
        answers[kind], answers[f"{kind}_changed"] = logits, changed
    return answers


def _save_chats(ask: Ask, path: Path, *, output: Path) -> int:
    chats = read_whole_chats(path)
    name = f"{CHATS_PREFIX}{path.stem}"
    texts = [text for chat in chats for text in chat.texts]
    np.savez(
        output / f"{name}.npz",
        logits=ask(texts, name),
        chat=np.repeat(np.arange(len(chats)), [len(chat.texts) for chat in chats]),
        author=np.array([author for chat in chats for author in chat.authors]),
        chat_id=np.array([chat.chat_id for chat in chats]),
        escalates=np.array([chat.escalates for chat in chats], bool),
    )
    return len(texts)
