"""ComfyUI as an Engine.

engine = ComfyEngine(model, clip, vae, read_layers(model))
images = engine.generate(rows, sampling)
"""

from __future__ import annotations

import logging
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
from .attention import AttentionWatch
from .branches import EVERYWHERE, tell_branches
from .digest import model_digest
from .injection import conditioning_of, intervene
from .memory import check_room_for_images, out_of_memory, rows_at_once
from .samplers import EulerPath, one_prediction, row_sampler
from .text_encoder import concept_rows, encode, text_encoder
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
        self._longest = 0  # prompt, in tokens
        self._concepts: dict[tuple[str, str], list[int]] = {}

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
        embeddings = encode(self._clip, prompts, self._model, joint=self.layers.family.joint)
        self._longest = max([self._longest, *(len(embedding.tokens) for embedding in embeddings)])
        return embeddings

    def generate(
        self, rows: Sequence[Row], sampling: Sampling, on_step: Callable[[], None] | None = None
    ) -> torch.Tensor:
        """All rows in one sampler call, or in several where memory is short. Cancel ends it at the next step."""
        check_room_for_images(len(rows), sampling)

        def images(part: list[int]) -> torch.Tensor:
            own = [rows[number] for number in part]
            sampler = row_sampler(sampling.sampler, [row.seed for row in own])
            return self._decode(self._sample(self._model, own, sampling, sampler, on_step))

        return self._in_parts(images, rows, sampling)

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

        def latents(part: list[int]) -> torch.Tensor:
            sampler = EulerPath(steps, None if begun is None else begun[part])
            self._sample(self._model, [rows[number] for number in part], sampling, sampler.of_the_host(), on_step)
            return torch.stack(sampler.latents, 1)

        return self._in_parts(latents, rows, sampling)

    def predict(self, rows: Sequence[Row], latents: torch.Tensor, sampling: Sampling, step: int) -> torch.Tensor:
        """The denoised latents that the model predicts for each row, without guidance: [len(rows), C, h, w]."""
        model, unguided = self._unguided(), replace(sampling, guidance=1.0)
        into_denoiser = model.get_model_object("latent_format").process_in

        def predicted(part: list[int]) -> torch.Tensor:
            own, sampler = [rows[number] for number in part], one_prediction(latents[part], step)
            return into_denoiser(self._sample(model, own, unguided, sampler)).float().cpu()

        return self._in_parts(predicted, rows, sampling)

    def attention_scores(
        self, rows: Sequence[Row], latents: torch.Tensor, sampling: Sampling, step: int
    ) -> torch.Tensor:
        """As an AttentionEngine, of models whose blocks change the text."""
        unguided = replace(sampling, guidance=1.0)

        def scored(part: list[int]) -> torch.Tensor:
            own = [replace(rows[number], intervention=None) for number in part]
            concepts = [self._concept_rows(rows[number]) for number in part]
            watch, model = AttentionWatch([row.embedding for row in own], concepts, len(self.layers)), self._unguided()
            watch.attach(model)
            self._sample(model, own, unguided, one_prediction(latents[part], step))
            return watch.scores

        return self._in_parts(scored, rows, sampling)

    def _concept_rows(self, row: Row) -> list[int]:
        """The rows of its embedding that the other prompt lacks, found once."""
        prompts = row.embedding.prompt, row.intervention.embedding.prompt
        if prompts not in self._concepts:
            self._concepts[prompts] = concept_rows(self._clip, row.embedding, row.intervention.embedding.prompt)
        return self._concepts[prompts]

    def _unguided(self) -> ModelPatcher:
        """A clone without what other nodes put in for guidance."""
        model = self._model.clone()
        for name in OF_GUIDANCE:
            model.model_options.pop(name, None)
        return model

    def _in_parts(
        self, make: Callable[[list[int]], torch.Tensor], rows: Sequence[Row], sampling: Sampling
    ) -> torch.Tensor:
        """What `make` makes of the rows of these numbers, in as many parts as memory and prompts of several lengths
        need: blocks that change the text get no repeated tokens.
        """
        lengths = [len(row.embedding.tokens) if self.layers.family.joint else 0 for row in rows]
        order = sorted(range(len(rows)), key=lambda number: lengths[number])
        made, start, most = [], 0, rows_at_once(self._model, len(rows), sampling)
        while start < len(rows):
            stop = min(len(rows), start + min(most, self._most_rows or most))
            part = [number for number in order[start:stop] if lengths[number] == lengths[order[start]]]
            try:
                made.append(make(part))
                start += len(part)
                continue
            except Exception as error:
                if len(part) == 1 or not out_of_memory(error):
                    raise
            self._most_rows = len(part) // 2
            logger.warning("out of memory with %d images at once; going on with %d", len(part), self._most_rows)
            comfy.model_management.soft_empty_cache()
        together = torch.cat(made)
        if order == list(range(len(rows))):
            return together  # and no copy of it, for which memory may be short
        return together[torch.tensor(order).argsort()]

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
        intervene(model, rows, self.layers, self._longest)
        latent = torch.zeros(1, 4, sampling.height // 8, sampling.width // 8)
        latent = comfy.sample.fix_empty_latent_channels(model, latent)  # [1, C, h, w], or [1, C, 1, h, w] of video's
        noise = torch.cat([comfy.sample.prepare_noise(latent, row.seed) for row in rows])
        positive = conditioning_of([row.embedding for row in rows])
        if sampling.negative_prompt not in self._negatives:  # once, or a GPU would swap models at every batch
            (self._negatives[sampling.negative_prompt],) = self.encode([sampling.negative_prompt])
        negative = conditioning_of([self._negatives[sampling.negative_prompt]])

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
            latent.expand(len(rows), *latent.shape[1:]),
            callback=callback,
            disable_pbar=True,
            seed=rows[0].seed,
        )
        if not torch.isfinite(samples).all():
            raise ValueError("model: NaN or Inf in the sampled latents; try a float32 U-Net or another sampler")
        return samples

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        images = self._vae.decode(latents).float().cpu()
        images = images.reshape(-1, *images.shape[-3:])  # a VAE of videos gives each its one frame
        if not torch.isfinite(images).all():
            raise ValueError("vae: NaN or Inf in an image; start ComfyUI with --fp32-vae, or load another VAE")
        return images

    def key_value_weights(self, layer: int) -> tuple[torch.Tensor, ...]:
        if self.layers.family.joint:
            names = (self.layers.text_in,)
        else:
            names = tuple(self.layers.projection(layer, projection) for projection in PROJECTIONS)
        return tuple(effective_weight(self._model, name) for name in names)


def _sigmas(model: ModelPatcher, sampling: Sampling) -> torch.Tensor:
    """The noise levels of a run: [steps + 1]."""
    return comfy.samplers.KSampler(
        model, sampling.steps, model.load_device, sampling.sampler, sampling.scheduler
    ).sigmas
