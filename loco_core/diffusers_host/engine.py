"""diffusers as an Engine: the method from a script, without ComfyUI.

    plan = SearchPlan(tuple(prompt_pairs("Van Gogh", "a painting", "style")), (0, 1), "style", 2, sampling)
    engine = DiffusersEngine(load_pipeline(Path("models/stable-diffusion-v1-5")))
    result = search(engine, load_scorer(Path("ViT-B-16/open_clip_model.safetensors")), plan, rows_per_batch=4)

Kept plain on purpose: it is also the reference against which the ComfyUI engine is tested.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import diffusers
import torch
from diffusers.models.attention_processor import Attention
from safetensors import SafetensorError

from ..editing.closed_form import EditOperator
from ..editing.edit import WINDOW, Edit
from ..models.engine import Row, Sampling, TextEmbedding
from ..models.layers import PARTS, CrossAttentionLayer
from ..neurons.detection import KEYS, Ablation

Pipeline = diffusers.StableDiffusionPipeline | diffusers.StableDiffusionXLPipeline
_SPACED = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}
SAMPLERS = {
    "ddim": (diffusers.DDIMScheduler, {"clip_sample": False, "set_alpha_to_one": False}),
    "pndm": (diffusers.PNDMScheduler, {"skip_prk_steps": True, "set_alpha_to_one": False}),
    "euler": (diffusers.EulerDiscreteScheduler, _SPACED),
    "dpm++": (
        diffusers.DPMSolverMultistepScheduler,
        {"algorithm_type": "dpmsolver++", "solver_order": 2, "use_lu_lambdas": False, **_SPACED},
    ),
}
"""Samplers that draw no noise of their own, each with what a model's own configuration must not change: an image would
depend on its neighbours in the batch, or the steps lie elsewhere than asked."""
SPACINGS = ("leading", "linspace", "trailing")
"""How diffusers spreads the steps over the noise levels; "leading" is what Stable Diffusion's checkpoints ask for."""
VAE_FACTOR = 8
"""Pixels per latent, in each direction."""

_LAYER_NAME = re.compile(
    r"(down_blocks|mid_block|up_blocks)(?:\.(\d+))?\.attentions\.(\d+)(?:\.transformer_blocks\.(\d+)\.attn2)?"
)
_FORWARD_ORDER = ("down_blocks", "mid_block", "up_blocks")


def load_pipeline(folder: Path) -> Pipeline:
    """The pipeline in a local diffusers folder; nothing is downloaded, unpickled or run from there.

    On a GPU in float16, but for the VAE, which overflows there in SDXL; in float32 without one.
    """
    index = folder / "model_index.json"
    if not index.is_file():
        raise ValueError(f"model: {folder} is not a diffusers folder, which has a model_index.json")
    cuda = torch.cuda.is_available()
    options: dict = {"local_files_only": True, "use_safetensors": True}
    options["torch_dtype"] = {"default": torch.float16, "vae": torch.float32} if cuda else torch.float32
    if list(folder.glob("unet/*.fp16.safetensors")) and not list(folder.glob("unet/*model.safetensors")):
        options["variant"] = "fp16"
    try:
        name = json.loads(index.read_text(encoding="utf-8"))["_class_name"]
        if name == diffusers.StableDiffusionPipeline.__name__:
            unused = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
            pipeline = diffusers.StableDiffusionPipeline.from_pretrained(folder, **options, **unused)
        elif name == diffusers.StableDiffusionXLPipeline.__name__:
            pipeline = diffusers.StableDiffusionXLPipeline.from_pretrained(folder, **options)
        else:
            raise ValueError(f"it holds a {name}; use Stable Diffusion 1.x, 2.x or SDXL")
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RuntimeError,
        ImportError,
        SafetensorError,
    ) as error:
        raise ValueError(f"model: diffusers cannot load {folder} ({error!r})") from error
    return pipeline.to("cuda" if cuda else "cpu")


def cross_attention_layers(unet: diffusers.UNet2DConditionModel) -> dict[CrossAttentionLayer, str]:
    """The cross-attention layers in forward order, each with its module's name in the U-Net.

    The blocks are counted as Stable Diffusion's own code does: input block 0 is the first convolution, and every
    down-sampling is a block.
    """
    found = []
    for name, module in unet.named_modules():
        match = _LAYER_NAME.fullmatch(name)
        if match and isinstance(module, Attention):
            part, block, attention, inner = match[1], int(match[2] or 0), int(match[3]), int(match[4] or 0)
            found.append((_FORWARD_ORDER.index(part), block, attention, inner, name))
    per_block = unet.config.layers_per_block
    layers: dict[CrossAttentionLayer, str] = {}
    for part, block, attention, inner, name in sorted(found):
        place = {0: 1 + block * (per_block + 1), 1: 0, 2: block * (per_block + 1)}[part] + attention
        layers[CrossAttentionLayer(len(layers), ("input", "middle", "output")[part], place, inner)] = name
    if not layers:
        raise ValueError("model: its U-Net has no cross-attention layers that read the prompt")
    return layers


class DiffusersEngine:
    """An Engine on a pipeline of Stable Diffusion 1.x, 2.x or SDXL."""

    projections = ("to_k", "to_v")
    """A layer's modules whose weights are W_K and W_V."""
    factor = VAE_FACTOR

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline, self._unet = pipeline, pipeline.unet
        self._unet.eval().requires_grad_(False)
        named = cross_attention_layers(self._unet)
        self.layers, self._names = tuple(named), list(named.values())
        self._negatives: dict[str, TextEmbedding] = {}

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> list[TextEmbedding]:
        """Text embeddings; a prompt longer than the text encoder's window is an error, for diffusers would cut it."""
        embeddings = []
        for prompt in prompts:
            ids = self._ids(prompt)
            if len(ids) > WINDOW:
                raise ValueError(f"prompt: {prompt!r} has {len(ids)} tokens with its ends; shorten it to {WINDOW}")
            tokens, pooled = self._embed(prompt)
            if not torch.isfinite(tokens).all():
                raise ValueError(f"text encoder: NaN or Inf in the embedding of {prompt!r}")
            last_subject = ids.index(self._pipeline.tokenizer.eos_token_id) - 1
            pooled = None if pooled is None else pooled.float().cpu()
            embeddings.append(TextEmbedding(prompt, tokens.float().cpu(), last_subject, pooled))
        return embeddings

    def _ids(self, prompt: str) -> list[int]:
        return self._pipeline.tokenizer(prompt).input_ids

    def _embed(self, prompt: str) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Token embeddings [T, d], and the pooled one [p] where the model has one."""
        encoded = self._pipeline.encode_prompt(
            prompt, device=self._unet.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        return encoded[0][0], encoded[2][0] if len(encoded) > 2 else None

    @torch.no_grad()
    def generate(
        self, rows: Sequence[Row], sampling: Sampling, on_step: Callable[[], None] | None = None
    ) -> torch.Tensor:
        """All rows at once. An empty negative prompt is encoded, as ComfyUI does; diffusers' SDXL takes zeros."""
        scheduler = _scheduler(self._pipeline.scheduler, sampling)
        scheduler.set_timesteps(sampling.steps)
        if sampling.negative_prompt not in self._negatives:
            (self._negatives[sampling.negative_prompt],) = self.encode([sampling.negative_prompt])
        negative = self._negatives[sampling.negative_prompt]
        shape = (self._unet.config.in_channels, sampling.height // self.factor, sampling.width // self.factor)
        noise = [torch.randn(1, *shape, generator=torch.Generator().manual_seed(row.seed)) for row in rows]
        latents = torch.cat(noise) * scheduler.init_noise_sigma
        for timestep in scheduler.timesteps:
            scaled = scheduler.scale_model_input(latents, timestep)
            predicted = self.predict(scaled, timestep, rows, negative, sampling)
            latents = scheduler.step(predicted, timestep, latents).prev_sample
            if on_step:
                on_step()
        images = self.decode(latents)
        if not torch.isfinite(images).all():
            raise ValueError("model: NaN or Inf in an image; try float32 or another sampler")
        return images

    @torch.no_grad()
    def predict(
        self,
        scaled: torch.Tensor,
        timestep: torch.Tensor,
        rows: Sequence[Row],
        negative: TextEmbedding,
        sampling: Sampling,
    ) -> torch.Tensor:
        """The U-Net's guided prediction for scaled latents [N, 4, h, w] of `rows`, in float32 on the CPU."""
        guided = sampling.guidance != 1
        embeddings = [row.embedding for row in rows] + [negative] * (len(rows) if guided else 0)
        with self._intervening(rows):
            predicted = self._unet(
                self._place(torch.cat([scaled] * (2 if guided else 1))),
                timestep,
                encoder_hidden_states=self._place(torch.stack([embedding.tokens for embedding in embeddings])),
                added_cond_kwargs=self._added(embeddings, sampling),
            ).sample
        predicted = predicted.float().cpu()[:, : scaled.shape[1]]  # without the variance, where it is predicted too
        if not guided:
            return predicted
        positive, negated = predicted.chunk(2)
        return negated + sampling.guidance * (positive - negated)

    def _added(self, embeddings: Sequence[TextEmbedding], sampling: Sampling) -> dict[str, torch.Tensor]:
        """What SDXL's U-Net is told beside the tokens: pooled embeddings and image sizes."""
        if embeddings[0].pooled is None:
            return {}
        size = [sampling.height, sampling.width]
        return {
            "text_embeds": self._place(torch.stack([embedding.pooled for embedding in embeddings])),
            "time_ids": self._place(torch.tensor([[*size, 0, 0, *size]] * len(embeddings))),
        }

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents [N, 4, h, w] as images [N, H, W, 3] in 0..1, float32 on the CPU; one at a time, to spare memory."""
        vae = self._pipeline.vae
        latents = latents.to(vae.device, vae.dtype) / vae.config.scaling_factor
        images = torch.cat([vae.decode(latent[None]).sample for latent in latents])
        return (images.float().cpu() / 2 + 0.5).clamp(0, 1).movedim(1, -1)

    def key_value_weights(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A LoRA counts once it is fused (pipeline.fuse_lora)."""
        keys, values = (part.weight.detach().float().cpu().clone() for part in self._projections(layer))
        return keys, values

    def _projections(self, layer: int) -> list[torch.nn.Module]:
        attention = self._unet.get_submodule(self._names[layer])
        return [getattr(attention, name) for name in self.projections]

    @property
    def text_encoder(self) -> str:
        """Which text encoder, and at which layer it is read, in words."""
        return f"{type(self._pipeline.text_encoder).__name__}, last layer as the model's default"

    @contextmanager
    def edited(self, edit: Edit, strength: float = 1.0) -> Iterator[None]:
        """Within it, the weights carry the edit; afterwards they are as they were, bit for bit."""
        changes = self._changes(dict.fromkeys(edit.recipe.layers, edit.operator))
        if edit.pooled is not None:
            weight = self.pooled_weight().data
            changes.append((weight, edit.pooled.widened(weight.shape[1])))
        with self._edited(changes, strength):
            yield

    @contextmanager
    def ablated(self, ablation: Ablation) -> Iterator[None]:
        """Within it, the ablation acts on all tokens, in both branches, at all steps."""
        handles = []
        try:
            for (layer, part), replacement in ablation.items():
                keys, values = self._projections(layer)
                module = keys if part == KEYS else values
                handles.append(module.register_forward_hook(lambda _, __, out, own=replacement: own(out)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def pooled_weight(self) -> torch.nn.Parameter:
        """The weight of the U-Net's first layer that reads the pooled embedding, as its first inputs."""
        return self._unet.add_embedding.linear_1.weight

    def _changes(self, operators: Mapping[int, EditOperator]) -> list[tuple[torch.Tensor, EditOperator]]:
        """Each layer's W_K and W_V with the operator to edit them by."""
        return [
            (part.weight.data, operator) for layer, operator in operators.items() for part in self._projections(layer)
        ]

    @contextmanager
    def _edited(self, changes: Sequence[tuple[torch.Tensor, EditOperator]], strength: float) -> Iterator[None]:
        for weight, operator in changes:
            if operator.width != weight.shape[1]:
                raise ValueError(
                    f"edit: solved for embeddings {operator.width} wide, the model reads {weight.shape[1]}"
                )
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
        """Within it, every layer gives the rows that intervene there what they are to read."""
        placed: dict[int, torch.Tensor] = {}  # by the embedding's id: most rows share one
        reads: dict[tuple[int, str], dict[int, torch.Tensor]] = {}
        for position, row in enumerate(rows):
            if not row.intervention:
                continue
            embedding, part = row.intervention.embedding, row.intervention.part
            if id(embedding) not in placed:
                placed[id(embedding)] = self._place(embedding.tokens)
            for layer, name in itertools.product(row.intervention.layers, PARTS[1:] if part == PARTS[0] else (part,)):
                own = self._layer_input(layer, placed[id(embedding)])
                reads.setdefault((layer, name), {})[position] = own
        handles = []
        try:
            for (layer, name), own in reads.items():
                module = self._projections(layer)[PARTS.index(name) - 1]
                handles.append(module.register_forward_pre_hook(partial(_reading, own)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _layer_input(self, layer: int, tokens: torch.Tensor) -> torch.Tensor:
        """What W_K and W_V of a layer are multiplied with for a text embedding's tokens: [T, d]."""
        return tokens

    def _place(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self._unet.device, self._unet.dtype)


class AblatedEngine:
    """A DiffusersEngine that ablates while it makes images."""

    def __init__(self, engine: DiffusersEngine, change: Ablation) -> None:
        self._engine, self._change = engine, change
        self.layers, self.encode, self.key_value_weights = engine.layers, engine.encode, engine.key_value_weights

    def generate(
        self, rows: Sequence[Row], sampling: Sampling, on_step: Callable[[], None] | None = None
    ) -> torch.Tensor:
        with self._engine.ablated(self._change):
            return self._engine.generate(rows, sampling, on_step)


def _reading(reads: Mapping[int, torch.Tensor], _: torch.nn.Module, inputs: tuple[torch.Tensor]) -> torch.Tensor:
    """A projection's input in which some rows read other tokens [T, d]; the positive rows come first."""
    tokens = inputs[0].clone()
    for row, other in reads.items():
        tokens[row] = other
    return tokens


def _scheduler(own: diffusers.SchedulerMixin, sampling: Sampling) -> diffusers.SchedulerMixin:
    """A new scheduler of the wanted kind, on the noise schedule of the model's own."""
    if sampling.sampler not in SAMPLERS:
        raise ValueError(f"sampler: {sampling.sampler!r}; give one of {', '.join(SAMPLERS)}")
    if sampling.scheduler not in SPACINGS:
        raise ValueError(f"scheduler: {sampling.scheduler!r}; give one of {', '.join(SPACINGS)}")
    kind, options = SAMPLERS[sampling.sampler]
    return kind.from_config(own.config, timestep_spacing=sampling.scheduler, **options)
