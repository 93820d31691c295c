"""SD 3 and Flux of diffusers as Engines: transformers whose blocks read and change text and image together.

Giving blocks another prompt is done here as it is defined, "two text streams, one image": own and other prompt are two
rows of a batch, and after each block the image of both becomes that of the other prompt's row if the block is chosen,
else that of the own prompt's. Kept plain on purpose, and without the code of the ComfyUI engine, whose check it is.

The guidance of a Sampling is classifier-free guidance, as in ComfyUI; 1 is without a negative prompt. Flux.1 dev is
distilled and gets another guidance as a number beside the prompt: always EMBEDDED_GUIDANCE, ComfyUI's and diffusers'
own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

import diffusers
import numpy as np
import torch
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

from ..models.engine import Chunk, Intervention, Row, Sampling
from ..models.families.joint import FLUX, SD3, JointTransformer
from ..models.layers import ModelLayers
from .engine import DiffusersEngine, check_length
from .families.joint import read_blocks
from .pipelines import FlowEuler, flow_scheduler

# Latents per token of the image, in each direction.
PATCH = 2
# What Flux.1 dev gets as its guidance.
EMBEDDED_GUIDANCE = 3.5
# The names of a pipeline's text encoders, with their tokenizers'.
TEXT_ENCODERS = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2", "text_encoder_3": "tokenizer_3"}


class JointEngine(DiffusersEngine, ABC):
    """An Engine on a pipeline with such a transformer.

    t5: which of its text encoders is T5. t5_length: how many tokens, with their end, the pipeline gives it at most.
    """

    family: JointTransformer
    denoiser = "transformer"
    t5: ClassVar[str]
    t5_length: ClassVar[int]

    @abstractmethod
    def _output(
        self, latents: torch.Tensor, timestep: torch.Tensor, tokens: torch.Tensor, pooled: torch.Tensor
    ) -> torch.Tensor:
        """The transformer's output [N, C, h, w] for latents [N, C, h, w], tokens [N, T, d] and pooled embeddings
        [N, p].
        """

    @abstractmethod
    def _steps(self, count: int) -> dict[str, Any]:
        """How the pipeline asks its scheduler for so many steps."""

    def _read_layers(self) -> ModelLayers:
        return read_blocks(self._denoiser, self.family)

    @property
    def text_encoder(self) -> str:
        names = " + ".join(type(encoder).__name__ for encoder in self._encoders.values())
        return f"{names}, last layers as the model's default"

    @property
    def _encoders(self) -> dict[str, torch.nn.Module]:
        """The text encoders that the pipeline has: SD 3 also works without T5."""
        found = {name: getattr(self._pipeline, name, None) for name in TEXT_ENCODERS}
        return {name: encoder for name, encoder in found.items() if encoder is not None}

    def _check_length(self, prompt: str) -> None:
        for encoder in self._encoders:
            tokenizer = getattr(self._pipeline, TEXT_ENCODERS[encoder])
            limit = self.t5_length if encoder == self.t5 else tokenizer.model_max_length
            check_length(prompt, len(tokenizer(prompt).input_ids), limit)

    def _chunk(self, prompt: str, stop: int) -> Chunk:
        """Blocks are only given whole prompts, of whatever text encoder: a prompt is one chunk."""
        return Chunk(0, 0, stop - 1, stop)

    def _scheduler(self, sampling: Sampling) -> FlowEuler:
        """Where the pipeline's own scheduler shifts the noise levels by the size of the image, this does too."""
        scheduler, pixels = flow_scheduler(self._pipeline.scheduler, sampling), self.factor * PATCH
        if sampling.width % pixels or sampling.height % pixels:
            raise ValueError(f"size: {sampling.width} x {sampling.height}; give this model multiples of {pixels}")
        tokens, own = sampling.width * sampling.height // pixels**2, scheduler.config
        shift = calculate_shift(tokens, own.base_image_seq_len, own.max_image_seq_len, own.base_shift, own.max_shift)
        scheduler.set_timesteps(**self._steps(sampling.steps), mu=shift)
        return scheduler

    def _predicted(
        self, scaled: torch.Tensor, timestep: torch.Tensor, rows: Sequence[Row], sampling: Sampling
    ) -> torch.Tensor:
        """Rows of the other prompts follow those of `rows`, with the pooled embedding of the row that they belong to:
        what it changes is no single block's.
        """
        changes = [(own, row.intervention) for own, row in enumerate(rows) if row.intervention is not None]
        for _, change in changes:
            self.layers.check_part(change.part)
        both = [*range(len(rows)), *(own for own, _ in changes)]
        embeddings = [*(row.embedding for row in rows), *(change.embedding for _, change in changes)]
        pooled = [embedding.pooled for embedding in embeddings[: len(rows)] if embedding.pooled is not None]
        with self._one_image(len(rows), changes):
            output = self._output(
                self._place(scaled[both]),
                timestep.to(self._denoiser.device).expand(len(both)),
                self._place(torch.stack([embedding.tokens for embedding in embeddings])),
                self._place(torch.stack(pooled)[both]),
            )
        return output[: len(rows)]

    @contextmanager
    def _one_image(self, rows: int, changes: Sequence[tuple[int, Intervention]]) -> Iterator[None]:
        """Within it, each row that intervenes and the row of its other prompt, which follow all `rows` in the order of
        `changes`, have one image after each block.
        """
        handles = []
        try:
            for index, name in enumerate(self.layers.modules):
                source = list(range(rows + len(changes)))
                for other, (own, change) in enumerate(changes, start=rows):
                    source[own] = source[other] = other if index in change.layers else own
                block = self._denoiser.get_submodule(name)
                handles.append(block.register_forward_hook(partial(_with_image_of, source)))
            yield
        finally:
            for handle in handles:
                handle.remove()


class SD3Engine(JointEngine):
    """An Engine on a StableDiffusion3Pipeline: SD 3 and 3.5."""

    family = SD3
    t5, t5_length = "text_encoder_3", 256

    def _embed(self, prompt: str) -> tuple[torch.Tensor, torch.Tensor]:
        tokens, _, pooled, _ = self._pipeline.encode_prompt(
            prompt,
            None,
            None,
            self._denoiser.device,
            do_classifier_free_guidance=False,
            max_sequence_length=self.t5_length,
        )
        return tokens[0], pooled[0]

    def _steps(self, count: int) -> dict[str, Any]:
        return {"num_inference_steps": count}

    def _output(
        self, latents: torch.Tensor, timestep: torch.Tensor, tokens: torch.Tensor, pooled: torch.Tensor
    ) -> torch.Tensor:
        return self._denoiser(latents, tokens, pooled, timestep).sample


class FluxEngine(JointEngine):
    """An Engine on a FluxPipeline: Flux.1 dev, Flux.1 schnell and their kin."""

    family = FLUX
    t5, t5_length = "text_encoder_2", 512

    def _embed(self, prompt: str) -> tuple[torch.Tensor, torch.Tensor]:
        tokens, pooled, _ = self._pipeline.encode_prompt(
            prompt, device=self._denoiser.device, max_sequence_length=self.t5_length
        )
        return tokens[0], pooled[0]

    def _steps(self, count: int) -> dict[str, Any]:
        return {"sigmas": np.linspace(1, 1 / count, count)}

    @property
    def _channels(self) -> int:
        return self._denoiser.config.in_channels // PATCH**2

    def _output(
        self, latents: torch.Tensor, timestep: torch.Tensor, tokens: torch.Tensor, pooled: torch.Tensor
    ) -> torch.Tensor:
        """The transformer is called with the image's tokens, and with where they and the text's are."""
        count, _, height, width = latents.shape
        device, own = latents.device, diffusers.FluxPipeline
        guidance = torch.full((count,), EMBEDDED_GUIDANCE, device=device)
        output = self._denoiser(
            own._pack_latents(latents, *latents.shape),
            tokens,
            pooled,
            timestep / 1000,
            own._prepare_latent_image_ids(count, height // PATCH, width // PATCH, device, torch.float32),
            torch.zeros(tokens.shape[1], 3, device=device),
            guidance if self._denoiser.config.guidance_embeds else None,
        ).sample
        return own._unpack_latents(output, height * self.factor, width * self.factor, self.factor)


def _with_image_of(
    source: list[int], module: torch.nn.Module, inputs: Any, given: tuple[torch.Tensor | None, torch.Tensor]
) -> tuple[torch.Tensor | None, torch.Tensor]:
    """What a block gives, with the image of the row `source` says in each row."""
    text, image = given
    return text, image[source]
