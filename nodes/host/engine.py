"""ComfyUI as an Engine: the only place in the pack that touches a ModelPatcher, a CLIP object or a sampler."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Sequence
from functools import cached_property

import comfy.lora
import comfy.model_management
import comfy.sample
import comfy.samplers
import numpy as np
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE

from ...loco_core.models.engine import Row, Sampling, TextEmbedding
from ...loco_core.models.layers import CrossAttentionLayer, LayerSet
from ...loco_core.neurons.detection import KEYS, VALUES
from .branches import KEY, tell_branches
from .samplers import row_sampler

logger = logging.getLogger(__name__)

END_OF_TEXT = 49407
CHUNK = 77
"""CLIP reads a long prompt in chunks of this many tokens, special tokens included."""
HOST_MARGIN = 1.5
"""By which the host multiplies its own estimate of a denoiser call's memory before it joins chunks of rows."""

_LAYER_NAME = re.compile(r"(input|middle|output)_blocks?(?:\.(\d+))?\.\d+\.transformer_blocks\.(\d+)\.attn2")


def cross_attention_layers(model: ModelPatcher) -> dict[CrossAttentionLayer, str]:
    """The model's cross-attention layers in forward order, each with its module's name in the checkpoint.

    The middle block is addressed as block 0 by the host's patches, wherever its weights are.
    """
    layers: dict[CrossAttentionLayer, str] = {}
    for name, _ in model.get_model_object("diffusion_model").named_modules():
        found = _LAYER_NAME.fullmatch(name)
        if found:
            block, number, transformer_index = found[1], int(found[2] or 0), int(found[3])
            if block == "middle":
                number = 0
            layers[CrossAttentionLayer(len(layers), block, number, transformer_index)] = f"diffusion_model.{name}"
    if not layers or model.model.model_config.clip_target() is None:  # Stable Video Diffusion, Zero123: read an image
        raise ValueError(
            "model: it has no cross-attention layers that read the prompt; use Stable Diffusion 1.x, 2.x or SDXL"
        )
    return layers


def context_width(model: ModelPatcher) -> int:
    """The width of the embeddings that the model's cross-attention reads."""
    name = next(iter(cross_attention_layers(model).values()))
    return model.get_model_object(f"{name}.to_k").in_features


def located(model: ModelPatcher, layers: LayerSet) -> list[CrossAttentionLayer]:
    """Where the chosen layers are in this model; an error if they were chosen for another kind of model."""
    known = tuple(cross_attention_layers(model))
    if layers.layer_count != len(known):
        raise ValueError(f"layers: chosen for a model with {layers.layer_count} layers; this model has {len(known)}")
    return [known[index] for index in layers]


def repeat_tokens(tokens: torch.Tensor, length: int) -> torch.Tensor:
    """[..., T, d] as [..., length, d], a multiple of T: the softmax over repeated tokens gives the same attention."""
    return torch.cat([tokens] * (length // tokens.shape[-2]), dim=-2)


def encode(clip: CLIP, prompts: Sequence[str]) -> list[TextEmbedding]:
    """Text embeddings of prompts at weight 1."""
    embeddings = []
    for prompt in prompts:
        comfy.model_management.throw_exception_if_processing_interrupted()
        towers = clip.tokenize(prompt)
        towers = {
            tower: [[(token, 1.0, *rest) for token, _, *rest in chunk] for chunk in chunks]
            for tower, chunks in towers.items()
        }
        tokens, pooled = clip.encode_from_tokens(towers, return_pooled=True)
        if not torch.isfinite(tokens).all():
            raise ValueError(f"clip: NaN or Inf in the text embedding of {prompt!r}")
        chunks = next(iter(towers.values()))
        last_subject = CHUNK * (len(chunks) - 1) + _end_of_text(chunks[-1]) - 1
        pooled = None if pooled is None else pooled[0].float().cpu()
        embeddings.append(TextEmbedding(prompt, tokens[0].float().cpu(), last_subject, pooled))
    return embeddings


def text_encoder(clip: CLIP) -> str:
    """Which text encoder, and at which layer it is read, as CLIP Set Last Layer says it."""
    layer = "last layer as the model's default" if clip.layer_idx is None else f"stop_at_clip_layer {clip.layer_idx}"
    return f"{type(clip.cond_stage_model).__name__}, {layer}"


def _end_of_text(chunk: list[tuple]) -> int:
    """The position of the first end-of-text token in a chunk of (token, weight); a textual inversion is a tensor."""
    for position, (token, *_) in enumerate(chunk):
        if not isinstance(token, torch.Tensor) and token == END_OF_TEXT:
            return position
    raise ValueError(
        "clip: its tokens have no end-of-text token; use the CLIP of a Stable Diffusion or SDXL checkpoint"
    )


def to_image(picture: np.ndarray) -> torch.Tensor:
    """A uint8 picture [H, W, 3] as the host's IMAGE: float32 [1, H, W, 3] in 0..1."""
    return torch.from_numpy(picture).float().div(255)[None]


class ComfyEngine:
    """An Engine on a model, its text encoder and its VAE, as ComfyUI's loaders give them."""

    def __init__(self, model: ModelPatcher, clip: CLIP, vae: VAE) -> None:
        self._model, self._clip, self._vae = model, clip, vae
        self._negatives: dict[str, TextEmbedding] = {}
        self._most_rows: int | None = None  # in one sampler call, once memory has run out

    @cached_property
    def _names(self) -> dict[CrossAttentionLayer, str]:
        return cross_attention_layers(self._model)

    @cached_property
    def layers(self) -> tuple[CrossAttentionLayer, ...]:
        return tuple(self._names)

    def encode(self, prompts: Sequence[str]) -> list[TextEmbedding]:
        return encode(self._clip, prompts)

    def generate(
        self, rows: Sequence[Row], sampling: Sampling, on_step: Callable[[], None] | None = None
    ) -> torch.Tensor:
        """All rows in one sampler call, or in several where memory is short. Cancel ends it at the next step."""
        _check_room_for_images(len(rows), sampling)
        images, most = [], _rows_at_once(self._model, len(rows), sampling)
        while rows:
            batch = rows[: min(most, self._most_rows or most)]
            try:
                images.append(self._decode(self._sample(batch, sampling, on_step)))
                rows = rows[len(batch) :]
                continue
            except Exception as error:
                if len(batch) == 1 or not _out_of_memory(error):
                    raise
            self._most_rows = len(batch) // 2
            logger.warning("out of memory with %d images at once; going on with %d", len(batch), self._most_rows)
            comfy.model_management.soft_empty_cache()
        return torch.cat(images)

    def _sample(self, rows: Sequence[Row], sampling: Sampling, on_step: Callable[[], None] | None) -> torch.Tensor:
        """The latents of all rows."""
        model = self._model.clone()
        tell_branches(model)
        model.set_model_attn2_patch(_InterventionPatch(rows, self.layers))
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

        schedule = comfy.samplers.KSampler(
            model, sampling.steps, model.load_device, sampling.sampler, sampling.scheduler
        )
        samples = comfy.sample.sample_custom(
            model,
            noise,
            sampling.guidance,
            row_sampler(sampling.sampler, [row.seed for row in rows]),
            schedule.sigmas,
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
        name = self._names[self.layers[layer]]
        keys, values = (effective_weight(self._model, f"{name}.{part}.weight") for part in ("to_k", "to_v"))
        return keys, values


def _out_of_memory(error: Exception) -> bool:
    """Whether the host would call this an out-of-memory error; without a GPU it may say so of every exception."""
    cancelled = isinstance(error, comfy.model_management.InterruptProcessingException)
    return not cancelled and comfy.model_management.is_oom(error)


def _check_room_for_images(count: int, sampling: Sampling) -> None:
    """The images of one call are kept in main memory, whatever device makes them; twice while they are put together."""
    needed = 2 * 12 * count * sampling.width * sampling.height
    free = comfy.model_management.get_free_memory(torch.device("cpu"))
    if needed > free:
        raise ValueError(
            f"batch rows: {count} images of {sampling.width} x {sampling.height} pixels take {needed / 1e9:.1f} GB of "
            f"memory, {free / 1e9:.1f} GB are free; give at most {max(1, int(count * free / needed))}"
        )


def _rows_at_once(model: ModelPatcher, count: int, sampling: Sampling) -> int:
    """How many of `count` rows go into one sampler call: all, or halved until they fit the free memory.

    Halved, so that a little more or less free memory makes the same batches; one row is tried whatever is free.
    """
    fit, most = int(_free_memory(model) // _memory_per_row(model, sampling)), count
    while most > max(1, fit):
        most //= 2
    if most < count:
        logger.warning("batch rows: memory is free for %d images at once; making %d at a time", max(fit, 0), most)
    return most


def _memory_per_row(model: ModelPatcher, sampling: Sampling) -> float:
    """Bytes that the host sets aside for one row in a denoiser call; it grows with the rows."""
    channels = model.get_model_object("latent_format").latent_channels
    return HOST_MARGIN * model.model.memory_required([1, channels, sampling.height // 8, sampling.width // 8])


def _free_memory(model: ModelPatcher) -> float:
    """Bytes free for sampling on the model's device, once the host has loaded it and put away what it can."""
    device = model.load_device
    free = comfy.model_management.get_free_memory(device)
    if device == model.offload_device:
        return free
    others = [
        loaded.model_loaded_memory()
        for loaded in comfy.model_management.current_loaded_models
        if loaded.device == device and loaded.model is not None and not loaded.model.is_clone(model)
    ]
    return free + sum(others) - (model.model_size() - model.loaded_size())


def _conditioning(embeddings: list[TextEmbedding]) -> list[list]:
    """One conditioning whose rows are the embeddings, repeated to a common number of tokens where they differ."""
    length = math.lcm(*(len(embedding.tokens) for embedding in embeddings))
    extra = {}
    if embeddings[0].pooled is not None:
        extra["pooled_output"] = torch.stack([embedding.pooled for embedding in embeddings])
    return [[torch.stack([repeat_tokens(embedding.tokens, length) for embedding in embeddings]), extra]]


def effective_weight(model: ModelPatcher, key: str) -> torch.Tensor:
    """The weight with all patches on it, in float32 on the CPU. The model itself stays as it is."""
    known = model.get_key_patches(key)
    if key not in known:
        raise ValueError(f"model: its weight {key!r} cannot be read; load the checkpoint in another format")
    (weight, convert), *patches = known[key]
    weight = convert(weight.to("cpu", torch.float32, copy=True), inplace=True)
    return comfy.lora.calculate_weight(patches, weight, key)


class _InterventionPatch:
    """An attn2 patch: gives the layers of each row's intervention that intervention's embedding.

    The host calls it before to_k and to_v with the rows in chunks, one per entry of cond_or_uncond; each chunk holds
    the rows in our order. Only the positive chunks are changed.
    """

    def __init__(self, rows: Sequence[Row], layers: Sequence[CrossAttentionLayer]) -> None:
        self._reads: dict[tuple[str, int, int], list[tuple[int, torch.Tensor, str]]] = {}
        for position, row in enumerate(rows):
            for index in row.intervention.layers if row.intervention else ():
                layer = layers[index]
                address = (layer.block, layer.block_number, layer.transformer_index)
                change = (position, row.intervention.embedding.tokens, row.intervention.part)
                self._reads.setdefault(address, []).append(change)
        self._ready: dict[tuple[int, torch.device, torch.dtype, int], torch.Tensor] = {}

    def __call__(
        self, n: torch.Tensor, context: torch.Tensor, value: torch.Tensor, extra_options: dict
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        reads = self._reads.get((*extra_options["block"], extra_options["block_index"]))
        chunks, run = extra_options["cond_or_uncond"], extra_options[KEY]
        if reads is None or not run.positive_entries & set(chunks):
            return n, context, value
        length = math.lcm(context.shape[1], *(len(tokens) for _, tokens, _ in reads))
        shared = value is context and not any(part in (KEYS, VALUES) for _, _, part in reads)
        context, value = repeat_tokens(context, length), None if shared else repeat_tokens(value, length)
        rows_per_chunk = len(context) // len(chunks)
        for chunk, entry in enumerate(chunks):
            for position, tokens, part in reads if entry in run.positive_entries else ():
                row = chunk * rows_per_chunk + position
                tokens = self._prepared(tokens, context, length)
                if part != VALUES:
                    context[row] = tokens
                if part != KEYS and not shared:
                    value[row] = tokens
        return n, context, context if shared else value

    def _prepared(self, tokens: torch.Tensor, like: torch.Tensor, length: int) -> torch.Tensor:
        """The tokens as `like` is, repeated; made once, for every layer of every step reads them."""
        key = (id(tokens), like.device, like.dtype, length)
        if key not in self._ready:
            self._ready[key] = repeat_tokens(tokens.to(like), length)
        return self._ready[key]
