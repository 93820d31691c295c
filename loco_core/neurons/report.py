"""What was detected, in sentences."""

from __future__ import annotations

from ..prompts import taken_as_one
from ..report import Report
from .detection import FALSE_DISCOVERIES, Neurons, Ranking


def neuron_report(neurons: Neurons) -> Report:
    """How many neurons differ, how surely; then how the lines that asked were taken, and how far the rankings agree."""
    found = neurons.significant()
    largest = max(float(score.z.abs().max()) for score in neurons.scores.values())
    parts = " and ".join(dict.fromkeys(str(projection) for _, projection in neurons.scores))
    result = [*taken_as_one(neurons.with_concept)]
    result.append(f"{found} of {neurons.count} neurons respond to the concept, in {neurons.layers.named}, {parts}")
    if not found:
        result.append("none is sure: give more prompts, or other layers or tokens; ablating the first is a guess")
    figures = [
        f"{len(neurons.with_concept)} prompts with the concept, {len(neurons.without_concept)} without; largest |z| "
        f"{largest:.1f}",
        f"{FALSE_DISCOVERIES:.0%} of those that respond do by chance at most; as sure as these, "
        f"{neurons.expected_by_chance(found):.1f} would be by chance alone",
        f"the rankings by signal and by |z| {agreement_text(neurons, Ranking.SIGNAL, Ranking.Z)}",
        f"text encoder: {neurons.text_encoder}",
        *neurons.taken,
    ]
    if neurons.effects_measured:
        with_signal = agreement_text(neurons, Ranking.EFFECT, Ranking.SIGNAL)
        with_z = agreement_text(neurons, Ranking.EFFECT, Ranking.Z)
        figures.append(f"effects measured: effect and signal {with_signal}, effect and |z| {with_z}")
        if not neurons.told_apart(Ranking.EFFECT):
            result.append(
                "all effects are the same: no group of these neurons changes the images' scores more than another. Do "
                "not rank by effect; try 'keys and values' or other layers"
            )
    return Report(tuple(result), tuple(figures))


def agreement_text(neurons: Neurons, one: Ranking, other: Ranking) -> str:
    """How far two rankings agree; what ranks nothing agrees with nothing."""
    for ranking in (one, other):
        if not neurons.told_apart(ranking):
            return f"cannot be compared: {ranking} is the same for all neurons"
    return f"agree to {neurons.agreement(one, other):.2f} (Spearman)"
