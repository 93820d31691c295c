"""DeepFloyd IF's first stage: a U-Net whose attention is conditioned on the image and the text at once.

The text's W_K and W_V are projections of their own, with a bias, and every layer normalises the text in its own way:
each layer has its own operator.
"""

from __future__ import annotations

from ..layers import Part
from .unet import UNet


class DeepFloyd(UNet):
    projections = {Part.KEYS: "add_k_proj", Part.VALUES: "add_v_proj"}

    def model_name(self, layer_count: int, width: int) -> str:
        return "DeepFloyd IF"


DEEPFLOYD = DeepFloyd()
