"""Zarei's score of made-up attention; its place in the probe and in what is told of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from loco_core.localization import attention
from loco_core.localization.attention import Attention, concept_score, own_places
from loco_core.localization.localize import Localization, localize
from loco_core.localization.plan import ProbePlan, SearchPlan
from loco_core.localization.probe import Prober
from loco_core.localization.probe_report import probe_report
from loco_core.localization.report import result_json
from loco_core.localization.search import search
from loco_core.models.engine import Row, Sampling
from loco_core.models.families.joint import SD3
from loco_core.models.layers import ModelLayers, TextLayer
from loco_core.prompts import Attribute, PromptPair
from made_up import Denoiser, added

SAMPLING = Sampling(4, 1.0, "euler", "normal", 64, 64)
PAIR = PromptPair("a star in woodcut", "a star")
LAYERS = ModelLayers(tuple(TextLayer(index, "joint", index, 0) for index in range(12)), ("",) * 12, 4, SD3)


@pytest.mark.parametrize(
    ("concept", "target", "expected"),
    [
        ("a red star in woodcut", "a red star", [3, 4]),
        ("a woodcut of a star", "a star", [0, 1, 2]),
        ("a cat on a mat", "a dog on a rug", [1, 4]),
        ("a star", "a star in woodcut", []),
        ("", "a star", []),
    ],
)
def test_a_concepts_words_are_those_that_the_target_lacks(concept, target, expected):
    assert [place for place in own_places(concept.split(), target.split())] == expected


def made_up(key_heads: int = 4, bias: torch.Tensor | None = None) -> Attention:
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(4, 10, 8, generator=generator)
    keys, values = torch.randn(2, key_heads, 16, 8, generator=generator)
    return Attention(queries, keys, values, 0.3, bias)


def by_hand(given: Attention, concept: list[int], output: torch.Tensor) -> float:
    """Token for token and head for head."""
    lengths = []
    for image in range(10):
        heads = []
        for head in range(4):
            shared = head * len(given.keys) // 4
            products = 0.3 * given.keys[shared] @ given.queries[head, image]
            if given.bias is not None:
                products = products + given.bias.expand(4, 10, 16)[head, image]
            weights = products.softmax(0)
            heads.append(sum(weights[token] * given.values[shared, token] for token in concept))
        lengths.append((output @ torch.cat(heads)).norm())
    return torch.stack(lengths).mean().item()


HIDDEN = torch.zeros(1, 1, 16).masked_fill(torch.arange(16) >= 14, -torch.inf)


@pytest.mark.parametrize("at_once", [2**23, 200])
@pytest.mark.parametrize(
    "given",
    [made_up(), made_up(key_heads=2), made_up(bias=HIDDEN), made_up(bias=torch.arange(640.0).reshape(4, 10, 16) % 7)],
    ids=["", "shared heads", "hidden tokens", "a bias of its own for each"],
)
def test_the_score_is_its_definition_however_many_tokens_are_taken_at_once(given, at_once, monkeypatch):
    monkeypatch.setattr(attention, "PRODUCTS_AT_ONCE", at_once)
    output = torch.randn(5, 32, generator=torch.Generator().manual_seed(1))
    score = concept_score(given, [2, 5], lambda rows: rows @ output.T)
    assert score == pytest.approx(by_hand(given, [2, 5], output), rel=1e-5)


def test_tokens_that_nobody_looks_at_give_nothing():
    assert concept_score(made_up(bias=HIDDEN), [14, 15], lambda rows: rows) == 0


class Attentive(Denoiser):
    """A denoiser whose layer 4 gives most by attention, as the step and the row have it."""

    def attention_scores(
        self, rows: Sequence[Row], latents: torch.Tensor, sampling: Sampling, step: int
    ) -> torch.Tensor:
        assert all(row.intervention.embedding.prompt == PAIR.target for row in rows)
        scores = torch.ones(len(rows), len(self.layers))
        scores[:, 4] = 3.0 + step
        return scores


class Unable(Attentive):
    """One that cannot tell the concept's tokens."""

    def attention_scores(self, *asked) -> torch.Tensor:
        return super().attention_scores(*asked) * torch.nan


def located(kind: type[Denoiser], layers: ModelLayers = LAYERS) -> Localization:
    engine = kind(PAIR.concept, added({8: 0.7, 9: 0.3}), layers)
    return localize(Prober(engine, ProbePlan((PAIR,), (0, 1), SAMPLING, levels=2), 8), layers, window_size=2)


def test_the_score_is_a_mean_over_levels_and_runs_beside_shares_that_stay_the_same():
    found, plain = located(Attentive), located(Denoiser)
    np.testing.assert_allclose(found.probe.attention, [*[1] * 4, 4, *[1] * 7])
    assert found.layers == plain.layers and found.share == plain.share
    assert found.probe.rows == plain.probe.rows + 4  # two seeds, two levels
    shares = {str(window): share for window, share in found.attention_shares.items()}
    assert (shares["3-4"], shares["4-5"], shares["8-9"]) == (1, 1, pytest.approx(2 / 5))


def test_the_report_tells_it_beside_the_shares():
    figures = probe_report(located(Attentive)).figures
    (line,) = [line for line in figures if line.startswith("by attention")]
    assert "3-4 100%; 4-5 100%; 0-1 40%" in line
    assert line.endswith("this ranks layers, and does not say how many are needed")
    assert [other for other in figures if other != line][:-1] == list(probe_report(located(Denoiser)).figures)[:-1]


@pytest.mark.parametrize("kind", [Denoiser, Unable])
def test_where_there_is_none_nothing_is_told(kind):
    found = located(kind)
    assert found.probe.attention is None and found.attention_shares == {}
    assert "attention" not in str(probe_report(found))


def test_layers_that_only_read_the_text_are_not_asked():
    unread = replace(LAYERS, family=type("ReadOnly", (type(SD3),), {"joint": False})("read-only", "text_in"))
    assert located(Attentive, unread).probe.attention is None


@pytest.mark.parametrize("kind", [Denoiser, Attentive])
def test_a_saved_search_has_the_scores_of_all_layers_where_there_are_any(kind):
    engine = kind(PAIR.concept, added({8: 0.7, 9: 0.3}), LAYERS)
    result = search(engine, None, SearchPlan((PAIR,), (0,), Attribute.STYLE, SAMPLING), 8)
    probe = json.loads(result_json(result, {}))["probe"]
    assert ("attention" in probe) == (kind is Attentive)
    if kind is Attentive:
        assert len(probe["attention"]) == 12
