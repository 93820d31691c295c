"""What neurons cost: detecting them, in seconds and memory, and ablating them, in sampling time."""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import time
from collections.abc import Sequence

import torch

from benchmarks.solve_time import SHAPES, random_weights, text_layers
from demo.comfy_host import node
from demo.jobs import GUIDANCE, PLAIN_PROMPTS, SIZE
from demo.server import Server
from demo.world import STYLES
from loco_core.models.engine import Chunk, TextEmbedding
from loco_core.models.families.unet import UNET
from loco_core.models.layers import LayerSet
from loco_core.neurons.detection import detect_neurons
from loco_core.prompts import contrast_prompts

TIMED_RUNS, BATCH, STEPS = 9, 16, 10
TOKENS = UNET.chunk_length


def ablation_overhead(server: Server) -> float:
    """Median sampling time with 100 neurons ablated over that without, of interleaved runs in a real ComfyUI."""
    base = {
        "checkpoint": node("CheckpointLoaderSimple", ckpt_name="loco_demo.safetensors"),
        "layers": node("LoCo_LayerSelect", model=["checkpoint", 0], layers="8-9", preset="as written"),
        "neurons": node(
            "LoCo_NeuronDetect",
            model=["checkpoint", 0],
            clip=["checkpoint", 1],
            layers=["layers", 0],
            concept="woodcut",
            without="\n".join([*PLAIN_PROMPTS, "halftone"]),
            part="values",
            tokens="last subject token and tail",
        ),
        "ablated": node(
            "LoCo_NeuronAblate",
            model=["checkpoint", 0],
            neurons=["neurons", 0],
            rank_by="signal",
            choose_by="count",
            count=100,
            threshold=10.0,
            mode="mean",
            scale=0.5,
            token_positions="all",
            branch="both",
            start_percent=0.0,
            end_percent=1.0,
            apply="run time",
            size=0,
        ),
        "positive": node("CLIPTextEncode", clip=["checkpoint", 1], text="a picture of a red star"),
        "negative": node("CLIPTextEncode", clip=["checkpoint", 1], text=""),
        "latent": node("EmptyLatentImage", width=SIZE, height=SIZE, batch_size=BATCH),
    }
    seconds: dict[str, list[float]] = {"checkpoint": [], "ablated": []}
    for run in range(1 + TIMED_RUNS):
        for model, times in seconds.items():
            sampler = node(
                "KSampler",
                model=[model, 0],
                positive=["positive", 0],
                negative=["negative", 0],
                latent_image=["latent", 0],
                seed=run,
                steps=STEPS,
                cfg=GUIDANCE,
                sampler_name="euler",
                scheduler="normal",
                denoise=1.0,
            )
            saved = node("SaveLatent", samples=["sampler", 0], filename_prefix="overhead/latent")
            entry = server.wait(server.queue(base | {"sampler": sampler, "saved": saved}))
            times.append(_seconds(entry))
    plain, ablated = (statistics.median(times[1:]) for times in seconds.values())  # the first loads and detects
    return round(ablated / plain, 4)


def _seconds(entry: dict) -> float:
    """How long a queued workflow ran, by the server's own clock."""
    if entry["status"]["status_str"] != "success":
        raise RuntimeError(f"the workflow failed: {entry['status']['messages'][-1]}")
    times = {name: content["timestamp"] for name, content in entry["status"]["messages"]}
    return (times["execution_success"] - times["execution_start"]) / 1000


def detection_cost(shape: str) -> dict[str, float]:
    """Seconds, peak memory beyond the model's own, and one layer's activations, on random weights of this shape.

    Encoding the prompts is not counted: it is the text encoder's.
    """
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        return pool.apply(_detection_cost, (shape,))


def _detection_cost(shape: str) -> dict[str, float]:
    width, outputs = SHAPES[shape]
    weights = random_weights(shape)
    prompts = contrast_prompts("woodcut", "\n".join([*PLAIN_PROMPTS, *(name for name in STYLES if name != "woodcut")]))
    chunks = (Chunk(0, 1, 9, TOKENS),)
    embeddings = {
        text: TextEmbedding(text, torch.randn(TOKENS, width), chunks) for text in (*prompts.concept, *prompts.without)
    }

    class Made:
        """What of an engine a detection needs."""

        text_encoder, layers = "none", text_layers(len(outputs), width)
        key_value_weights = staticmethod(weights.__getitem__)

        def encode(self, texts: Sequence[str]) -> list[TextEmbedding]:
            return [embeddings[text] for text in texts]

    def detect(layers: Sequence[int]) -> int:
        return detect_neurons(Made(), prompts, LayerSet(tuple(layers), len(outputs))).count

    detect([0])  # loads what is loaded once
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    count = detect(range(len(outputs)))
    seconds = time.perf_counter() - begun
    return {
        "neurons": count,
        "seconds": round(seconds, 3),
        "extra_mb": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, 1),
        "one_layer_mb": round(len(embeddings) * TOKENS * max(outputs) * 4 / 2**20, 1),
    }
