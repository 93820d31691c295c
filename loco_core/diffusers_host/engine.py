"""diffusers as an Engine: the method from a script, without ComfyUI.

    engine = engine_for(load_pipeline(Path("models/stable-diffusion-v1-5")))
    result = search(engine, scorer, plan, rows_per_batch=4)
    with engine.edited(edit):
        images = engine.generate(rows, sampling)

Kept plain on purpose: it is also the reference against which the ComfyUI engine is tested.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import diffusers
import torch

from ..contents_digest import contents_digest
from ..editing.closed_form import EditOperator
from ..editing.solve import Edit
from ..models.engine import Chunk, Row, Sampling, TextEmbedding
from ..models.families.unet import UNET
from ..models.family import Family
from ..models.layers import PROJECTIONS, ModelLayers, Part
from ..neurons.ablation import Ablation, Replacement
from ..weights_digest import weights_digest
from .families.unet import read_layers
from .pipelines import VAE_FACTOR, Pipeline, scheduler_for


class DiffusersEngine:
    """An Engine on a pipeline of Stable Diffusion 1.x, 2.x or SDXL.

    denoiser: what the pipeline calls its denoiser.
    """

    family: Family = UNET
    factor = VAE_FACTOR
    denoiser = "unet"

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline, self._denoiser = pipeline, getattr(pipeline, self.denoiser)
        self._denoiser.eval().requires_grad_(False)
        self.layers = self._read_layers()
        self._negatives: dict[str, TextEmbedding] = {}

    def _read_layers(self) -> ModelLayers:
        predicts_v = self._pipeline.scheduler.config.prediction_type == "v_prediction"
        return read_layers(self._denoiser, self.family, predicts_v)

    @property
    def chunk_length(self) -> int:
        """How many tokens, with their ends, the text encoder takes: what diffusers cuts a longer prompt to."""
        return self._pipeline.tokenizer.model_max_length

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> list[TextEmbedding]:
        """Text embeddings; a prompt longer than the text encoder takes is an error, for diffusers would cut it."""
        embeddings = []
        for prompt in prompts:
            self._check_length(prompt)
            tokens, pooled = self._embed(prompt)
            if not torch.isfinite(tokens).all():
                raise ValueError(f"text encoder: NaN or Inf in the embedding of {prompt!r}")
            pooled = None if pooled is None else pooled.float().cpu()
            chunk = self._chunk(prompt, len(tokens))
            embeddings.append(TextEmbedding(prompt, tokens.float().cpu(), (chunk,), pooled))
        return embeddings

    def _check_length(self, prompt: str) -> None:
        check_length(prompt, len(self._ids(prompt)), self.chunk_length)

    def _chunk(self, prompt: str, stop: int) -> Chunk:
        """Where the prompt's words are in its embedding of `stop` rows."""
        ids = self._ids(prompt)
        return Chunk(0, int(ids[0] == self._pipeline.tokenizer.bos_token_id), len(ids) - 1, stop)

    def _ids(self, prompt: str) -> list[int]:
        return self._pipeline.tokenizer(prompt).input_ids

    def _embed(self, prompt: str) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Token embeddings [T, d], and the pooled one [p] where the model has one."""
        encoded = self._pipeline.encode_prompt(
            prompt, device=self._denoiser.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        return encoded[0][0], encoded[2][0] if len(encoded) > 2 else None

    @torch.no_grad()
    def generate(
        self, rows: Sequence[Row], sampling: Sampling, on_step: Callable[[], None] | None = None
    ) -> torch.Tensor:
        """All rows at once. An empty negative prompt is encoded, as ComfyUI does; diffusers' SDXL takes zeros."""
        scheduler, negative = self._scheduler(sampling), self._negative(sampling)
        latents = self._noise(rows, sampling) * scheduler.init_noise_sigma
        for timestep in scheduler.timesteps:
            scaled = scheduler.scale_model_input(latents, timestep)
            predicted = self.denoiser_output(scaled, timestep, rows, negative, sampling)
            latents = scheduler.step(predicted, timestep, latents).prev_sample
            if on_step:
                on_step()
        images = self.decode(latents)
        if not torch.isfinite(images).all():
            raise ValueError("model: NaN or Inf in an image; try float32 or another sampler")
        return images

    def sigmas(self, sampling: Sampling) -> list[float]:
        """The noise levels that a run passes: before each step, and after the last. [steps + 1]"""
        sigmas: list[float] = self._scheduler(replace(sampling, sampler="euler")).sigmas.tolist()
        return sigmas

    @torch.no_grad()
    def latents_at(
        self,
        rows: Sequence[Row],
        sampling: Sampling,
        steps: Sequence[int],
        on_step: Callable[[], None] | None = None,
        begun: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """What the rows' runs are at before these steps: [len(rows), len(steps), C, h, w] on the CPU."""
        scheduler, negative = self._scheduler(replace(sampling, sampler="euler")), self._negative(sampling)
        first, last = 0 if begun is None else min(steps), max(steps)
        latents = self._noise(rows, sampling) * scheduler.init_noise_sigma if begun is None else begun
        scheduler.set_begin_index(first)
        passed = {first: latents}
        for step in range(first, last):
            timestep = scheduler.timesteps[step]
            scaled = scheduler.scale_model_input(latents, timestep)
            predicted = self.denoiser_output(scaled, timestep, rows, negative, sampling)
            latents = scheduler.step(predicted, timestep, latents).prev_sample
            passed[step + 1] = latents
            if on_step:
                on_step()
        return torch.stack([passed[step] for step in steps], 1)

    @torch.no_grad()
    def predict(self, rows: Sequence[Row], latents: torch.Tensor, sampling: Sampling, step: int) -> torch.Tensor:
        """The denoised latents that the model predicts for each row, without guidance: [len(rows), C, h, w]."""
        scheduler = self._scheduler(replace(sampling, sampler="euler"))
        scheduler.set_begin_index(step)
        timestep = scheduler.timesteps[step]
        scaled, unguided = scheduler.scale_model_input(latents, timestep), replace(sampling, guidance=1.0)
        predicted = self.denoiser_output(scaled, timestep, rows, rows[0].embedding, unguided)
        return scheduler.step(predicted, timestep, latents).pred_original_sample

    def _scheduler(self, sampling: Sampling) -> diffusers.SchedulerMixin:
        scheduler = scheduler_for(self._pipeline.scheduler, sampling)
        scheduler.set_timesteps(sampling.steps)
        return scheduler

    def _negative(self, sampling: Sampling) -> TextEmbedding:
        if sampling.negative_prompt not in self._negatives:
            (self._negatives[sampling.negative_prompt],) = self.encode([sampling.negative_prompt])
        return self._negatives[sampling.negative_prompt]

    def _noise(self, rows: Sequence[Row], sampling: Sampling) -> torch.Tensor:
        """Each row's own, of variance 1: [len(rows), C, h, w]."""
        shape = (self._channels, sampling.height // self.factor, sampling.width // self.factor)
        return torch.cat([torch.randn(1, *shape, generator=torch.Generator().manual_seed(row.seed)) for row in rows])

    @property
    def _channels(self) -> int:
        """Of the latents."""
        return self._denoiser.config.in_channels

    @torch.no_grad()
    def denoiser_output(
        self,
        scaled: torch.Tensor,
        timestep: torch.Tensor,
        rows: Sequence[Row],
        negative: TextEmbedding,
        sampling: Sampling,
    ) -> torch.Tensor:
        """The denoiser's guided output for scaled latents [N, C, h, w] of `rows`, in float32 on the CPU."""
        if sampling.guidance == 1:
            return self._predicted(scaled, timestep, rows, sampling).float().cpu()
        both = [*rows, *(Row(negative, row.seed) for row in rows)]
        predicted = self._predicted(torch.cat([scaled, scaled]), timestep, both, sampling).float().cpu()
        positive, negated = predicted.chunk(2)
        return negated + sampling.guidance * (positive - negated)

    def _predicted(
        self, scaled: torch.Tensor, timestep: torch.Tensor, rows: Sequence[Row], sampling: Sampling
    ) -> torch.Tensor:
        """The denoiser's output for scaled latents [N, C, h, w] of `rows`."""
        embeddings = [row.embedding for row in rows]
        with self._intervening(rows):
            predicted = self._denoiser(
                self._place(scaled),
                timestep,
                encoder_hidden_states=self._place(torch.stack([embedding.tokens for embedding in embeddings])),
                added_cond_kwargs=self._added(embeddings, sampling),
            ).sample
        return predicted[:, : scaled.shape[1]]  # without the variance, where it is predicted too

    def _added(self, embeddings: Sequence[TextEmbedding], sampling: Sampling) -> dict[str, torch.Tensor]:
        """What SDXL's U-Net is told beside the tokens: pooled embeddings and image sizes."""
        if embeddings[0].pooled is None:
            return {}
        size = [sampling.height, sampling.width]
        pooled = [embedding.pooled for embedding in embeddings if embedding.pooled is not None]
        return {
            "text_embeds": self._place(torch.stack(pooled)),
            "time_ids": self._place(torch.tensor([[*size, 0, 0, *size]] * len(embeddings))),
        }

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents [N, C, h, w] as images [N, H, W, 3] in 0..1, float32 on the CPU; one at a time, to spare memory."""
        vae = self._pipeline.vae
        latents = latents.to(vae.device, vae.dtype) / vae.config.scaling_factor
        latents = latents + (vae.config.get("shift_factor") or 0)
        images = torch.cat([vae.decode(latent[None]).sample for latent in latents])
        return (images.float().cpu() / 2 + 0.5).clamp(0, 1).movedim(1, -1)

    def key_value_weights(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A LoRA counts once it is fused (pipeline.fuse_lora)."""
        keys, values = (self._module(layer, projection).weight for projection in PROJECTIONS)
        return keys.detach().float().cpu().clone(), values.detach().float().cpu().clone()

    def _module(self, layer: int, projection: Part) -> torch.nn.Linear:
        """The module that is W_K or W_V of a layer."""
        return self._denoiser.get_submodule(self.layers.projection(layer, projection))

    def digest(self) -> str:
        parts = (value for value in self._pipeline.components.values() if isinstance(value, torch.nn.Module))
        return weights_digest(weight for module in parts for weight in module.parameters())

    @property
    def text_encoder(self) -> str:
        """Which text encoder, and which of its layers gives the embedding, in words."""
        return f"{type(self._pipeline.text_encoder).__name__}, last layer as the model's default"

    @contextmanager
    def edited(self, edit: Edit, strength: float = 1.0) -> Iterator[None]:
        """Within it, the weights carry the edit; afterwards they are as they were, bit for bit."""
        self.layers.chosen(edit.recipe.layers)
        changes = self._weights(edit.operators)
        if edit.pooled is not None:
            weight = self.pooled_weight().data
            changes.append((weight, edit.pooled.widened(weight.shape[1])))
        with self._changed(changes, strength):
            yield

    @contextmanager
    def ablated(self, ablation: Ablation) -> Iterator[None]:
        """Within it, the ablation acts on all tokens, in both branches, at all steps."""
        handles = []
        try:
            for (layer, projection), replacement in ablation.items():
                module = self._module(layer, projection)
                handles.append(module.register_forward_hook(partial(_replacing, replacement)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def pooled_weight(self) -> torch.nn.Parameter:
        """The first weight that the pooled embedding meets, as its first inputs."""
        return self._denoiser.add_embedding.linear_1.weight

    def _weights(self, operators: Mapping[int, EditOperator]) -> list[tuple[torch.Tensor, EditOperator]]:
        """Each layer's W_K and W_V with the operator to edit them by."""
        return [
            (self._module(layer, projection).weight.data, operator)
            for layer, operator in operators.items()
            for projection in PROJECTIONS
        ]

    @contextmanager
    def _changed(self, changes: Sequence[tuple[torch.Tensor, EditOperator]], strength: float) -> Iterator[None]:
        for weight, operator in changes:
            if operator.width != weight.shape[1]:
                raise ValueError(f"edit: solved for embeddings {operator.width} wide, the model gets {weight.shape[1]}")
        originals = [weight.clone() for weight, _ in changes]
        try:
            for weight, operator in changes:
                weight.copy_(weight.float() + strength * operator.weight_change(weight.float()))
            yield
        finally:
            for (weight, _), original in zip(changes, originals, strict=True):
                weight.copy_(original)

    @contextmanager
    def _intervening(self, rows: Sequence[Row]) -> Iterator[None]:
        """Within it, every layer gives the rows that intervene there their own tokens."""
        placed: dict[TextEmbedding, torch.Tensor] = {}  # most rows share one
        given: dict[tuple[int, Part], dict[int, torch.Tensor]] = {}
        for position, row in enumerate(rows):
            if not row.intervention:
                continue
            embedding = row.intervention.embedding
            if embedding not in placed:
                placed[embedding] = self._place(embedding.tokens)
            for layer, projection in itertools.product(row.intervention.layers, row.intervention.part.projections):
                own = self._layer_input(layer, placed[embedding])
                given.setdefault((layer, projection), {})[position] = own
        handles = []
        try:
            for (layer, projection), by_row in given.items():
                handles.append(self._module(layer, projection).register_forward_pre_hook(partial(_giving, by_row)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _layer_input(self, layer: int, tokens: torch.Tensor) -> torch.Tensor:
        """What W_K and W_V of a layer are multiplied with for a text embedding's tokens: [T, d]."""
        return tokens

    def _place(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self._denoiser.device, self._denoiser.dtype)


class AblatedEngine:
    """A DiffusersEngine that ablates while it makes images."""

    def __init__(self, engine: DiffusersEngine, change: Ablation) -> None:
        self._engine, self._change = engine, change
        self.layers, self.text_encoder = engine.layers, engine.text_encoder
        self.encode, self.key_value_weights, self.sigmas = engine.encode, engine.key_value_weights, engine.sigmas

    def digest(self) -> str:
        """Of the model, and of what becomes of which neurons."""
        return contents_digest([self._engine.digest(), self._change])

    def generate(
        self, rows: Sequence[Row], sampling: Sampling, on_step: Callable[[], None] | None = None
    ) -> torch.Tensor:
        with self._engine.ablated(self._change):
            return self._engine.generate(rows, sampling, on_step)

    def latents_at(
        self,
        rows: Sequence[Row],
        sampling: Sampling,
        steps: Sequence[int],
        on_step: Callable[[], None] | None = None,
        begun: torch.Tensor | None = None,
    ) -> torch.Tensor:
        with self._engine.ablated(self._change):
            return self._engine.latents_at(rows, sampling, steps, on_step, begun)

    def predict(self, rows: Sequence[Row], latents: torch.Tensor, sampling: Sampling, step: int) -> torch.Tensor:
        with self._engine.ablated(self._change):
            return self._engine.predict(rows, latents, sampling, step)


def check_length(prompt: str, count: int, limit: int) -> None:
    """An error for a prompt of more tokens, with its ends, than a text encoder takes."""
    if count > limit:
        raise ValueError(f"prompt: {prompt!r} has {count} tokens with its ends; shorten it to {limit}")


def _giving(
    given: Mapping[int, torch.Tensor], module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]
) -> torch.Tensor:
    """A projection's input in which some rows have other tokens [T, d]; the positive rows come first."""
    tokens = inputs[0].clone()
    for row, other in given.items():
        tokens[row] = other
    return tokens


def _replacing(
    replacement: Replacement, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], outputs: torch.Tensor
) -> torch.Tensor:
    return replacement(outputs)
