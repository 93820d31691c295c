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
    agreement = neurons.agreement(Ranking.SIGNAL, Ranking.Z)
    sentences += [
        f"the rankings by signal and by |z| agree to {agreement:.2f} (Spearman)",
        f"text encoder: {neurons.text_encoder}",
        *neurons.taken,
    ]
    if neurons.effects_measured:
        with_signal = neurons.agreement(Ranking.EFFECT, Ranking.SIGNAL)
        with_z = neurons.agreement(Ranking.EFFECT, Ranking.Z)
        sentences.append(f"effects measured: they agree with the signal to {with_signal:.2f}, with |z| to {with_z:.2f}")
    return sentences
