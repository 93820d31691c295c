"""Neurons: which output dimensions of the located layers tell prompts with a concept from prompts without it.

    contrast = contrast_prompts("Van Gogh", "a photo of a cat\nMonet")
    neurons = detect_neurons(engine, contrast, layers)
    neurons.ranked(Ranking.SIGNAL)[:640]

A neuron is one output dimension of a layer's W_K or W_V (paper, section 7; the authors' code). Its output is a linear
function of a token's embedding: detection needs no image, only embeddings and one layer's weights at a time. Neurons
are ranked by z = (mean_s - mean_n) / sqrt(var_s / n_s + var_n / n_n) over prompts with (s) and without (n) the concept.
One prompt is one sample, the mean over its chosen tokens: the tokens of a prompt are not independent of each other.

z tells how surely a neuron differs, not how much of the concept passes through it. So there is a second ranking, by
signal = (mean_s - mean_p)^2 - OTHERS_SHARE x mean over other concepts k of (mean_k - mean_p)^2, where p are the plain
prompts: what the concept adds to plain prompts there, less a share of what others add. A third, by effect, needs images
(see effects.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats

from ..choices import Choice
from ..models.engine import Engine, TextEmbedding
from ..models.layers import PROJECTIONS, LayerSet, Part
from ..prompts import Contrast, PromptPair, continued

# Tried on the demo model: with 0 more of the other styles goes, with 1 less of the style itself.
OTHERS_SHARE = 0.5
# Share of the neurons said to differ that may do so by chance (Benjamini and Hochberg, 1995).
FALSE_DISCOVERIES = 0.05
# Least variance of a neuron, in units of its layer's mean squared output: below is rounding.
VARIANCE_FLOOR = 1e-8
# Least mean squared output of a projection: below it gives nothing. Its variance's square is still a float64.
NO_OUTPUT = 1e-60
FEWEST_PROMPTS = 2

# A layer's index, and Part.KEYS or Part.VALUES.
Place = tuple[int, Part]


class NeuronTokens(Choice):
    """Which tokens of a prompt are its sample: the last subject token to the last padding, the paper's, or the authors'
    code's. A long prompt has such tokens in each of its chunks (see TextEmbedding.tails).
    """

    TAIL = "last subject token and tail"
    LAST_SUBJECT = "last subject token"
    LAST_PADDED = "last padded position"


class Ranking(Choice):
    """What neurons are ranked by."""

    SIGNAL = "signal"
    Z = "z"
    EFFECT = "effect"


@dataclass(frozen=True, eq=False)
class NeuronScores:
    """Of one projection, [d_out] each in float64: the z-score, its two-sided p-value (Welch's t-test), the signal, the
    mean over the plain prompts, and the effect, where it was measured.
    """

    z: torch.Tensor
    p: torch.Tensor
    signal: torch.Tensor
    mean: torch.Tensor
    effect: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class Neurons:
    """What was detected, and all it was made from. width: of the text embeddings that the layers get. taken: how the
    lines that asked for the prompts were taken, in sentences.
    """

    scores: Mapping[Place, NeuronScores]
    layers: LayerSet
    width: int
    tokens: NeuronTokens
    with_concept: tuple[str, ...]
    without_concept: tuple[str, ...]
    text_encoder: str
    taken: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        return sum(len(score.z) for score in self.scores.values())

    @property
    def pairs(self) -> tuple[PromptPair, ...]:
        """The prompts with the concept that go on from one without it, each beside that one."""
        return continued(self.with_concept, self.without_concept)

    def ranked(self, ranking: Ranking = Ranking.SIGNAL) -> list[tuple[Place, int]]:
        """All neurons as (place, output dimension), those of largest signal, |z| or effect first.

        The neurons of a group have the same effect; among them those of larger signal stand first.
        """
        places = [(place, neuron) for place, score in self.scores.items() for neuron in range(len(score.z))]
        order = np.lexsort((-self._measure(Ranking.SIGNAL), -self._measure(ranking)))
        return [places[i] for i in order]

    def passed_on(self) -> np.ndarray:
        """How much of what the concept adds passes through the first neurons by signal, 1 through all: [count]."""
        signal = torch.cat([score.signal for score in self.scores.values()]).clamp(min=0)
        passed: np.ndarray = signal.sort(descending=True).values.cumsum(0).numpy()
        return passed / (passed[-1] or 1)  # where no neuron responds, nothing is

    @property
    def effects_measured(self) -> bool:
        return all(score.effect is not None for score in self.scores.values())

    def told_apart(self, ranking: Ranking) -> bool:
        """Whether what neurons are ranked by differs between any two of them."""
        return bool(np.ptp(self._measure(ranking)) > 0)

    def agreement(self, one: Ranking, other: Ranking) -> float:
        """Spearman's rank correlation of two rankings over all neurons; each must tell some apart."""
        return float(stats.spearmanr(self._measure(one), self._measure(other)).statistic)

    def significant(self) -> int:
        """How many neurons differ when at most FALSE_DISCOVERIES of them may do so by chance."""
        p = self._sorted_p()
        allowed = FALSE_DISCOVERIES * torch.arange(1, len(p) + 1) / len(p)
        below = (p <= allowed).nonzero()
        return int(below[-1]) + 1 if len(below) else 0

    def expected_by_chance(self, count: int) -> float:
        """How many neurons would be as sure as the `count` surest, if the concept changed none."""
        p = self._sorted_p()
        return len(p) * p[count - 1].item() if count else 0.0

    def _sorted_p(self) -> torch.Tensor:
        return torch.cat([score.p for score in self.scores.values()]).sort().values

    def _measure(self, ranking: Ranking) -> np.ndarray:
        """What a ranking goes by, of all neurons."""
        ranking = Ranking.parse(ranking, "rank by")
        if ranking is Ranking.Z:
            return torch.cat([score.z.abs() for score in self.scores.values()]).numpy()
        if ranking is Ranking.SIGNAL:
            return torch.cat([score.signal for score in self.scores.values()]).numpy()
        measured = [score.effect for score in self.scores.values() if score.effect is not None]
        if not self.effects_measured:
            raise ValueError("rank by: the effect of these neurons was not measured; use LoCo Neuron Effects on them")
        return torch.cat(measured).numpy()


@torch.no_grad()
def detect_neurons(
    engine: Engine,
    contrast: Contrast,
    layers: LayerSet,
    part: Part = Part.BOTH,
    tokens: NeuronTokens = NeuronTokens.TAIL,
    on_layer: Callable[[int, int], None] = lambda done, total: None,
) -> Neurons:
    """Scores every neuron of the layers' keys and values, or of one of them (`part`).

    One layer's weights are in memory at a time. `on_layer(done, total)` is called after each.
    """
    part, tokens = Part.parse(part, "part"), NeuronTokens.parse(tokens, "tokens")
    engine.layers.chosen(layers)
    if not len(layers):
        raise ValueError("layers: empty; give at least one, like 8-9")
    with_concept, without = (tuple(dict.fromkeys(prompts)) for prompts in (contrast.concept, contrast.without))
    _check_prompts(with_concept, without)
    groups = [[without.index(prompt) for prompt in group] for group in contrast.others]
    taken = {row for group in groups for row in group}
    plain = [row for row in range(len(without)) if row not in taken]
    if not plain:
        raise ValueError("without: every prompt holds another concept; give plain ones too, like 'a photo of a cat'")
    with_samples = _samples(engine.encode(with_concept), tokens)
    without_samples = _samples(engine.encode(without), tokens)
    width = with_samples.shape[1]
    engine.layers.check_width(width, "concept")
    scores: dict[Place, NeuronScores] = {}
    for done, layer in enumerate(layers, 1):
        for projection, weight in zip(PROJECTIONS, engine.key_value_weights(layer), strict=True):
            if projection in part.projections:
                outputs = [samples.to(weight.dtype) @ weight.T for samples in (with_samples, without_samples)]
                scores[layer, projection] = _scores(outputs[0].double(), outputs[1].double(), plain, groups)
        on_layer(done, len(layers))
    return Neurons(scores, layers, width, tokens, with_concept, without, engine.text_encoder, contrast.taken)


def _check_prompts(with_concept: Sequence[str], without_concept: Sequence[str]) -> None:
    for name, prompts in (("concept", with_concept), ("without", without_concept)):
        if len(prompts) < FEWEST_PROMPTS:
            raise ValueError(
                f"{name}: {len(prompts)} different prompts; a statistic needs {FEWEST_PROMPTS} or more "
                "(a name makes one of each plain prompt in 'without')"
            )
    both = set(with_concept) & set(without_concept)
    if both:
        raise ValueError(f"without: {min(both)!r} is a prompt with the concept too; the two sets must differ")


def _samples(embeddings: Sequence[TextEmbedding], tokens: NeuronTokens) -> torch.Tensor:
    """One row per prompt: the mean of its chosen tokens, [n, d] in float64. The chunks of a long prompt count alike."""
    rows = []
    for embedding in embeddings:
        if not torch.isfinite(embedding.tokens).all():
            raise ValueError(f"text encoder: NaN or Inf in the embedding of {embedding.prompt!r}")
        chosen: list[list[int]] = [list(tail) for tail in embedding.tails]
        if tokens is NeuronTokens.LAST_SUBJECT:
            chosen = [[chunk.last_subject] for chunk in embedding.chunks]
        elif tokens is NeuronTokens.LAST_PADDED:
            chosen = [[chunk.stop - 1] for chunk in embedding.chunks]
        own = embedding.tokens.double().cpu()
        rows.append(torch.stack([own[part].mean(0) for part in chosen]).mean(0))
    return torch.stack(rows)


def _scores(
    concept: torch.Tensor, other: torch.Tensor, plain: Sequence[int], groups: Sequence[Sequence[int]]
) -> NeuronScores:
    """Of outputs [n_s, d_out] and [n_n, d_out]; `plain` and `groups` are rows of the latter."""
    if not (torch.isfinite(concept).all() and torch.isfinite(other).all()):
        raise ValueError("model: NaN or Inf in a projection of the prompts; its weights are damaged")
    # A projection whose outputs are all zero has no size to measure by; its neurons do not differ: z is 0, p is 1.
    floor = VARIANCE_FLOOR * torch.cat([concept, other]).square().mean().clamp(min=NO_OUTPUT)
    counts = len(concept), len(other)
    means = concept.mean(0), other.mean(0)
    variances = [outputs.var(0, unbiased=False).clamp(min=floor) for outputs in (concept, other)]
    z = (means[0] - means[1]) / (variances[0] / counts[0] + variances[1] / counts[1]).sqrt()
    plain_mean = other[plain].mean(0)
    signal = (means[0] - plain_mean).square()
    if groups:
        others = torch.stack([other[rows].mean(0) - plain_mean for rows in groups])
        signal -= OTHERS_SHARE * others.square().mean(0)
    return NeuronScores(z, _welch_p(means, variances, counts), signal, plain_mean)


def _welch_p(means: Sequence[torch.Tensor], variances: Sequence[torch.Tensor], counts: Sequence[int]) -> torch.Tensor:
    """Two-sided p-values [d_out] of Welch's t-test; the variances are the samples' own, without Bessel's correction."""
    deviations = [(variance * n / (n - 1)).sqrt() for variance, n in zip(variances, counts, strict=True)]
    result = stats.ttest_ind_from_stats(
        means[0].numpy(), deviations[0].numpy(), counts[0], means[1].numpy(), deviations[1].numpy(), counts[1], False
    )
    return torch.from_numpy(np.asarray(result.pvalue))
