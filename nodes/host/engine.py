"""ComfyUI as an Engine.

engine = ComfyEngine(model, clip, vae, read_layers(model))
images = engine.generate(rows, sampling)
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import comfy.model_management
import comfy.sample
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE

from ...loco_core.models.engine import Row, Sampling, TextEmbedding
from ...loco_core.models.layers import PROJECTIONS, ModelLayers
from ...loco_core.neurons.ablation import Ablation
from .ablation import ablate
from .branches import EVERYWHERE, tell_branches
from .digest import model_digest
from .families import unet
from .injection import InterventionPatch
from .memory import check_room_for_images, out_of_memory, rows_at_once
from .samplers import EulerPath, one_prediction, row_sampler
from .text_encoder import encode, text_encoder
from .text_patch import repeat_tokens
from .weights import effective_weight

logger = logging.getLogger(__name__)

# What other nodes put in to change what becomes of the positive and the negative prompt's predictions.
OF_GUIDANCE = ("sampler_cfg_function", "sampler_pre_cfg_function", "sampler_post_cfg_function")


class ComfyEngine:
    """An Engine on a model, its text encoder and its VAE, as ComfyUI's loaders give them.

    Without a VAE it predicts, and makes no images.
    """

    def __init__(self, model: ModelPatcher, clip: CLIP, vae: VAE | None, layers: ModelLayers) -> None:
        self._model, self._clip, self._vae, self.layers = model, clip, vae, layers
        self._negatives: dict[str, TextEmbedding] = {}
        self._most_rows: int | None = None  # in one sampler call, once memory has run out

    @property
    def text_encoder(self) -> str:
        return text_encoder(self._clip)

    def digest(self) -> str:
        return model_digest(self._model, self._clip, self._vae)

    def ablated(self, change: Ablation) -> ComfyEngine:
        """An Engine on the same model with this ablation."""
        model = ablate(self._model, self.layers, change, EVERYWHERE)
        return ComfyEngine(model, self._clip, self._vae, self.layers)

    def encode(self, prompts: Sequence[str]) -> list[TextEmbedding]:
        return encode(self._clip, prompts)

    def generate(
        self, rows: Sequence[Row], sampling: Sampling, on_step: Callable[[], None] | None = None
    ) -> torch.Tensor:
        """All rows in one sampler call, or in several where memory is short. Cancel ends it at the next step."""
        check_room_for_images(len(rows), sampling)

        def images(part: slice) -> torch.Tensor:
            own = rows[part]
            sampler = row_sampler(sampling.sampler, [row.seed for row in own])
            return self._decode(self._sample(self._model, own, sampling, sampler, on_step))

        return self._in_parts(images, len(rows), sampling)

    def sigmas(self, sampling: Sampling) -> list[float]:
        """The noise levels that a run passes: before each step, and after the last. [steps + 1]"""
        return _sigmas(self._model, sampling).tolist()

    def latents_at(
        self,
        rows: Sequence[Row],
        sampling: Sampling,
        steps: Sequence[int],
        on_step: Callable[[], None] | None = None,
        begun: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """What the rows' runs are at before these steps: [len(rows), len(steps), C, h, w] on the CPU."""

        def latents(part: slice) -> torch.Tensor:
            sampler = EulerPath(steps, None if begun is None else begun[part])
            self._sample(self._model, rows[part], sampling, sampler.of_the_host(), on_step)
            return torch.stack(sampler.latents, 1)

        return self._in_parts(latents, len(rows), sampling)

    def predict(self, rows: Sequence[Row], latents: torch.Tensor, sampling: Sampling, step: int) -> torch.Tensor:
        """The denoised latents that the model predicts for each row, without guidance: [len(rows), C, h, w]."""
        unguided = replace(sampling, guidance=1.0)
        model = self._model.clone()
        for name in OF_GUIDANCE:
            model.model_options.pop(name, None)
        into_denoiser = model.get_model_object("latent_format").process_in

        def predicted(part: slice) -> torch.Tensor:
            sampler = one_prediction(latents[part], step)
            return into_denoiser(self._sample(model, rows[part], unguided, sampler)).float().cpu()

        return self._in_parts(predicted, len(rows), sampling)

    def _in_parts(self, make: Callable[[slice], torch.Tensor], count: int, sampling: Sampling) -> torch.Tensor:
        """What `make` makes of `count` rows, in as many parts as memory needs."""
        made, start, most = [], 0, rows_at_once(self._model, count, sampling)
        while start < count:
            part = slice(start, min(count, start + min(most, self._most_rows or most)))
            size = part.stop - part.start
            try:
                made.append(make(part))
                start = part.stop
                continue
            except Exception as error:
                if size == 1 or not out_of_memory(error):
                    raise
            self._most_rows = size // 2
            logger.warning("out of memory with %d images at once; going on with %d", size, self._most_rows)
            comfy.model_management.soft_empty_cache()
        return torch.cat(made)

    def _sample(
        self,
        model: ModelPatcher,
        rows: Sequence[Row],
        sampling: Sampling,
        sampler: comfy.samplers.Sampler,
        on_step: Callable[[], None] | None = None,
    ) -> torch.Tensor:
        """The latents of all rows, as the VAE takes them."""
        model = model.clone()
        tell_branches(model)
        unet.add_patch(model, InterventionPatch(rows, self.layers))
        latent = torch.zeros(1, 4, sampling.height // 8, sampling.width // 8)
        latent = comfy.sample.fix_empty_latent_channels(model, latent)
        noise = torch.cat([comfy.sample.prepare_noise(latent, row.seed) for row in rows])
        positive = _conditioning([row.embedding for row in rows])
        if sampling.negative_prompt not in self._negatives:  # once, or a GPU would swap models at every batch
            (self._negatives[sampling.negative_prompt],) = self.encode([sampling.negative_prompt])
        negative = _conditioning([self._negatives[sampling.negative_prompt]])

        def callback(step: int, denoised: torch.Tensor, x: torch.Tensor, total_steps: int) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            if on_step:
                on_step()

        samples = comfy.sample.sample_custom(
            model,
            noise,
            sampling.guidance,
            sampler,
            _sigmas(model, sampling),
            positive,
            negative,
            latent.expand(len(rows), -1, -1, -1),
            callback=callback,
            disable_pbar=True,
            seed=rows[0].seed,
        )
        if not torch.isfinite(samples).all():
            raise ValueError("model: NaN or Inf in the sampled latents; try a float32 U-Net or another sampler")
        return samples

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        images = self._vae.decode(latents).float().cpu()
        if not torch.isfinite(images).all():
            raise ValueError("vae: NaN or Inf in an image; start ComfyUI with --fp32-vae, or load another VAE")
        return images

    def key_value_weights(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        names = (self.layers.projection(layer, projection) for projection in PROJECTIONS)
        keys, values = (effective_weight(self._model, name) for name in names)
        return keys, values


def _sigmas(model: ModelPatcher, sampling: Sampling) -> torch.Tensor:
    """The noise levels of a run: [steps + 1]."""
    return comfy.samplers.KSampler(
        model, sampling.steps, model.load_device, sampling.sampler, sampling.scheduler
    ).sigmas


def _conditioning(embeddings: list[TextEmbedding]) -> list[list]:
    """One conditioning whose rows are the embeddings, repeated to a common number of tokens where they differ."""
    length = math.lcm(*(len(embedding.tokens) for embedding in embeddings))
    extra = {}
    if embeddings[0].pooled is not None:
        extra["pooled_output"] = torch.stack([embedding.pooled for embedding in embeddings])
    return [[torch.stack([repeat_tokens(embedding.tokens, length) for embedding in embeddings]), extra]]
