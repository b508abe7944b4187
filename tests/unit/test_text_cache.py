from collections import OrderedDict

from hypothesis import given
from hypothesis import strategies as st

from worker.inference.text_cache import TextCache


def test_the_text_unused_for_longest_goes_first():
    cache = TextCache(model_digest="sha256:1", max_texts=2)
    cache.keep("да", 1)
    cache.keep("нет", 2)
    assert cache.find("да") == 1
    cache.keep("ок", 3)
    assert (cache.find("да"), cache.find("нет"), cache.find("ок")) == (1, None, 3)


@given(st.lists(st.tuples(st.sampled_from("абвгде"), st.booleans()), max_size=60), st.integers(0, 4))
def test_it_does_what_a_list_ordered_by_use_does(steps, size):
    cache, model = TextCache(model_digest="sha256:1", max_texts=size), OrderedDict()
    for text, is_kept in steps:
        if is_kept:
            cache.keep(text, text.upper())
            model[text] = text.upper()
            model.move_to_end(text)
            while len(model) > size:
                model.popitem(last=False)
        else:
            assert cache.find(text) == model.get(text)
            if text in model:
                model.move_to_end(text)
        assert len(cache) == len(model) <= size


def test_another_model_finds_nothing_of_the_first_ones():
    first, second = (TextCache(model_digest=digest, max_texts=4) for digest in ("sha256:1", "sha256:2"))
    first.keep("да", 1)
    second._answers = first._answers
    assert second.find("да") is None
    assert first.find("да") == 1


def test_no_text_is_kept_in_memory():
    cache = TextCache(model_digest="sha256:1", max_texts=4)
    cache.keep("секрет", 1)
    assert "секрет".encode() not in repr(cache._answers).encode() + b"".join(cache._answers)
