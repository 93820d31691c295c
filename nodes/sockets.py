"""The pack's own socket types."""

from __future__ import annotations

from comfy_api.latest import io

Scorer = io.Custom("LOCO_SCORER")
Layers = io.Custom("LOCO_LAYERS")
Edit = io.Custom("LOCO_EDIT")
Neurons = io.Custom("LOCO_NEURONS")
