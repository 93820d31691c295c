from __future__ import annotations

import pytest

from loco_core.editing.recipe import EditRequest, EditSettings, edit_recipe
from loco_core.editing.wordings import MOST_KEPT, MOST_WORDINGS, kept_wordings, telling_pairs, wordings
from loco_core.models.layers import LayerSet
from loco_core.prompts import Attribute, PromptPair

LAYERS = LayerSet((8, 9), 16)


def recipe_of(concept: str, target: str = "a painting", preserve: str = "", attribute: Attribute = Attribute.STYLE):
    request = EditRequest(concept, target, preserve, attribute)
    return edit_recipe(request, EditSettings(), LAYERS, "a text encoder")


@pytest.mark.parametrize("attribute", Attribute)
@pytest.mark.parametrize("concept", ["Van Gogh", "name: {x}", "Monet\nHokusai", "a photo of a tall man, by Monet"])
def test_no_wording_is_one_that_the_edit_was_solved_on(attribute, concept):
    recipe = recipe_of(concept, "a thing", "a photo of a cat\na photo of a dog", attribute)
    found = wordings(recipe)
    assert 0 < len(found) <= MOST_WORDINGS
    assert not {pair.concept for pair in found} & {pair.concept for pair in recipe.pairs}
    assert all(pair.concept != pair.target for pair in found)


def test_a_style_is_said_in_front_behind_and_with_a_weight_of_what_the_person_preserves():
    found = wordings(recipe_of("Van Gogh", preserve="a photo of a cat\na photo of a dog"))
    assert found == (
        PromptPair("Van Gogh style, a photo of a cat", "a photo of a cat"),
        PromptPair("a photo of a dog, art by Van Gogh", "a photo of a dog"),
        PromptPair("a photo of a cat, (Van Gogh:1.2), highly detailed", "a photo of a cat"),
    )


def test_one_style_is_said_of_as_many_things_as_are_asked():
    keep = [f"a photo of thing {number}" for number in range(12)]
    found = wordings(recipe_of("Van Gogh", preserve="\n".join(keep)))
    assert len({pair.target for pair in found}) == len(found) == MOST_WORDINGS


def test_a_thing_is_replaced_by_its_target_in_the_same_words():
    found = wordings(recipe_of("cat", "dog", attribute=Attribute.OBJECT))
    assert PromptPair("cat in the morning light", "dog in the morning light") in found
    assert PromptPair("a photo of many cats", "a photo of many dogs") in found


def test_a_fact_is_not_put_into_the_plural():
    found = wordings(recipe_of("the president", "a woman", attribute=Attribute.FACT))
    assert not any("presidents" in pair.concept for pair in found)


def test_a_whole_prompt_is_said_with_other_words_around_it():
    found = wordings(recipe_of("a painting of a house by Monet, 1890", "a painting of a house"))
    assert found[0] == PromptPair(
        "a painting of a house by Monet, 1890, highly detailed", "a painting of a house, highly detailed"
    )


def test_names_and_whole_prompts_are_both_asked():
    found = wordings(recipe_of("Van Gogh\nprompt: a house, cubist", "a painting"))
    assert {"Van Gogh", "a house, cubist"} <= {
        part for pair in found for part in ("Van Gogh", "a house, cubist") if part in pair.concept
    }


def test_of_many_concepts_some_are_asked_from_the_first_to_the_last():
    names = [f"painter {number}" for number in range(100)]
    asked = " ".join(pair.concept for pair in wordings(recipe_of("\n".join(names))))
    assert len(wordings(recipe_of("\n".join(names)))) == MOST_WORDINGS
    assert "painter 0" in asked and "painter 8" in asked


def test_braces_in_a_name_are_text():
    assert wordings(recipe_of("name: {scene}"))[0].concept.startswith("{scene} style, ")


def test_what_is_kept_is_asked_in_other_words_than_it_was_preserved_in():
    recipe = recipe_of("Van Gogh", preserve="\n".join(f"a photo of a cat, {number}" for number in range(20)))
    kept = kept_wordings(recipe)
    assert len(kept) == MOST_KEPT
    assert not set(kept) & set(recipe.preserve)


def test_where_nothing_is_preserved_no_scene_is_kept_that_names_the_concept():
    recipe = edit_recipe(EditRequest("cat", "a dog", "", Attribute.OBJECT), EditSettings(), LAYERS, "a text encoder")
    assert [prompt for prompt in kept_wordings(recipe) if "cat" in prompt] == []
    assert kept_wordings(recipe)


@pytest.mark.parametrize(
    ("concepts", "targets", "attribute"),
    [
        ("cat\ndog", "cat\na bird", Attribute.OBJECT),
        ("a painting", "a painting", Attribute.STYLE),
        ("a red star in woodcut", "a red star in woodcut", Attribute.STYLE),
    ],
)
def test_a_concept_that_is_its_own_target_is_no_edit(concepts, targets, attribute):
    with pytest.raises(ValueError, match="is the concept too; give what takes its place"):
        edit_recipe(EditRequest(concepts, targets, "", attribute), EditSettings(), LAYERS, "a text encoder")


def test_a_style_is_looked_for_in_scenes_that_differ_in_it_alone():
    pairs = telling_pairs(recipe_of("Van Gogh", preserve="a photo of a cat\na photo of a dog"), 4)
    assert pairs == (
        PromptPair("a photo of a cat in the style of Van Gogh", "a photo of a cat"),
        PromptPair("a photo of a dog in the style of Van Gogh", "a photo of a dog"),
    )


def test_where_nothing_is_preserved_a_style_is_looked_for_in_ordinary_scenes():
    pairs = telling_pairs(recipe_of("Van Gogh\nMonet"), 4)
    assert len(pairs) == 4 and all(pair.concept.startswith(f"{pair.target} in the style of ") for pair in pairs)
    assert "a painting" not in {pair.target for pair in pairs}


def test_a_fact_is_looked_for_in_its_own_prompts():
    pairs = telling_pairs(recipe_of("the flag of x", "the flag of y", attribute=Attribute.FACT), 2)
    assert pairs and all(pair.concept.replace("flag of x", "flag of y") == pair.target for pair in pairs)
