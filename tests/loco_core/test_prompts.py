from __future__ import annotations

import pytest

from loco_core.prompts import Attribute, PromptPair, preserved_prompts, prompt_pairs, whole_pairs


def test_a_bare_style_is_expanded_with_the_papers_four_templates_and_one_target():
    pairs = prompt_pairs("Van Gogh", "a painting", Attribute.STYLE).pairs
    assert [pair.concept for pair in pairs] == [
        "Van Gogh",
        "a painting in the style of Van Gogh",
        "a photo in the style of Van Gogh",
        "a picture in the style of Van Gogh",
    ]
    assert {pair.target for pair in pairs} == {"a painting"}


def test_a_bare_object_is_expanded_on_both_sides():
    assert prompt_pairs("cat", "dog", Attribute.OBJECT).pairs[1] == PromptPair("an image of cat", "an image of dog")


def test_a_fact_of_several_words_is_a_name_too():
    pairs = prompt_pairs("the president of the United States", "Joe Biden", Attribute.FACT).pairs
    assert pairs[3] == PromptPair("a picture of the president of the United States", "a picture of Joe Biden")


def test_a_line_that_speaks_of_a_picture_is_a_prompt_however_short():
    pairs = prompt_pairs("a photo of Nemo", "a fish", Attribute.OBJECT).pairs
    assert pairs == (PromptPair("a photo of Nemo", "a fish"),)


def test_whole_prompts_stay_as_they_are():
    pairs = prompt_pairs("a red star in the style of woodcut", "a red star", Attribute.STYLE).pairs
    assert pairs == (PromptPair("a red star in the style of woodcut", "a red star"),)


def test_empty_lines_and_spaces_do_not_count():
    assert len(prompt_pairs("\n a long prompt of words \n\n", "x\n", Attribute.STYLE).pairs) == 1


@pytest.mark.parametrize(
    ("concepts", "targets", "message"),
    [
        ("", "a painting", "concept prompts: empty"),
        ("woodcut", " \n", "target prompts: empty"),
        ("a\nb\nc", "x\ny", "concept prompts: 3 lines, target prompts: 2 lines; give one target per concept"),
    ],
)
def test_a_mistake_is_named_with_what_was_expected(concepts, targets, message):
    with pytest.raises(ValueError, match=message):
        prompt_pairs(concepts, targets, Attribute.STYLE)


def test_two_quotes_are_the_empty_prompt_as_a_target():
    assert {pair.target for pair in prompt_pairs("woodcut", '""', Attribute.STYLE).pairs} == {""}
    assert {pair.target for pair in prompt_pairs("cat", '""', Attribute.OBJECT).pairs} == {""}


def test_whole_pairs_are_not_expanded():
    assert whole_pairs("woodcut\nhalftone", "a painting") == [
        PromptPair("woodcut", "a painting"),
        PromptPair("halftone", "a painting"),
    ]


def test_names_to_preserve_are_expanded_and_prompts_are_kept_as_they_are():
    kept = preserved_prompts("Monet\na photo of a cat", Attribute.STYLE, "Van Gogh")
    assert kept.prompts == (
        "Monet",
        "a painting in the style of Monet",
        "a photo in the style of Monet",
        "a picture in the style of Monet",
        "a photo of a cat",
    )


def test_prompts_without_a_style_are_contexts_for_one():
    kept = preserved_prompts(
        "Monet\na photo of a cat\na house\na cup in the style of Monet", Attribute.STYLE, "Van Gogh"
    )
    assert kept.contexts == ("a photo of a cat", "a house")
    pairs = prompt_pairs("Van Gogh", "a painting", Attribute.STYLE, contexts=kept.contexts).pairs
    assert pairs[4:] == (
        PromptPair("a photo of a cat in the style of Van Gogh", "a photo of a cat"),
        PromptPair("a house in the style of Van Gogh", "a house"),
    )


def test_contexts_are_for_styles_given_by_name():
    assert len(prompt_pairs("cat", "dog", Attribute.OBJECT, contexts=["a house"]).pairs) == 4
    assert (
        len(prompt_pairs("a star in the style of woodcut", "a star", Attribute.STYLE, contexts=["a house"]).pairs) == 1
    )


def test_what_is_to_be_removed_cannot_be_preserved_too():
    with pytest.raises(ValueError, match="preserve: 'a photo of a Cat' names what is to be removed, 'cat'"):
        preserved_prompts("a photo of a Cat", Attribute.OBJECT, "cat")
    assert preserved_prompts("a catalogue", Attribute.OBJECT, "cat").prompts
