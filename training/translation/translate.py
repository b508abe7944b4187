"""The stage `translate`: the downloaded English rows in Russian, without those whose translation can't be trained on."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from re import Pattern
from typing import Any

from tqdm import tqdm

from training.config import ConfigError, Places, TranslationConfig
from training.data.clean import clean_text
from training.data.download import SPLITS
from training.data.prepare import RUSSIAN
from training.data.rows import Row, read_rows, write_rows
from training.translation.cache import Translation, TranslationCache
from training.translation.kept_parts import EMOJI, PLACEHOLDER_OR_EMOJI, cut, has_letters, mask, restore
from training.translation.marian import Answer, MarianTranslator, find_model
from training.translation.quality import EMPTY, PLACEHOLDERS_LOST, fault_of
from worker.inference.model_bundle import file_digest

Translator = Callable[[Sequence[str]], list[Answer]]

CARD_NAME, FAILED_NAME = "translation_card.json", "failed.jsonl"


def translate(config: TranslationConfig, places: Places, *, downloaded: Path, output: Path) -> dict[str, Any]:
    """Write each split's good translations, the others' reasons to failed.jsonl, and a card that counts both.

    Goes on from the last chunk that an earlier run finished.
    """
    splits = {split: read_rows(downloaded / f"{split}.jsonl") for split in SPLITS}
    files = find_model(places.resolve(config.model))
    cache = TranslationCache(Path(places.resolve(config.cache)), revision=files.revision, config=config)
    texts = list(dict.fromkeys(clean_text(row.text) for rows in splits.values() for row in rows))
    pending = [text for text in texts if text not in cache]
    if pending:
        _fill(cache, pending, MarianTranslator(files, config), chunk_size=config.chunk_size)

    card: dict[str, Any] = {
        "model": config.model,
        "revision": files.revision,
        "settings": config.model_dump(exclude={"model", "cache"}),
        "texts": {
            "distinct": len(texts),
            "translated_earlier": len(texts) - len(pending),
            "in_pieces": sum(cache[text].in_pieces for text in texts),
        },
        "splits": {},
    }
    with (output / FAILED_NAME).open("w", encoding="utf-8") as failed:
        for split, rows in splits.items():
            good, bad = _sift(rows, cache, config)
            failed.writelines(json.dumps({"split": split, **each}, ensure_ascii=False) + "\n" for each in bad)
            card["splits"][split] = _write_split(output / f"{split}.jsonl", good, bad)
    (output / CARD_NAME).write_text(json.dumps(card, ensure_ascii=False, indent=1) + "\n", "utf-8")
    return card


def _write_split(path: Path, good: Sequence[Row], bad: Sequence[dict[str, str]]) -> dict[str, Any]:
    """Write a split's rows and return what the card says of it."""
    reasons = dict(Counter(each["reason"] for each in bad))
    if not good:
        raise ConfigError(f"no {path.stem} text was translated well enough ({reasons}); see translation.model and its limits")
    write_rows(path, good)
    return {"rows": len(good) + len(bad), "translated": len(good), "failed": reasons, "sha256": file_digest(path)}


def _fill(cache: TranslationCache, texts: Sequence[str], translator: Translator, *, chunk_size: int) -> None:
    with tqdm(total=len(texts), desc="translate", unit="text") as progress:
        for start in range(0, len(texts), chunk_size):
            chunk = texts[start : start + chunk_size]
            cache.add(dict(zip(chunk, translate_texts(chunk, translator), strict=True)))
            progress.update(len(chunk))


def translate_texts(texts: Sequence[str], translator: Translator) -> list[Translation]:
    """Translate texts around their emoji, with stand-ins for placeholders; where those did not come back, in pieces."""
    translations = _translate_between(texts, translator, kept=EMOJI)
    broken = [index for index, each in enumerate(translations) if each.problem == PLACEHOLDERS_LOST]
    in_pieces = _translate_between([texts[index] for index in broken], translator, kept=PLACEHOLDER_OR_EMOJI)
    for index, translation in zip(broken, in_pieces, strict=True):
        translations[index] = replace(translation, in_pieces=True)
    return translations


def _translate_between(texts: Sequence[str], translator: Translator, *, kept: Pattern[str]) -> list[Translation]:
    """Translate what stands between the parts that are kept, each piece on its own."""
    cut_texts = [cut(text, kept) for text in texts]
    pieces = list(dict.fromkeys(piece.strip() for pieces in cut_texts for piece in pieces[::2] if has_letters(piece)))
    masked = [mask(piece) for piece in pieces]
    answers = translator([each.text for each in masked]) if masked else []
    by_piece: dict[str, Translation] = {}
    for piece, each, answer in zip(pieces, masked, answers, strict=True):
        restored = restore(answer.text, each)
        lost = PLACEHOLDERS_LOST if restored is None else None
        by_piece[piece] = Translation(restored or "", answer.problem or lost or (None if restored else EMPTY))
    return [_join(list(_translated(pieces, by_piece))) for pieces in cut_texts]


def _translated(pieces: Sequence[str], by_piece: dict[str, Translation]) -> Iterator[Translation]:
    """Yield the pieces' translations inside their own spaces, and as they are those with nothing to translate."""
    for piece in pieces:
        words = piece.strip()
        if words in by_piece:
            before, after = piece[: len(piece) - len(piece.lstrip())], piece[len(piece.rstrip()) :]
            found = by_piece[words]
            yield replace(found, text=f"{before}{found.text}{after}")
        else:
            yield Translation(piece)


def _join(translations: Sequence[Translation]) -> Translation:
    problem = next((each.problem for each in translations if each.problem), None)
    return Translation("".join(each.text for each in translations), problem)


def _sift(rows: Sequence[Row], cache: TranslationCache, config: TranslationConfig) -> tuple[list[Row], list[dict[str, str]]]:
    good, bad = [], []
    for row in rows:
        source = clean_text(row.text)
        translation = cache[source]
        fault = translation.problem or fault_of(source, translation.text, config)
        if fault is None:
            good.append(Row(translation.text, row.labels, RUSSIAN, "ru", row.comment_id))
        else:
            bad.append({"comment_id": row.comment_id, "reason": fault, "text": source, "translation": translation.text})
    return good, bad
