"""What a probe found, as text."""

from __future__ import annotations

from .probe import ProbeResult
from .verdict import Kind

# Windows in the text of a report.
LISTED = 5


def probe_text(result: ProbeResult) -> str:
    """The verdict, how large the difference is, and when in the denoising it is made."""
    probed, plan = result.probe, result.probe.plan
    by_level = ", ".join(f"{share:.0%}" for share in probed.shares_by_level(result.layers))
    ranked = sorted(result.tried, key=probed.share, reverse=True)[:LISTED]
    windows = "; ".join(f"{window} {probed.share(window):.0%}" for window in ranked)
    images = probed.rows / (plan.sampling.steps * (1 if plan.sampling.guidance == 1 else 2))
    return "\n".join(
        [
            f"{_verdict(result)}.",
            f"size: the difference between the prompts is {probed.size:.0%} of what the whole prompt makes",
            f"shares of the best windows of {len(result.tried[0])}: {windows}",
            f"share of layers {result.layers}, from pure noise to the image: {by_level}",
            f"cost: {probed.rows} rows of the denoiser, as much as {images:.1f} images of {plan.sampling.steps} steps",
            *plan.taken,
        ]
    )


def _verdict(result: ProbeResult) -> str:
    probed, share = result.probe, result.probe.estimate(result.layers)
    sure = f" ({share.low:.0%} to {share.high:.0%})" if share.freedom else ""
    made = f"layers {result.layers} make {probed.share(result.layers):.0%}{sure} of the difference between the prompts"
    if result.kind is Kind.NO_EFFECT:
        return (
            "the two prompts make hardly any difference here: the model does not know the concept, or the prompts say "
            f"the same to it; of what there is, {made.removesuffix(' of the difference between the prompts')}"
        )
    if result.rival is not None:
        made += f"; the best window apart from them, {result.rival}, makes {probed.share(result.rival):.0%}"
    return f"{result.kind}: {made}"
