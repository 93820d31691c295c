"""What a prompt says without its weights, and in which words; tests/host/test_prompt_text.py asks the host the same."""

from __future__ import annotations

import pytest

from loco_core.prompt_text import holds, literal, plain_text, words


@pytest.mark.parametrize(
    ("prompt", "plain"),
    [
        ("a red star", "a red star"),
        ("a (red:1.2) star", "a red star"),
        ("((woodcut)), (a (red:1.3) star:0.5)", "woodcut, a red star"),
        (r"art by name \(artist\)", "art by name (artist)"),
        (r"(name \(artist\):1.2)", "name (artist)"),
        ("embedding:foo", "foo"),
        ("art by (embedding:foo:1.2), embedding:bar", "art by foo, bar"),
        ("notembedding:foo", "notembedding:foo"),
        ("a clock (12:30)", "a clock 12"),  # the host takes it for a weight too
        ("(scene: night)", "scene: night"),
        ("a cat :)", "a cat :)"),
        ("((red)", "(red"),
        ("(van:1.2)(gogh)", "van gogh"),
        ("  two\n lines ", "two lines"),
        ("{cat|dog} (葛饰北斋:1.2)", "{cat|dog} 葛饰北斋"),
        ("()", ""),
    ],
)
def test_plain_text_has_no_weights_no_escapes_and_no_mark_of_an_embedding(prompt, plain):
    assert plain_text(prompt) == plain


@pytest.mark.parametrize("text", ["name (artist)", "a cat :)", "((", "a clock (12:30)"])
def test_a_literal_prompt_says_the_text_with_its_brackets(text):
    assert plain_text(literal(text)) == text


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("a house by MONET", "Monet"),
        ("a house by Monet, at night", "Monet"),
        ("a (Claude:1.2) Monet", "(Claude Monet:1.1)"),
        ("葛饰北斋的画", "葛饰北斋"),
        ("ゴッホの絵", "ゴッホ"),
        ("빈센트 반 고흐의 그림", "반 고흐"),
        ("a poster about C++ code", "C++"),
        ("Ｃ＋＋のコード", "c++"),
        ("an AC/DC poster", "AC/DC"),
        ("art by @wlop", "@wlop"),
        (r"1girl, name \(artist\), solo", r"(name \(artist\):1.2)"),
        ("art by foo", "embedding:foo"),
        ("studio_ghibli", "Studio Ghibli"),
        ("Georgia O\u2019Keeffe's flowers", "Georgia O'Keeffe"),
        ("文森特・梵高的画", "文森特·梵高"),
    ],
)
def test_a_name_is_found_as_words_side_by_side(prompt, name):
    assert holds(words(prompt), words(name))


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("Monetary policy", "Monet"),
        ("a C clef", "C++"),
        ("a van by a canal, gogh", "van gogh"),
        ("北斋葛饰", "葛饰北斋"),
        ("an AC unit", "AC/DC"),
        ("anything", "-"),
        ("", "Monet"),
    ],
)
def test_a_name_is_not_found_in_part_or_out_of_order(prompt, name):
    assert not holds(words(prompt), words(name))
