"""What a probe found, as text."""

from __future__ import annotations

from ..report import Report
from .localize import Localization
from .verdict import Kind

# Windows in the text of a report.
LISTED = 5
# Degrees of freedom from which on an interval says more than the runs themselves.
LEAST_FREEDOM = 3


def localization_text(found: Localization) -> str:
    """Where the difference is made, in a sentence or two, and what follows."""
    make = "makes" if len(found.layers) == 1 else "make"
    made = f"layers {found.layers} {make} {found.share:.0%}"
    if found.kind is Kind.NO_EFFECT:
        return (
            "no effect: the two prompts make hardly any difference here. The model does not know the concept, or the "
            f"prompts say the same to it; of what there is, {made}. Check the spelling, or give other words."
        )
    made += " of the difference between the prompts"
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
    if share.freedom >= LEAST_FREEDOM:
        return f" (95 % interval {share.low:.0%} to {share.high:.0%})"
    runs = found.probe.shares_by_run(found.layers)
    return f" ({runs.min():.0%} to {runs.max():.0%} in {len(runs)} runs)"


def _smallest_text(found: Localization) -> str:
    if found.smallest == found.layers:
        return ""
    many = "alone make" if len(found.smallest) > 1 else "alone makes"
    return f" The smallest set found, layers {found.smallest}, {many} {found.probe.share(found.smallest):.0%}."


def probe_report(found: Localization) -> Report:
    """Where the difference is made; then the figures, and how the lines that asked were taken."""
    return Report((localization_text(found),), (*probe_figures(found), *found.probe.plan.taken))


def probe_figures(found: Localization) -> list[str]:
    """How large the difference is, and where and when it is made."""
    probed, plan = found.probe, found.probe.plan
    first, last = (step / plan.sampling.steps for step in found.acts)
    by_level = ", ".join(
        f"{step / plan.sampling.steps:.0%} {share:.0%}"
        for step, share in zip(plan.steps, probed.shares_by_level(found.layers), strict=True)
    )
    ranked = sorted(found.tried, key=probed.share, reverse=True)[:LISTED]
    shares = "; ".join(f"{window} {probed.share(window):.0%}" for window in ranked)
    images = probed.rows / (plan.sampling.steps * plan.sampling.rows_per_step)
    size = len(found.tried[0])
    figures = [f"layers {found.layers}: {found.share:.0%}{_spread_of_runs(found)} of the difference"]
    if found.rival is not None:
        figures.append(f"the best window apart from them, layers {found.rival}: {probed.share(found.rival):.0%}")
    return [
        *figures,
        f"difference: {probed.size:.0%} of what the whole prompt makes; beside it, layers {found.layers} change "
        f"{probed.off_axis(found.layers):.0%} as much",
        f"shares of the best windows of {size} layer{'s' if size > 1 else ''}: {shares}",
        f"layers {found.layers} by how far the denoising is: {by_level}; most of it from {first:.0%} to {last:.0%}",
        f"probe: {probed.rows} rows of the denoiser, as much as {images:.1f} images of {plan.sampling.steps} steps",
    ]
