"""The planted transformer as the host builds it: SD 3's class, narrow."""

from __future__ import annotations

# The first rows of a prompt's embedding, which are all that it gets: prompts of the demo's world are no longer.
TOKENS = 24
WIDTH = 128
CONFIG = {
    "in_channels": 4,
    "patch_size": 2,
    "depth": 2,
    "num_blocks": 12,
    "input_size": None,
    "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": WIDTH, "out_features": WIDTH}},
    "qk_norm": "rms",
}
