import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.config import ConfigError, TranslationConfig
from training.translation.cache import Translation, TranslationCache
from training.translation.kept_parts import EMOJI, PLACEHOLDER_OR_EMOJI, cut, has_letters, mask, restore
from training.translation.marian import TOO_LONG, UNFINISHED, Answer, MarianTranslator, ModelFiles, find_model
from training.translation.quality import cyrillic_share, fault_of, length_ratio, longest_repeat
from training.translation.translate import translate_texts

LIMITS = TranslationConfig()


@pytest.mark.parametrize(
    ("source", "translation", "fault"),
    [
        ("I love you, [NAME]!", "Я люблю тебя, [NAME]!", None),
        ("ok", "Хорошо", None),
        ("I love it", "  ", "empty"),
        ("I love you, [NAME]!", "Я люблю тебя, [ИМЯ]!", "placeholders_lost"),
        ("[NAME] and [NAME]", "[NAME] и он", "placeholders_lost"),
        ("Oh no", "Oh no", "untranslated"),
        ("Oh no, not this again", "Oh no, not this снова", "untranslated"),
        ("What", "?!", "untranslated"),
        ("I do not know what to say", "Я не знаю, я не знаю, я не знаю, я не знаю, я не знаю", "repeated_tokens"),
        ("no no no no no no, stop it", "нет нет нет нет нет нет, хватит", None),
        ("He was late for the third time this week and nobody said a word about it", "Он опоздал", "length_ratio"),
        ("Yes", "Да, именно так всё и было в тот самый день, когда мы встретились", "length_ratio"),
        ("100% 😂 [NAME]", "100% 😂 [NAME]", None),
    ],
)
def test_a_bad_translation_is_told_by_its_fault(source: str, translation: str, fault: str | None) -> None:
    assert fault_of(source, translation, LIMITS) == fault


def test_limits_are_settings() -> None:
    source, translation = "YouTube is fun", "YouTube - это весело"
    assert fault_of(source, translation, LIMITS) is None
    assert fault_of(source, translation, TranslationConfig(min_cyrillic=0.9)) == "untranslated"
    assert fault_of(source, translation, TranslationConfig(max_length_ratio=1.1)) == "length_ratio"
    assert fault_of(source, "это это весело", TranslationConfig(max_repeated=1)) == "repeated_tokens"


def test_repeats_are_counted_of_words_and_phrases_in_a_row() -> None:
    assert longest_repeat("") == 0
    assert longest_repeat("да") == 1
    assert longest_repeat("да и да и нет") == 2
    assert longest_repeat("Да! да, ДА") == 3
    assert longest_repeat("я не знаю. я не знаю. я не знаю") == 3


@given(st.lists(st.sampled_from(["да", "нет", "и"]), min_size=1, max_size=8), st.integers(1, 5))
def test_a_phrase_said_so_often_is_counted_at_least_so_often(phrase: list[str], times: int) -> None:
    if len(phrase) <= 6:
        assert longest_repeat(" ".join(phrase * times)) >= times


def test_shares_and_ratios_are_of_letters() -> None:
    assert cyrillic_share("Привет, Bob") == pytest.approx(6 / 9)
    assert cyrillic_share("123!") == 0
    assert length_ratio("a" * 15, "б" * 45) == 2


@given(st.lists(st.sampled_from(["[NAME]", "[RELIGION]", " ", "word", "Z1", "5", "😂", ",", "[nice]", "]"]), max_size=12))
def test_a_masked_text_that_comes_back_whole_is_restored(parts: list[str]) -> None:
    text = "".join(parts)
    masked = mask(text)
    assert "[NAME]" not in masked.text
    restored = restore(masked.text, masked)
    if masked.placeholders and "Z1" in parts:
        return  # a text with a stand-in of its own may not be told apart, and is then translated in pieces
    assert restored is not None
    assert re.sub(r"\s", "", restored) == re.sub(r"\s", "", text)


@pytest.mark.parametrize("translation", ["Z1 любит", "Z1 любит Z1", "Z1 любит Z2 и Z3", "Z1 любит Z20", "Z1 любит Z2у", ""])
def test_stand_ins_that_are_lost_doubled_or_changed_are_noticed(translation: str) -> None:
    assert restore(translation, mask("[NAME] loves [RELIGION]")) is None


def test_stand_ins_may_change_places() -> None:
    assert restore("Z2 любима: Z1", mask("[NAME] loves [RELIGION]")) == "[RELIGION] любима: [NAME]"


def test_only_placeholders_are_masked() -> None:
    assert mask("[nice] [ ] [Z] [GET_IT] [waves hand]").placeholders == ("[Z]", "[GET_IT]")


@given(st.text(alphabet="ab [NAME]😂❤\ufe0f"))
def test_cutting_loses_nothing(text: str) -> None:
    pieces = cut(text, PLACEHOLDER_OR_EMOJI)
    assert "".join(pieces) == text
    assert not any(EMOJI.search(piece) for piece in pieces[::2])


class _Translator:
    """Answers what it is told, by default the text in capitals with its stand-ins as they are; remembers what it was asked."""

    def __init__(self, answer: Callable[[str], str | Answer] = str.upper) -> None:
        self.asked: list[str] = []
        self._answer = answer

    def __call__(self, texts: Sequence[str]) -> list[Answer]:
        self.asked += texts
        answers = [self._answer(text) for text in texts]
        return [Answer(each) if isinstance(each, str) else each for each in answers]


def test_texts_are_translated_around_what_is_kept() -> None:
    translator = _Translator()
    texts = ["[NAME] is here 😂😂 go", "  ", "😂 [NAME]!", "plain"]
    assert [each.text for each in translate_texts(texts, translator)] == ["[NAME] IS HERE 😂😂 GO", "  ", "😂 [NAME]!", "PLAIN"]
    assert translator.asked == ["Z1 is here", "go", "plain"]


def test_a_text_whose_placeholders_did_not_come_back_is_translated_in_pieces() -> None:
    translator = _Translator(lambda text: text.replace("Z2", "").upper())
    one, two = translate_texts(["[NAME] saw", "hi [NAME], see [NAME]'s dog 😂"], translator)
    assert one == Translation("[NAME] SAW")
    assert two == Translation("HI [NAME], SEE [NAME]'S DOG 😂", in_pieces=True)


def test_an_answer_that_is_not_all_there_is_a_problem_of_the_whole_text() -> None:
    answers = {"long": Answer("", TOO_LONG), "loop": Answer("LOOP LOOP", UNFINISHED), "nothing": Answer("")}
    translator = _Translator(lambda text: answers.get(text, text.upper()))
    translations = translate_texts(["fine 😂 long", "loop", "[NAME] 😂 nothing"], translator)
    assert [each.problem for each in translations] == ["too_long", "unfinished", "empty"]


@given(st.lists(st.text(alphabet="ab[NAME] 😂"), unique=True, max_size=6))
def test_every_text_gets_its_own_translation(texts: list[str]) -> None:
    translations = translate_texts(texts, _Translator())
    assert len(translations) == len(texts)
    for text, each in zip(texts, translations, strict=True):
        if not has_letters(text):
            assert each.text == text
        assert EMOJI.findall(each.text) == EMOJI.findall(text)


def _cache(folder: Path, revision: str = "r1", **settings: int) -> TranslationCache:
    return TranslationCache(folder, revision=revision, config=TranslationConfig(**settings))


def test_translations_are_found_again_by_text_model_and_generation_settings(tmp_path: Path) -> None:
    kept = {"two\u2028lines": Translation("две\u2028строки"), "odd": Translation("", "too_long", in_pieces=True)}
    _cache(tmp_path).add(kept)
    again = _cache(tmp_path, batch_size=1, chunk_size=1)
    assert {source: again[source] for source in kept} == kept
    assert "else" not in again
    for other in (_cache(tmp_path, "r2"), _cache(tmp_path, beams=1), _cache(tmp_path, max_tokens=64)):
        assert "odd" not in other


def test_a_chunk_cut_short_while_it_was_written_counts_for_nothing(tmp_path: Path) -> None:
    _cache(tmp_path).add({"one": Translation("один")})
    chunk = next(tmp_path.rglob("*.jsonl"))
    chunk.rename(chunk.with_suffix(".unfinished"))
    chunk.with_suffix(".unfinished").write_text('{"source": "on', "utf-8")
    assert "one" not in _cache(tmp_path)


def test_chunks_are_added_beside_each_other(tmp_path: Path) -> None:
    cache = _cache(tmp_path)
    cache.add({"one": Translation("один")})
    cache.add({"two": Translation("два")})
    assert cache["one"].text == _cache(tmp_path)["one"].text == "один"
    assert _cache(tmp_path)["two"].text == "два"


def test_a_local_model_s_revision_is_that_of_its_weights(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"1")
    first = find_model(str(tmp_path)).revision
    assert find_model(str(tmp_path)).revision == first
    (tmp_path / "model.safetensors").write_bytes(b"2")
    assert find_model(str(tmp_path)).revision != first


def test_a_folder_without_weights_or_tokenizer_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no weights"):
        find_model(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({}), "utf-8")
    with pytest.raises(ConfigError, match=r"source\.spm, target\.spm, vocab\.json"):
        MarianTranslator(ModelFiles(tmp_path, "r"), TranslationConfig())


def test_a_model_that_can_t_be_had_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> str:
        raise OSError("no route")

    monkeypatch.setattr("training.translation.marian.snapshot_download", unreachable)
    with pytest.raises(ConfigError, match="go online for the Hub, or give the folder"):
        find_model("Helsinki-NLP/opus-mt-en-ru")
