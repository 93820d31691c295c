"""What was detected, in sentences."""

from __future__ import annotations

from .detection import FALSE_DISCOVERIES, Neurons, Ranking


def neuron_lines(neurons: Neurons) -> list[str]:
    """How many neurons differ, how surely, how the lines that asked were taken, and how far the rankings agree."""
    found = neurons.significant()
    largest = max(float(score.z.abs().max()) for score in neurons.scores.values())
    parts = " and ".join(dict.fromkeys(str(projection) for _, projection in neurons.scores))
    sentences = [
        f"layers {neurons.layers}, {parts}: {neurons.count} neurons, {len(neurons.with_concept)} prompts with "
        f"the concept, {len(neurons.without_concept)} without; largest |z| {largest:.1f}",
        f"{found} neurons differ ({FALSE_DISCOVERIES:.0%} of them by chance at most); as sure as these, "
        f"{neurons.expected_by_chance(found):.1f} would be by chance alone",
    ]
    if not found:
        sentences.append("none is sure: give more prompts, or other layers or tokens; ablating the first is a guess")
    sentences += [
        f"the rankings by signal and by |z| {agreement_text(neurons, Ranking.SIGNAL, Ranking.Z)}",
        f"text encoder: {neurons.text_encoder}",
        *neurons.taken,
    ]
    if neurons.effects_measured:
        with_signal = agreement_text(neurons, Ranking.EFFECT, Ranking.SIGNAL)
        with_z = agreement_text(neurons, Ranking.EFFECT, Ranking.Z)
        sentences.append(f"effects measured: effect and signal {with_signal}, effect and |z| {with_z}")
        if not neurons.told_apart(Ranking.EFFECT):
            sentences.append(
                "all effects are the same: no group of these neurons changes the images' scores more than another. Do "
                "not rank by effect; try 'keys and values' or other layers"
            )
    return sentences


def agreement_text(neurons: Neurons, one: Ranking, other: Ranking) -> str:
    """How far two rankings agree; what ranks nothing agrees with nothing."""
    for ranking in (one, other):
        if not neurons.told_apart(ranking):
            return f"cannot be compared: {ranking} is the same for all neurons"
    return f"agree to {neurons.agreement(one, other):.2f} (Spearman)"
