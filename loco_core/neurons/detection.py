"""Neurons: which output dimensions of the located to_k and to_v tell prompts with a concept from prompts without it,
and what takes the place of their outputs (paper, section 7; the authors' code).

A neuron is one output dimension of a layer's W_K or W_V. Neither has a bias, so its output is a linear function of a
token's embedding: detection needs no image, only embeddings and one layer's weights at a time. Neurons are ranked by
z = (mean_s - mean_n) / sqrt(var_s / n_s + var_n / n_n) over prompts with (s) and without (n) the concept. One prompt is
one sample, the mean over its chosen tokens: the tokens of a prompt are not independent of each other.

z tells how surely a neuron differs, not how much of the concept passes through it. So there is a second ranking, by
signal = (mean_s - mean_p)^2 - OTHERS_SHARE x mean over other concepts k of (mean_k - mean_p)^2, where p are the plain
prompts: what the concept adds to plain prompts there, less a share of what others add. A third, by effect, needs images
(see neuron_effects).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats

from ..editing.edit import LAST_SUBJECT, TOKEN_CHOICES, Encode
from ..models.engine import TextEmbedding
from ..models.layers import PARTS, LayerSet

TOKENS = (TOKEN_CHOICES[-1], LAST_SUBJECT, "last padded position")
"""Which tokens of a prompt are its sample: the tail (last subject token to the last padding), as the paper says, and
as the authors' code has it."""
KEYS, VALUES = "keys", "values"
PROJECTIONS = {KEYS: "to_k", VALUES: "to_v"}
MODES = ("mean", "zero", "scale")
CHOICES = ("count", "count per layer", "threshold")
RANKINGS = ("signal", "z", "effect")
OTHERS_SHARE = 0.5
"""Tried on the demo model: with 0 more of the other styles goes, with 1 less of the style itself."""
FALSE_DISCOVERIES = 0.05
"""Share of the neurons said to differ that may do so by chance (Benjamini and Hochberg, 1995)."""
VARIANCE_FLOOR = 1e-8
"""Least variance of a neuron, in units of its layer's mean squared output: below is rounding."""
FEWEST_PROMPTS = 2

Place = tuple[int, str]
"""A layer's index and KEYS or VALUES."""
Weights = Callable[[int], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True, eq=False)
class NeuronScores:
    """Of one to_k or to_v, [d_out] each in float64: the z-score, its two-sided p-value (Welch's t-test), the signal,
    the mean over the plain prompts, and the effect, where it was measured.
    """

    z: torch.Tensor
    p: torch.Tensor
    signal: torch.Tensor
    mean: torch.Tensor
    effect: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class Neurons:
    """What was detected, and all it was made from. width: of the text embeddings read."""

    scores: Mapping[Place, NeuronScores]
    layers: LayerSet
    width: int
    tokens: str
    with_concept: tuple[str, ...]
    without_concept: tuple[str, ...]
    text_encoder: str

    @property
    def count(self) -> int:
        return sum(len(score.z) for score in self.scores.values())

    def ranked(self, ranking: str = RANKINGS[0]) -> list[tuple[Place, int]]:
        """All neurons as (place, output dimension), those of largest signal, |z| or effect first.

        The neurons of a group have the same effect; among them those of larger signal stand first.
        """
        places = [(place, neuron) for place, score in self.scores.items() for neuron in range(len(score.z))]
        order = np.lexsort((-self._measure("signal"), -self._measure(ranking)))
        return [places[i] for i in order]

    @property
    def effects_measured(self) -> bool:
        return all(score.effect is not None for score in self.scores.values())

    def agreement(self, one: str, other: str) -> float:
        """Spearman's rank correlation of two rankings over all neurons."""
        return float(stats.spearmanr(self._measure(one), self._measure(other)).statistic)

    def significant(self) -> int:
        """How many neurons differ when at most FALSE_DISCOVERIES of them may do so by chance."""
        p = self._all("p").sort().values
        allowed = FALSE_DISCOVERIES * torch.arange(1, len(p) + 1) / len(p)
        below = (p <= allowed).nonzero()
        return int(below[-1]) + 1 if len(below) else 0

    def expected_by_chance(self, count: int) -> float:
        """How many neurons would be as sure as the `count` surest, did the concept change none."""
        return len(self._all("p")) * self._all("p").sort().values[count - 1].item() if count else 0.0

    def _measure(self, ranking: str) -> np.ndarray:
        """What a ranking goes by, of all neurons."""
        if ranking not in RANKINGS:
            raise ValueError(f"rank by: {ranking!r}; give one of {', '.join(RANKINGS)}")
        if ranking == "effect" and not self.effects_measured:
            raise ValueError("rank by: the effect of these neurons was not measured; use LoCo Neuron Effects on them")
        values = self._all(ranking)
        return (values.abs() if ranking == "z" else values).numpy()

    def _all(self, name: str) -> torch.Tensor:
        return torch.cat([getattr(score, name) for score in self.scores.values()])


@dataclass(frozen=True, eq=False)
class Replacement:
    """What becomes of some outputs of one to_k or to_v: factor x own + shift. neurons: [k] indices, shift: [k]."""

    neurons: torch.Tensor
    factor: float
    shift: torch.Tensor

    def __call__(self, outputs: torch.Tensor, where: torch.Tensor | None = None) -> torch.Tensor:
        """The outputs [..., T, d_out] with those neurons replaced, at the tokens where `where` [..., T] is true."""
        neurons, shift = self.neurons.to(outputs.device), self.shift.to(outputs)
        own = outputs[..., neurons]
        new = self.factor * own + shift if self.factor else shift.expand_as(own)
        if where is not None:
            new = torch.where(where.to(outputs.device)[..., None], new, own)
        return outputs.index_copy(-1, neurons, new)

    @property
    def scales(self) -> bool:
        """Whether nothing is shifted: then a change of the weights does the same."""
        return not self.shift.any()

    def weight_change(self, weight: torch.Tensor) -> torch.Tensor:
        """What added to a weight [d_out, d] does the same to its outputs, where it `scales`."""
        neurons, change = self.neurons.to(weight.device), torch.zeros_like(weight)
        change[neurons] = (self.factor - 1) * weight[neurons]
        return change


Ablation = Mapping[Place, Replacement]


@torch.no_grad()
def detect_neurons(
    encode: Encode,
    weights: Weights,
    with_concept: Sequence[str],
    without_concept: Sequence[str],
    layers: LayerSet,
    others: Sequence[Sequence[str]] = (),
    part: str = PARTS[0],
    tokens: str = TOKENS[0],
    text_encoder: str = "",
    on_layer: Callable[[int, int], None] = lambda done, total: None,
) -> Neurons:
    """Scores every neuron of the layers' keys and values, or of one of them (`part`).

    `others`: those of `without_concept` that hold another concept each, in groups; the rest is plain. `weights(layer)`
    gives its W_K and W_V; one layer's are in memory at a time. `on_layer(done, total)` after each.
    """
    for name, value, choices in (("part", part, PARTS), ("tokens", tokens, TOKENS)):
        if value not in choices:
            raise ValueError(f"{name}: {value!r}; give one of {', '.join(choices)}")
    if not len(layers):
        raise ValueError("layers: empty; give at least one, like 8-9")
    with_concept, without_concept = (tuple(dict.fromkeys(prompts)) for prompts in (with_concept, without_concept))
    _check_prompts(with_concept, without_concept)
    samples = _samples(encode(with_concept), tokens), _samples(encode(without_concept), tokens)
    groups = [[without_concept.index(prompt) for prompt in group] for group in others]
    taken = {row for group in groups for row in group}
    plain = [row for row in range(len(without_concept)) if row not in taken]
    if not plain:
        raise ValueError("without: every prompt holds another concept; give plain ones too, like 'a photo of a cat'")
    scores: dict[Place, NeuronScores] = {}
    for done, layer in enumerate(layers, 1):
        for name, weight in zip((KEYS, VALUES), weights(layer), strict=True):
            if part in (PARTS[0], name):
                scores[layer, name] = _scores(
                    *(sample.to(weight.dtype) @ weight.T for sample in samples), plain, groups
                )
        on_layer(done, len(layers))
    width = samples[0].shape[1]
    return Neurons(scores, layers, width, tokens, with_concept, without_concept, text_encoder)


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


def _samples(embeddings: Sequence[TextEmbedding], tokens: str) -> torch.Tensor:
    """One row per prompt: the mean of its chosen tokens, [n, d] in float64."""
    rows = []
    for embedding in embeddings:
        if not torch.isfinite(embedding.tokens).all():
            raise ValueError(f"text encoder: NaN or Inf in the embedding of {embedding.prompt!r}")
        last = embedding.last_subject
        chosen = {TOKENS[0]: slice(last, None), TOKENS[1]: slice(last, last + 1), TOKENS[2]: slice(-1, None)}[tokens]
        rows.append(embedding.tokens[chosen].double().cpu().mean(0))
    return torch.stack(rows)


def _scores(
    concept: torch.Tensor, other: torch.Tensor, plain: Sequence[int], groups: Sequence[Sequence[int]]
) -> NeuronScores:
    """Of outputs [n_s, d_out] and [n_n, d_out]; `plain` and `groups` are rows of the latter."""
    concept, other = concept.double(), other.double()
    if not (torch.isfinite(concept).all() and torch.isfinite(other).all()):
        raise ValueError("model: NaN or Inf in a projection of the prompts; its weights are damaged")
    floor = VARIANCE_FLOOR * torch.cat([concept, other]).square().mean()
    difference = concept.mean(0) - other.mean(0)
    biased = [outputs.var(0, unbiased=False).clamp(min=floor) / len(outputs) for outputs in (concept, other)]
    degrees = [len(outputs) - 1 for outputs in (concept, other)]
    unbiased = [error * (n + 1) / n for error, n in zip(biased, degrees, strict=True)]
    freedom = sum(unbiased) ** 2 / sum(error**2 / n for error, n in zip(unbiased, degrees, strict=True))
    welch = difference / sum(unbiased).sqrt()
    p = 2 * torch.from_numpy(stats.t.sf(welch.abs().numpy(), freedom.numpy()))
    base = other[plain].mean(0)
    signal = (concept.mean(0) - base).square()
    if groups:
        signal -= OTHERS_SHARE * torch.stack([other[rows].mean(0) - base for rows in groups]).square().mean(0)
    return NeuronScores(difference / sum(biased).sqrt(), p, signal, base)


def chosen_neurons(
    neurons: Neurons, choice: str, count: int, threshold: float, ranking: str = RANKINGS[0]
) -> dict[Place, torch.Tensor]:
    """The neurons that stand first in the ranking, by place, their dimensions ascending.

    `choice`: "count" of all, "count per layer" (keys and values together), or those with |z| of `threshold` or more.
    """
    if choice not in CHOICES:
        raise ValueError(f"choose by: {choice!r}; give one of {', '.join(CHOICES)}")
    ranked = neurons.ranked(ranking)
    if choice == "threshold":
        ranked = [(place, neuron) for place, neuron in ranked if abs(neurons.scores[place].z[neuron]) >= threshold]
    else:
        groups = [ranked]
        if choice == "count per layer":
            groups = [[one for one in ranked if one[0][0] == layer] for layer in neurons.layers]
        fewest = min(map(len, groups))
        if not 0 <= count <= fewest:
            where = f"layers {neurons.layers}" if choice == "count" else "a layer"
            raise ValueError(f"count: {count}; {where} of these neurons has {fewest}, so give 0 to {fewest}")
        ranked = [neuron for group in groups for neuron in group[:count]]
    return by_place(ranked)


def by_place(neurons: Iterable[tuple[Place, int]]) -> dict[Place, torch.Tensor]:
    """The neurons' output dimensions, ascending, by place."""
    chosen: dict[Place, list[int]] = {}
    for place, neuron in neurons:
        chosen.setdefault(place, []).append(neuron)
    return {place: torch.tensor(sorted(numbers)) for place, numbers in chosen.items()}


def check_mode(mode: str) -> None:
    if mode not in MODES:
        raise ValueError(f"mode: {mode!r}; give one of {', '.join(MODES)}")


def ablation(
    neurons: Neurons, chosen: Mapping[Place, torch.Tensor], mode: str = MODES[0], scale: float = 0.0
) -> Ablation:
    """What becomes of the chosen neurons: the mean over the plain prompts, zero, or `scale` x own."""
    check_mode(mode)
    if not 0 <= scale <= 2:
        raise ValueError(f"scale: {scale}; give 0 to 2")
    factor = scale if mode == "scale" else 0.0
    return {
        place: Replacement(numbers, factor, neurons.scores[place].mean[numbers] * (mode == "mean"))
        for place, numbers in chosen.items()
    }


def neuron_lines(neurons: Neurons) -> list[str]:
    """What was detected, in sentences."""
    found, largest = neurons.significant(), max(float(score.z.abs().max()) for score in neurons.scores.values())
    parts = " and ".join(dict.fromkeys(name for _, name in neurons.scores))
    sentences = [
        f"layers {neurons.layers}, {parts}: {neurons.count} neurons, {len(neurons.with_concept)} prompts with "
        f"the concept, {len(neurons.without_concept)} without; largest |z| {largest:.1f}",
        f"{found} neurons differ ({FALSE_DISCOVERIES:.0%} of them by chance at most); as sure as these, "
        f"{neurons.expected_by_chance(found):.1f} would be by chance alone",
        f"the rankings by signal and by |z| agree to {neurons.agreement('signal', 'z'):.2f} (Spearman)",
        f"text encoder: {neurons.text_encoder}",
    ]
    if not found:
        sentences.insert(
            2, "none is sure: give more prompts, or other layers or tokens; ablating the first of them is a guess"
        )
    if neurons.effects_measured:
        with_signal, with_z = (neurons.agreement("effect", other) for other in ("signal", "z"))
        sentences.append(f"effects measured: they agree with the signal to {with_signal:.2f}, with |z| to {with_z:.2f}")
    return sentences
