"""Choices between a few words: read from a word, written as it, and refused with the words there are."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from loco_core.choices import Choice
from loco_core.editing.calibrate import SettingsFrom
from loco_core.editing.recipe import EditSettings, Preservation, Ridge, Tokens
from loco_core.localization.plan import Effort, SearchPlan
from loco_core.localization.verdict import Kind
from loco_core.models.engine import Sampling
from loco_core.models.family import Naming
from loco_core.models.layers import Part
from loco_core.neurons.ablation import ChooseBy, Mode
from loco_core.neurons.detection import NeuronTokens, Ranking
from loco_core.prompt_lines import LineKind
from loco_core.prompts import Attribute, PromptPair, prompt_pairs

CORE = Path(__file__).resolve().parents[2] / "loco_core"
CHOICES = [
    *(Attribute, ChooseBy, Effort, Kind, LineKind, Mode, Naming, NeuronTokens, Part, Preservation, Ranking, Ridge),
    *(SettingsFrom, Tokens),
]
every_choice = pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: choice.__name__)


@every_choice
def test_a_wrong_word_is_refused_with_the_words_there_are(choice: type[Choice]):
    with pytest.raises(ValueError) as refusal:
        choice.parse("other", "some input")
    assert str(refusal.value) == f"some input: 'other'; give one of {', '.join(choice.words())}"


@every_choice
def test_a_choice_is_read_from_its_word_shown_and_written_as_it(choice: type[Choice]):
    for word in choice.words():
        read = choice.parse(word, "some input")
        assert (str(read), f"{read}", json.loads(json.dumps(read))) == (word, word, word)
        assert choice.parse(read, "some input") is read


def test_no_choice_is_forgotten_here():
    found = {
        node.name
        for path in CORE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
        and any(isinstance(base, ast.Name) and base.id == "Choice" for base in node.bases)
    }
    assert found == {choice.__name__ for choice in CHOICES}


def plan(**words) -> SearchPlan:
    pairs = (PromptPair("a red star in the style of woodcut", "a red star"),)
    return SearchPlan(pairs, (0,), window_size=2, sampling=Sampling(4, 2.0, "euler", "normal", 128, 128), **words)


def test_a_script_may_give_the_word_instead_of_the_choice():
    asked = plan(attribute="fact", effort="exhaustive", part="keys")
    assert (asked.attribute, asked.effort, asked.part) == (Attribute.FACT, Effort.EXHAUSTIVE, Part.KEYS)
    assert (asked.sign, len(asked.images)) == (1, 1)
    assert EditSettings(tokens="end of text", preservation="none").preservation is Preservation.NONE
    assert prompt_pairs("woodcut", "a painting", "style") == prompt_pairs("woodcut", "a painting", Attribute.STYLE)


def test_a_word_that_is_no_choice_is_refused_where_it_is_given():
    with pytest.raises(ValueError, match="effort: 'quick'; give one of probe, exhaustive"):
        plan(attribute="style", effort="quick")
    with pytest.raises(ValueError, match="ridge: 'own'; give one of relative, paper"):
        EditSettings(ridge="own")
