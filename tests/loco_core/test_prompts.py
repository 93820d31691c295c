from __future__ import annotations

import pytest

from loco_core.editing.recipe import EditRequest, EditSettings, combined, edit_recipe
from loco_core.models.layers import LayerSet
from loco_core.prompt_lines import with_files
from loco_core.prompts import (
    Attribute,
    PromptPair,
    contrast_prompts,
    lines,
    preserved_prompts,
    prompt_pairs,
    whole_pairs,
)
from made_up import encode


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


# --- what a line is taken for -----------------------------------------------------------------------------------------


def is_name(line: str, attribute: Attribute = Attribute.STYLE) -> bool:
    """Whether a concept is taken for a name: then it becomes several prompts."""
    return len(prompt_pairs(line, "x", attribute).pairs) > 1


@pytest.mark.parametrize(
    "line",
    [
        *("Van Gogh", "Studio Ghibli style", "anime style", "ghibli_style", "Photo-realism", "Van Gogh,"),
        *("C++", "AC/DC", "@wlop", "(Van Gogh:1.2)", r"name \(artist\)", "embedding:foo", "-"),
        *("葛饰北斋", "宫崎骏", "水墨画", "吉卜力风格", "文森特·梵高", "スタジオジブリ", "新海誠スタイル"),
        *("フィンセント・ファン・ゴッホ", "빈센트 반 고흐", "스튜디오 지브리 스타일"),
    ],
)
def test_names_are_told_from_prompts(line):
    assert is_name(line)


@pytest.mark.parametrize(
    "line",
    [
        *("1girl, solo", "masterpiece, best quality, 1girl", "(masterpiece:1.2), 1girl", "2boys", "a photo of Nemo"),
        *("a painting", "in the style of Monet", "a long prompt of words"),
        *("一个女孩在花园里看书", "葛饰北斋的画", "猫，草地", "猫、草原", "梵高的照片"),
        *("桜の木の下に立つ少女", "1人の女の子", "바닷가에 앉아 있는 고양이", "gatto، prato"),
    ],
)
def test_prompts_are_told_from_names(line):
    assert not is_name(line)


@pytest.mark.parametrize("line", ["the president of the United States", "アメリカ合衆国大統領", "美利坚合众国总统"])
def test_a_fact_has_a_longer_name_than_a_style(line):
    assert is_name(line, Attribute.FACT) and not is_name(line, Attribute.STYLE)


@pytest.mark.parametrize("line", ["桜の木の下に立つ少女", "一个女孩在花园里看书", "바닷가에 앉아 있는 고양이"])
def test_a_sentence_is_no_name_of_an_object_however_short(line):
    assert not is_name(line, Attribute.OBJECT)


@pytest.mark.parametrize(
    ("name", "styled"),
    [
        ("Studio Ghibli style", "a photo in the style of Studio Ghibli"),
        ("(Studio Ghibli style:1.2)", "a photo in the style of (Studio Ghibli:1.2)"),
        ("Ghibli-Style", "a photo in the style of Ghibli"),
        ("吉卜力风格", "a photo in the style of 吉卜力"),
        ("lifestyle", "a photo in the style of lifestyle"),
        ("by Greg Rutkowski", "a photo in the style of Greg Rutkowski"),
        ("(art by @wlop:1.2)", "a photo in the style of (@wlop:1.2)"),
        ("byzantine mosaic", "a photo in the style of byzantine mosaic"),
    ],
)
def test_a_names_own_word_for_style_is_not_doubled(name, styled):
    concepts = [pair.concept for pair in prompt_pairs(name, "x", Attribute.STYLE).pairs]
    assert (concepts[0], concepts[2]) == (name, styled)


@pytest.mark.parametrize("mark", ["name: ", "NAME:", "Name : ", "name\uff1a"])
def test_a_line_says_that_it_is_a_name(mark):
    concept = "a whole series of unfortunate events"
    pairs = prompt_pairs(f"{mark}{concept}", "x", Attribute.STYLE).pairs
    assert [pair.concept for pair in pairs][:2] == [concept, f"a painting in the style of {concept}"]


@pytest.mark.parametrize("mark", ["prompt: ", "PROMPT:", "Prompt\uff1a "])
def test_a_line_says_that_it_is_a_prompt(mark):
    assert prompt_pairs(f"{mark}dark fantasy", "x", Attribute.STYLE).pairs == (PromptPair("dark fantasy", "x"),)
    assert whole_pairs(f"{mark}dark fantasy", f"{mark}fantasy") == [PromptPair("dark fantasy", "fantasy")]
    assert preserved_prompts(f"{mark}solo", Attribute.STYLE, "Van Gogh").contexts == ("solo",)
    assert contrast_prompts("Van Gogh", f"{mark}solo").concept == ("solo in the style of Van Gogh",)


def test_a_name_that_is_said_to_be_one_may_begin_with_an_article():
    assert len(preserved_prompts("name: A Silent Voice", Attribute.STYLE, "Van Gogh").prompts) == 4
    assert preserved_prompts("A silent voice\n一个女孩", Attribute.STYLE, "Van Gogh").contexts == (
        "A silent voice",
        "一个女孩",
    )


def test_a_style_that_is_said_to_be_a_name_takes_the_other_styles_place_everywhere():
    pairs = prompt_pairs("Van Gogh", "name: Monet", Attribute.STYLE, contexts=["a house"]).pairs
    assert pairs[1] == PromptPair("a painting in the style of Van Gogh", "a painting in the style of Monet")
    assert pairs[4] == PromptPair("a house in the style of Van Gogh", "a house in the style of Monet")


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (
            lambda: lines("name: Monet", "keep prompts"),
            "keep prompts: 'Monet' is marked as a name; write whole prompts",
        ),
        (lambda: whole_pairs("a", "name: b"), "target prompts: 'b' is marked as a name; write whole prompts here"),
        (
            lambda: prompt_pairs("a photo of Nemo", "name: dog", Attribute.OBJECT),
            "target prompts: 'dog' is marked as a name, and 'a photo of Nemo', which it replaces, is a whole prompt",
        ),
        (lambda: lines("prompt:", "keep"), "keep: nothing stands after 'prompt:'; write the name or the prompt on"),
        (lambda: contrast_prompts('name: ""', "a"), 'concept: "", the empty prompt, has nothing in it'),
    ],
)
def test_a_mark_out_of_place_is_refused(read, message):
    with pytest.raises(ValueError) as refusal:
        read()
    assert message in str(refusal.value)


# --- a person's text is no template -----------------------------------------------------------------------------------

BRACES = ["{cat|dog}", "{}", "{0}", "{name}", "{", "{{x}}", '{"json": 1}']


@pytest.mark.parametrize("text", BRACES)
def test_braces_are_text_in_every_field(text):
    assert prompt_pairs(text, text, Attribute.OBJECT).pairs[2] == PromptPair(f"a photo of {text}", f"a photo of {text}")
    kept = preserved_prompts(f"{text}\na photo of {text}", Attribute.STYLE, "Van Gogh")
    assert kept.prompts[2:] == (
        f"a photo in the style of {text}",
        f"a picture in the style of {text}",
        f"a photo of {text}",
    )
    pairs = prompt_pairs("Van Gogh", text, Attribute.STYLE, contexts=kept.contexts).pairs
    assert pairs[4] == PromptPair(f"a photo of {text} in the style of Van Gogh", f"a photo of {text}")
    found = contrast_prompts(f"Van {text}", f"a photo of {text}\n{text}")
    assert found.concept == (f"a photo of {text} in the style of Van {text}",)
    assert found.without == (f"a photo of {text}", f"a photo of {text} in the style of {text}")


# --- what is to be removed cannot stay --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("C++", "a poster about C++ code"),
        ("葛饰北斋", "葛饰北斋的画"),
        ("@wlop", "art by @wlop"),
        ("Studio Ghibli style", "a castle by Studio Ghibli"),
        ("(Van Gogh:1.2)", "a house by van gogh"),
    ],
)
def test_a_line_that_names_what_is_to_be_removed_is_found_in_any_script(name, line):
    for read in (lambda: preserved_prompts(line, Attribute.STYLE, name), lambda: contrast_prompts(name, line)):
        with pytest.raises(ValueError) as refusal:
            read()
        assert f"{line!r} names what is to be removed, {name!r}; take it out" in str(refusal.value)


@pytest.mark.parametrize(("name", "line"), [("C++", "a C clef"), ("Monet", "Monetary"), ("-", "a photo of a cat")])
def test_a_line_that_does_not_name_it_stays(name, line):
    assert line in preserved_prompts(line, Attribute.STYLE, name).prompts


# --- how lines were taken ---------------------------------------------------------------------------------------------


def test_every_line_of_a_request_is_told_with_what_it_was_taken_for():
    request = EditRequest(
        "Van Gogh\na cat by Vincent, oil", "a painting", "Monet\na house\nin Manet style now", "style"
    )
    assert edit_recipe(request, EditSettings(), LayerSet((8,), 16), "").taken == (
        'concept, taken as a name: "Van Gogh" (5 prompts, like "a house in the style of Van Gogh")',
        'concept, taken as a prompt: "a cat by Vincent, oil"',
        'target, taken as a prompt: "a painting"',
        'preserve, taken as a name: "Monet" (4 prompts, like "a picture in the style of Monet")',
        'preserve, taken as a context: "a house"',
        'preserve, taken as a prompt: "in Manet style now"',
    )


def test_contexts_are_told_only_where_a_style_is_put_into_them():
    for concept, attribute in (("cat", Attribute.OBJECT), ("a cat in the style of Van Gogh", Attribute.STYLE)):
        assert preserved_prompts("a house", attribute, concept).taken == ('preserve, taken as a prompt: "a house"',)


def test_both_sides_of_a_contrast_are_told():
    assert contrast_prompts("Van Gogh", "a cat\na dog\nMonet").taken == (
        'concept, taken as a name: "Van Gogh" (2 prompts, like "a dog in the style of Van Gogh")',
        'without, taken as 2 contexts: "a cat", "a dog"',
        'without, taken as a name: "Monet" (2 prompts, like "a dog in the style of Monet")',
    )


def test_many_and_long_lines_are_told_shortly():
    (told,) = preserved_prompts("\n".join(f"N{i}" for i in range(40)), Attribute.STYLE, "Van Gogh").taken
    assert told.startswith('preserve, taken as 40 names: "N0", "N1", ')
    assert told.endswith('"N9" and 30 more names (160 prompts, like "a picture in the style of N0")')
    (told,) = preserved_prompts("word " * 100, Attribute.OBJECT, "cat").taken
    assert len(told) < 100 and told.endswith('\u2026"')


def test_the_empty_prompt_and_a_fields_own_name_are_told():
    assert prompt_pairs("cat", '""', Attribute.OBJECT).taken[1] == 'target prompts, taken as a prompt: ""'


def test_a_combined_recipe_tells_the_lines_of_all():
    recipes = [
        edit_recipe(EditRequest(name, "a painting", "", "style"), EditSettings(), LayerSet((8,), 16), "")
        for name in ("Monet", "Manet")
    ]
    told = combined(recipes, encode, "").taken
    assert [sentence.split(" (")[0] for sentence in told] == [
        'concept, taken as a name: "Monet"',
        'target, taken as a prompt: "a painting"',
        'concept, taken as a name: "Manet"',
    ]


def test_several_names_stand_in_one_line():
    asked = prompt_pairs("names: Van Gogh, Monet\u3001 Hokusai\uff0c Manet", "a painting", Attribute.STYLE)
    assert [named.name for named in asked.named] == ["Van Gogh", "Monet", "Hokusai", "Manet"]
    assert asked.taken[0].startswith('concept prompts, taken as 4 names: "Van Gogh", "Monet", "Hokusai", "Manet"')
    with pytest.raises(ValueError, match="concept prompts: nothing stands after 'names: ,'"):
        prompt_pairs("names: ,", "a painting", Attribute.STYLE)


def test_a_line_that_names_a_file_stands_for_the_files_lines():
    text = with_files("Monet\n file: artists.txt \nprompt: a file: of clerks", {"artists.txt": "A\nB"}.__getitem__)
    assert text == "Monet\nA\nB\nprompt: a file: of clerks"
