"""What a probe found, as text."""

from __future__ import annotations

from ..models.layers import LayerSet, ModelLayers
from ..report import Report, percent
from .localize import Localization
from .verdict import Kind

# Windows in the text of a report.
LISTED = 5
# A share that needs a word of explanation.
MORE_THAN_ALL = 1.05


def localization_text(found: Localization) -> str:
    """Where the difference is made, in a sentence or two, and what follows."""
    make = "makes" if len(found.layers) == 1 else "make"
    made = f"{found.layers.named} {make} {percent(found.share)}"
    if found.kind is Kind.NO_EFFECT:
        return (
            "no effect: the two prompts make hardly any difference here. The model does not know the concept, or the "
            f"prompts say the same to it; of what there is, {made}. Check the spelling, or give other words."
        )
    made += " of the difference between the prompts"
    if found.share > MORE_THAN_ALL:
        made += ", more than all layers together: others work against it"
    if found.kind is Kind.NO_RIVAL:
        return f"{found.kind}: {made}, and no other window fits beside them to compare with."
    if found.kind is Kind.SPREAD:
        return f"{found.kind}: the best window, {made}.{_smallest_text(found)}"
    return f"{found.kind}: {made}.{_smallest_text(found)}"


def _spread_of_runs(found: Localization) -> str:
    """How far runs differ: an interval where there are enough of them for one."""
    share = found.probe.estimate(found.layers)
    if share.images == 1:
        return ""
    if share.has_interval:
        return f" (95 % interval {share.low:.0%} to {share.high:.0%})"
    runs = found.probe.shares_by_run(found.layers)
    return f" ({runs.min():.0%} to {runs.max():.0%} in {len(runs)} runs)"


def _smallest_text(found: Localization) -> str:
    if found.smallest == found.layers:
        return ""
    many = "alone make" if len(found.smallest) > 1 else "alone makes"
    return f" The smallest set found, {found.smallest.named}, {many} {percent(found.probe.share(found.smallest))}."


def probe_report(found: Localization) -> Report:
    """Where the difference is made; then the figures, and how the lines that asked were taken."""
    return Report((localization_text(found),), (*probe_figures(found), *found.probe.plan.taken))


def block_report(layers: ModelLayers, *found: LayerSet | None) -> Report:
    """Sets of layers that were found by the names of their blocks, which other programs have too."""
    return Report((), tuple(f"{own.named}: blocks {layers.block_names(own)}" for own in dict.fromkeys(found) if own))


def probe_figures(found: Localization) -> list[str]:
    """How large the difference is, and where and when it is made."""
    probed, plan = found.probe, found.probe.plan
    first, last = (step / plan.sampling.steps for step in found.acts)
    by_level = ", ".join(
        f"{step / plan.sampling.steps:.0%} {percent(share)}"
        for step, share in zip(plan.steps, probed.shares_by_level(found.layers), strict=True)
    )
    ranked = sorted(found.tried, key=probed.share, reverse=True)[:LISTED]
    shares = "; ".join(f"{window} {percent(probed.share(window))}" for window in ranked)
    attention = [_attention_text(found)] if probed.attention is not None else []
    images = probed.rows / (plan.sampling.steps * plan.sampling.rows_per_step)
    size = len(found.tried[0])
    figures = [f"{found.layers.named}: {percent(found.share)}{_spread_of_runs(found)} of the difference"]
    if found.rival is not None:
        figures.append(f"the best window apart from them, {found.rival.named}: {percent(probed.share(found.rival))}")
    return [
        *figures,
        f"difference: {probed.size:.0%} of what the whole prompt makes; beside it, {found.layers.named} change "
        f"{probed.off_axis(found.layers):.0%} as much",
        f"shares of the best windows of {size} layer{'s' if size > 1 else ''}: {shares}",
        *attention,
        f"{found.layers.named} by how far the denoising is: {by_level}; most of it from {first:.0%} to {last:.0%}",
        f"probe: {probed.rows} rows of the denoiser, as much as {images:.1f} images of {plan.sampling.steps} steps",
    ]


def _attention_text(found: Localization) -> str:
    """The windows as attention ranks them."""
    scores = found.attention_shares
    ranked = sorted(found.tried, key=lambda window: -scores[window])[:LISTED]
    listed = "; ".join(f"{window} {percent(scores[window])}" for window in ranked)
    return (
        f"by attention, what the concept's own words give the image there, beside the window with most: {listed}; this "
        "ranks layers, and does not say how many are needed"
    )
