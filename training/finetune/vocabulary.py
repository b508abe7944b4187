"""A student's own small vocabulary: its donor's tokenizer, cut to the pieces that the training texts need.

After Abdaoui et al. 2020, "Load What You Need: Smaller Versions of Multilingual BERT".
"""

import json
import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer
from tqdm import tqdm

from training.config import ConfigError

Json = dict[str, Any]

PAD_TOKENS = ("<pad>", "[PAD]")
_CYRILLIC = "".join(map(chr, range(0x400, 0x460))) + "Ґґ"
ALPHABET = string.ascii_letters + string.digits + string.punctuation + _CYRILLIC
_WORD_START = "▁"  # Metaspace's sign for a space
_CHUNK_TEXTS = 2000


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A tokenizer cut to fewer pieces, and the donor's id of each: piece 0 of the tokenizer is piece `kept[0]` of the donor."""

    tokenizer: Tokenizer
    kept: list[int]


def own_vocabulary(donor: Tokenizer, texts: Sequence[str], *, size: int) -> Vocabulary:
    """Cut the donor's tokenizer to at most `size` pieces, normalisation and truncation as they are.

    A text whose pieces were all kept is cut into the same ones as before; another, into smaller pieces.
    """
    written = json.loads(donor.to_str())
    pieces_of(written)  # says at once where this kind of tokenizer can't be cut
    counts: Counter[int] = Counter()
    letters = set(_normalised(donor, ALPHABET)) | {_WORD_START}
    for start in tqdm(range(0, len(texts), _CHUNK_TEXTS), desc="vocabulary"):
        chunk = list(texts[start : start + _CHUNK_TEXTS])
        for text, encoding in zip(chunk, donor.encode_batch(chunk), strict=True):
            counts.update(encoding.ids)
            letters.update(_normalised(donor, text))
    kept = choose_pieces(written, counts, letters=letters, size=size)
    return Vocabulary(Tokenizer.from_str(json.dumps(cut_tokenizer(written, kept), ensure_ascii=False)), kept)


def pieces_of(written: Json) -> dict[int, str]:
    """Return the pieces by id, of a tokenizer's JSON; `ConfigError` where its model is neither Unigram nor WordPiece."""
    model = written["model"]
    if model["type"] == "Unigram":
        return {number: piece for number, (piece, _) in enumerate(model["vocab"])}
    if model["type"] == "WordPiece":
        return {number: piece for piece, number in model["vocab"].items()}
    raise ConfigError(
        f"model.vocabulary_size can't cut a {model['type']} tokenizer, only Unigram and WordPiece; take it out, or let "
        "model.embeddings_from name another model"
    )


def choose_pieces(written: Json, counts: Mapping[int, int], *, letters: Iterable[str], size: int) -> list[int]:
    """Return the ids to keep, ascending: special tokens, pieces of one of these letters, then those counted most often.

    They are fewer than `size` where fewer were counted.
    """
    needed = _special_ids(written)
    single, prefix = set(letters), written["model"].get("continuing_subword_prefix", "")
    needed |= {number for number, piece in pieces_of(written).items() if piece.removeprefix(prefix) in single}
    if len(needed) > size:
        raise ConfigError(f"model.vocabulary_size is {size}; special tokens and letters alone are {len(needed)}, so raise it")
    frequent = sorted((number for number in counts if number not in needed), key=lambda number: (-counts[number], number))
    return sorted([*needed, *frequent[: size - len(needed)]])


def cut_tokenizer(written: Json, kept: Sequence[int]) -> Json:
    """Return the JSON with these ids' pieces alone, numbered anew in this order wherever an id stands."""
    numbers = {old: new for new, old in enumerate(kept)}
    model = written["model"]
    if model["type"] == "Unigram":
        vocab: Any = [entry for number, entry in enumerate(model["vocab"]) if number in numbers]
        unknown = {} if model["unk_id"] is None else {"unk_id": numbers[model["unk_id"]]}
    else:
        vocab = {piece: numbers[number] for piece, number in model["vocab"].items() if number in numbers}
        unknown = {}
    padding = written["padding"]
    return {
        **written,
        "model": {**model, **unknown, "vocab": vocab},
        "added_tokens": [{**token, "id": numbers[token["id"]]} for token in written["added_tokens"]],
        "post_processor": written["post_processor"] and _renumbered(written["post_processor"], numbers),
        "padding": padding and {**padding, "pad_id": numbers[padding["pad_id"]]},
    }


def _special_ids(written: Json) -> set[int]:
    """Return the ids of added tokens, padding, the unknown piece, and single bytes where those spell unknown characters."""
    model = written["model"]
    ids = {token["id"] for token in written["added_tokens"]}
    ids |= {number for number, piece in pieces_of(written).items() if piece in PAD_TOKENS}
    if model["type"] == "WordPiece":
        return ids | {model["vocab"][model["unk_token"]]}
    if model.get("byte_fallback"):
        ids |= {number for number, piece in pieces_of(written).items() if piece.startswith("<0x")}
    return ids if model["unk_id"] is None else ids | {model["unk_id"]}


def _renumbered(processor: Json, numbers: Mapping[int, int]) -> Json:
    """Return a post-processor with the new ids of the special tokens that it puts around a text."""
    if processor["type"] == "Sequence":
        return {**processor, "processors": [_renumbered(each, numbers) for each in processor["processors"]]}
    if processor["type"] == "TemplateProcessing":
        tokens = {
            name: {**token, "ids": [numbers[number] for number in token["ids"]]}
            for name, token in processor["special_tokens"].items()
        }
        return {**processor, "special_tokens": tokens}
    if processor["type"] in ("BertProcessing", "RobertaProcessing"):
        ends = {name: [processor[name][0], numbers[processor[name][1]]] for name in ("sep", "cls")}
        return {**processor, **ends}
    return processor


def _normalised(tokenizer: Tokenizer, text: str) -> str:
    normalised: str = tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer else text
    return normalised
