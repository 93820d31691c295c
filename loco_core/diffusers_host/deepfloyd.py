"""DeepFloyd IF's first stage as an Engine, which the paper treats and ComfyUI does not have.

A T5 text encoder, images of 64 x 64 pixels without a VAE, and attention over the image and the text at once: the
text's W_K and W_V have biases, and each layer normalises the text in its own way. Tried on small models of the same
classes with random weights only (tests/loco_core/diffusers_host/test_deepfloyd.py), never on the real one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from ..editing.closed_form import EditOperator, solve
from ..editing.solve import PAPER_LAMBDA
from ..models.engine import TextEmbedding
from ..models.families.deepfloyd import DEEPFLOYD
from ..models.layers import LayerSet
from .engine import DiffusersEngine


class DeepFloydEngine(DiffusersEngine):
    """An Engine on a diffusers.IFPipeline: 22 layers in IF-I."""

    family = DEEPFLOYD
    factor = 1
    chunk_length = DEEPFLOYD.chunk_length  # the pipeline's own, whatever T5 could take

    def _ids(self, prompt: str) -> list[int]:
        """T5 marks the end of a text, but not its start; the pipeline writes all in lower case."""
        return self._pipeline.tokenizer(self._pipeline._text_preprocessing(prompt)[0]).input_ids

    def _embed(self, prompt: str) -> tuple[torch.Tensor, None]:
        tokens, _ = self._pipeline.encode_prompt(prompt, do_classifier_free_guidance=False)
        return tokens[0], None

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """IF's latents are the pixels, in -1..1."""
        return (latents / 2 + 0.5).clamp(0, 1).movedim(1, -1)

    @contextmanager
    def edited_subjects(
        self,
        concepts: Sequence[TextEmbedding],
        targets: Sequence[TextEmbedding],
        layers: LayerSet,
        strength: float = 1.0,
    ) -> Iterator[None]:
        """Within it, `layers` carry the paper's edit over all subject tokens, one target per concept.

        T5 encodes in both directions: the last token alone does not carry a concept. All of them, the paper finds, lose
        too much. Every layer normalises its text in its own way, so each has its own operator.
        """
        operators = {layer: self._operator(layer, concepts, targets) for layer in layers}
        with self._changed(self._weights(operators), strength):
            yield

    @torch.no_grad()
    def _operator(
        self, layer: int, concepts: Sequence[TextEmbedding], targets: Sequence[TextEmbedding]
    ) -> EditOperator:
        originals, replacements = [], []
        for concept, target in zip(concepts, targets, strict=True):
            if concept.empty or target.empty:
                raise ValueError("concept and target: empty; give at least one word each")
            (own,), (other,) = concept.chunks, target.chunks  # `encode` refuses what is longer
            subjects = torch.arange(own.end_of_text)
            originals.append(self.layer_input(layer, concept)[subjects])
            replacements.append(self.layer_input(layer, target)[subjects.clamp(max=other.last_subject)])
        return solve(torch.cat(originals).T, torch.cat(replacements).T, PAPER_LAMBDA)

    @torch.no_grad()
    def _layer_input(self, layer: int, tokens: torch.Tensor) -> torch.Tensor:
        """The U-Net projects T5's embedding once, before all attentions, and some attentions normalise it."""
        attention = self._denoiser.get_submodule(self.layers.modules[layer])
        context = self._denoiser.encoder_hid_proj(tokens)[None]
        if attention.norm_cross is not None:
            context = attention.norm_encoder_hidden_states(context)
        return context[0]

    def layer_input(self, layer: int, embedding: TextEmbedding) -> torch.Tensor:
        """What W_K and W_V of a layer are multiplied with: [T, d] in float64 on the CPU."""
        return self._layer_input(layer, self._place(embedding.tokens)).double().cpu()
