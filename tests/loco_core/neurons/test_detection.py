"""Neurons by their z-scores, against numpy; which are chosen; what replaces them; what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy import stats

from loco_core.models.engine import TextEmbedding
from loco_core.models.layers import PROJECTIONS, LayerSet, Part
from loco_core.neurons.ablation import USUAL, ChooseBy, Mode, Replacement, ablation, chosen_neurons
from loco_core.neurons.detection import Neurons, NeuronScores, NeuronTokens, Ranking, detect_neurons
from loco_core.neurons.file import load_neurons, save_neurons
from loco_core.neurons.pictures import neuron_plot
from loco_core.neurons.report import neuron_report
from loco_core.prompts import Contrast, contrast_prompts
from made_up import SD15, WIDTH, chunk, encode

LAYERS = LayerSet((8, 9), 16)
WITH = tuple(f"{thing} in woodcut" for thing in ("star", "fish", "house", "tree", "boat"))
WITHOUT = ("star", "fish", "house", "tree")
OUTPUTS = {8: 12, 9: 20}


def weights(layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(layer)
    keys, values = torch.randn(2, OUTPUTS[layer], WIDTH, generator=generator)
    return keys, values


class Reader:
    """What of an engine a detection needs; it notes which layers' weights are read."""

    text_encoder, layers = "a text encoder", SD15

    def __init__(self) -> None:
        self.read: list[int] = []

    def encode(self, prompts):
        return encode(prompts)

    def key_value_weights(self, layer):
        self.read.append(layer)
        return weights(layer)


def detect(concept=WITH, without=WITHOUT, others=(), layers: LayerSet = LAYERS, **options) -> Neurons:
    return detect_neurons(Reader(), Contrast(tuple(concept), tuple(without), tuple(others)), layers, **options)


@pytest.fixture
def neurons() -> Neurons:
    return detect()


def outputs(prompts, weight: torch.Tensor, tokens: NeuronTokens) -> np.ndarray:
    rows = []
    for embedding in encode(prompts):
        last = embedding.chunks[0].last_subject
        own = {
            NeuronTokens.TAIL: embedding.tokens[last:],
            NeuronTokens.LAST_SUBJECT: embedding.tokens[[last]],
            NeuronTokens.LAST_PADDED: embedding.tokens[-1:],
        }
        rows.append((own[tokens].double() @ weight.double().T).numpy().mean(0))
    return np.stack(rows)


class LongReader(Reader):
    """Encodes a prompt in as many chunks as bars stand in it."""

    def encode(self, prompts):
        found = []
        for prompt in prompts:
            parts = encode(prompt.split("|"))
            chunks = [chunk(part.chunks[0].last_subject, start=77 * place) for place, part in enumerate(parts)]
            found.append(TextEmbedding(prompt, torch.cat([part.tokens for part in parts]), tuple(chunks)))
        return found


@pytest.mark.parametrize(
    ("tokens", "where"),
    [
        *((NeuronTokens.LAST_SUBJECT, where) for where in ("{}|by day|at sea", "by day|{}|at sea", "by day|at sea|{}")),
        *((NeuronTokens.LAST_PADDED, where) for where in ("{}|by day|at sea", "by day|{}|at sea", "by day|at sea|{}")),
        (NeuronTokens.TAIL, "by day|at sea|{}"),
    ],
)
def test_a_concept_in_any_chunk_of_a_long_prompt_is_as_sure_as_in_a_short_one(tokens, where):
    """Chunks that all prompts share move the mean of a sample, and z does not depend on that."""
    prompts = [tuple(where.format(prompt) for prompt in side) for side in (WITH, WITHOUT)]
    found = detect_neurons(LongReader(), Contrast(*prompts, ()), LAYERS, tokens=tokens)
    for place, score in detect(tokens=tokens).scores.items():
        torch.testing.assert_close(found.scores[place].z, score.z, rtol=1e-3, atol=1e-3)  # float32 W


@pytest.mark.parametrize("tokens", NeuronTokens)
def test_z_is_the_papers_and_p_is_welchs(tokens):
    found = detect(tokens=tokens)
    for layer in LAYERS:
        for part, weight in zip(PROJECTIONS, weights(layer), strict=True):
            own, other = (outputs(prompts, weight, tokens) for prompts in (WITH, WITHOUT))
            score = found.scores[layer, part]
            error = np.sqrt(own.var(0) / len(own) + other.var(0) / len(other))
            np.testing.assert_allclose(score.z.numpy(), (own.mean(0) - other.mean(0)) / error, rtol=1e-4)  # float32 W
            p = stats.ttest_ind(own, other, equal_var=False).pvalue
            np.testing.assert_allclose(score.p.numpy(), p, rtol=1e-3)
            np.testing.assert_allclose(score.mean.numpy(), other.mean(0), rtol=1e-4, atol=1e-6)


def test_neurons_that_only_prompts_vary_are_expected_by_chance_and_not_said_to_differ():
    words = [f"word{number}" for number in range(24)]
    found = detect(words[:12], words[12:], tokens=NeuronTokens.LAST_SUBJECT)
    assert found.count == 64
    assert found.significant() <= 1
    twenty_surest = found.expected_by_chance(20)
    assert 8 <= twenty_surest <= 40  # by chance alone the 20 smallest of 64 p-values reach about 20 / 64


def test_a_report_without_a_sure_neuron_says_what_to_do():
    found = detect(("a star", "a fish"), ("a house", "a tree"), tokens=NeuronTokens.LAST_SUBJECT)
    assert found.significant() == 0
    assert "none is sure: give more prompts" in neuron_report(found).brief


@pytest.mark.parametrize("silent", [[0, 1], [1]], ids=["keys and values", "values"])
def test_neurons_of_a_projection_that_gives_nothing_do_not_differ(silent, tmp_path):
    """As another edit may have left it: without a size to measure by, z would be 0 / 0."""

    class Silent(Reader):
        def key_value_weights(self, layer):
            return tuple(w * (layer != 8 or part not in silent) for part, w in enumerate(weights(layer)))

    found = detect_neurons(Silent(), Contrast(WITH, WITHOUT, ()), LAYERS)
    scores = found.scores[8, Part.VALUES]
    assert not scores.z.any()
    assert torch.equal(scores.p, torch.ones(OUTPUTS[8]).double())
    assert "nan" not in str(neuron_report(found))
    save_neurons(found, tmp_path / "neurons", {})
    assert load_neurons(tmp_path / "neurons").count == found.count


def test_the_signal_is_what_the_concept_adds_to_plain_prompts_less_half_of_what_others_add():
    other = ("star in halftone", "fish in halftone"), ("star in poster", "fish in poster")
    without = (*WITHOUT, *other[0], *other[1])
    found = detect(without=without, others=other)
    weight = weights(8)[1]
    means = [outputs(prompts, weight, NeuronTokens.TAIL).mean(0) for prompts in (WITH, WITHOUT, *other)]
    added = [(mean - means[1]) ** 2 for mean in means]
    expected = added[0] - (added[2] + added[3]) / 4
    np.testing.assert_allclose(found.scores[8, Part.VALUES].signal.numpy(), expected, rtol=1e-4, atol=1e-6)


def test_one_part_alone_is_scored(neurons):
    values = detect(part=Part.VALUES)
    assert list(values.scores) == [(8, Part.VALUES), (9, Part.VALUES)]
    assert torch.equal(values.scores[8, Part.VALUES].z, neurons.scores[8, Part.VALUES].z)


def test_the_weights_of_one_layer_at_a_time_are_read():
    engine, done = Reader(), []
    contrast = Contrast(WITH, WITHOUT, ())
    detect_neurons(engine, contrast, LAYERS, on_layer=lambda layer, total: done.append((layer, total)))
    assert engine.read == [8, 9]
    assert done == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("signal", "passed"), [([1.0, 6.0, -2.0, 3.0], [0.6, 0.9, 1, 1]), ([0.0, -1.0, 0.0, 0.0], [0, 0, 0, 0])]
)
def test_what_the_first_neurons_pass_on_is_told_and_drawn(signal, passed):
    rest = torch.ones(4).double()
    score = NeuronScores(rest, rest, signal=torch.tensor(signal).double(), mean=rest)
    neurons = Neurons({(8, Part.VALUES): score}, LAYERS, WIDTH, NeuronTokens.TAIL, WITH, WITHOUT, "")
    np.testing.assert_allclose(neurons.passed_on(), passed)
    assert neuron_plot(neurons).ndim == 3


# --- which ------------------------------------------------------------------------------------------------------------


def test_a_count_takes_the_largest_z_over_all_layers(neurons):
    chosen = chosen_neurons(neurons, ChooseBy.COUNT, 10, ranking=Ranking.Z)
    taken = [neurons.scores[place].z[i].abs() for place, numbers in chosen.items() for i in numbers]
    every = torch.cat([score.z.abs() for score in neurons.scores.values()])
    assert sorted(taken) == sorted(every.topk(10).values)


def test_a_count_per_layer_takes_as_many_of_each(neurons):
    chosen = chosen_neurons(neurons, ChooseBy.COUNT_PER_LAYER, 5)
    for layer in LAYERS:
        assert sum(len(numbers) for place, numbers in chosen.items() if place[0] == layer) == 5


@pytest.mark.parametrize(("choose_by", "count"), [(ChooseBy.COUNT, 16), (ChooseBy.COUNT_PER_LAYER, 6)])
def test_the_usual_count_is_a_quarter_of_what_there_is(neurons, choose_by, count):
    chosen, told = (chosen_neurons(neurons, choose_by, asked) for asked in (USUAL, count))
    assert {place: numbers.tolist() for place, numbers in chosen.items()} == {
        place: numbers.tolist() for place, numbers in told.items()
    }


def test_a_threshold_takes_all_beyond_it(neurons):
    chosen = chosen_neurons(neurons, ChooseBy.THRESHOLD, 0, 3.0)
    for place, score in neurons.scores.items():
        assert (
            chosen.get(place, torch.tensor([], dtype=torch.int64)).tolist()
            == (score.z.abs() >= 3).nonzero()[:, 0].tolist()
        )


def test_no_neurons_are_an_ablation_of_nothing(neurons):
    assert ablation(neurons, chosen_neurons(neurons, ChooseBy.COUNT, 0)) == {}


# --- what replaces them -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "expected"), [(Mode.MEAN, (-2.0, 4.0)), (Mode.ZERO, (0.0, 0.0)), (Mode.SCALE, (0.5, 1.0))]
)
def test_a_mode_says_what_becomes_of_a_neuron(mode, expected):
    score = NeuronScores(*torch.zeros(3, 3).double(), mean=torch.tensor([-2.0, 7.0, 4.0]).double())
    found = Neurons({(8, Part.VALUES): score}, LAYERS, WIDTH, NeuronTokens.TAIL, WITH, WITHOUT, "")
    change = ablation(found, {(8, Part.VALUES): torch.tensor([0, 2])}, mode, 0.5)[8, Part.VALUES]
    assert change(torch.tensor([[1.0, 9.0, 2.0]])).tolist() == [[expected[0], 9.0, expected[1]]]


def test_only_the_rows_and_tokens_meant_are_replaced():
    where = torch.tensor([[True, False, False], [False, False, True]])
    change = Replacement(torch.tensor([1]), 0.0, torch.zeros(1))
    assert change(torch.ones(2, 3, 2), where)[..., 1].tolist() == [[0, 1, 1], [1, 1, 0]]


def test_a_scale_in_the_weights_scales_the_outputs():
    change, weight = Replacement(torch.tensor([1]), 0.25, torch.zeros(1)), torch.randn(3, WIDTH)
    rows = torch.randn(4, WIDTH)
    torch.testing.assert_close(rows @ (weight + change.weight_change(weight)).T, change(rows @ weight.T))


# --- prompts ----------------------------------------------------------------------------------------------------------


def test_names_are_put_into_the_plain_prompts_of_both_sides():
    found = contrast_prompts("Van Gogh", "Monet\na photo of a cat\na photo of a dog")
    monet = ("a photo of a cat in the style of Monet", "a photo of a dog in the style of Monet")
    assert found.concept == ("a photo of a cat in the style of Van Gogh", "a photo of a dog in the style of Van Gogh")
    assert found.without == ("a photo of a cat", "a photo of a dog", *monet)
    assert found.others == (monet,)


def test_whole_prompts_stay_as_they_are():
    found = contrast_prompts("a cat in the style of Van Gogh", "a painting of a cat")
    assert (found.concept, found.without) == (("a cat in the style of Van Gogh",), ("a painting of a cat",))
    assert found.others == ()


def test_a_report_tells_how_the_lines_were_taken():
    contrast = contrast_prompts("woodcut", "a {cat|dog}\na fish\nhalftone")
    told = neuron_report(detect_neurons(Reader(), contrast, LAYERS)).figures
    assert 'concept, taken as a name: "woodcut" (2 prompts, like "a fish in the style of woodcut")' in told
    assert 'without, taken as 2 contexts: "a {cat|dog}", "a fish"' in told


# --- files ------------------------------------------------------------------------------------------------------------


def test_saved_neurons_are_loaded_as_they_were(neurons, tmp_path):
    neurons = replace(neurons, taken=("concept, taken as a prompt: x",))
    save_neurons(neurons, tmp_path / "neurons.safetensors", {"torch": "1"})
    loaded = load_neurons(tmp_path / "neurons.safetensors")
    assert neuron_report(loaded) == neuron_report(neurons)
    assert (loaded.layers, loaded.width, loaded.with_concept) == (neurons.layers, neurons.width, neurons.with_concept)
    for place, score in neurons.scores.items():
        for name in ("z", "p", "signal", "mean"):
            assert torch.equal(getattr(loaded.scores[place], name), getattr(score, name))


@pytest.mark.parametrize("damage", ["foreign", "torn", "NaN", "float32", "another tensor"])
def test_a_damaged_or_foreign_file_is_refused_in_one_sentence(neurons, tmp_path, damage):
    path = tmp_path / "neurons.safetensors"
    save_neurons(neurons, path, {})
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        tensors, metadata = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
    if damage == "foreign":
        save_file(tensors, path, metadata={"format": "loco_edit 1"})
    elif damage == "torn":
        path.write_bytes(path.read_bytes()[:100])
    else:
        key = "8.keys.z"
        if damage == "NaN":
            tensors[key][0] = float("nan")
        elif damage == "float32":
            tensors[key] = tensors[key].float()
        else:
            tensors["weight"] = torch.zeros(2)
        save_file(tensors, path, metadata=metadata)
    with pytest.raises(ValueError, match="file: 'neurons.safetensors' holds no neurons saved by LoCo Neuron Save"):
        load_neurons(path)


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"concept": ["a star in woodcut"]}, "concept: 1 different prompts; a statistic needs 2 or more"),
        ({"concept": ["a star", "a star"]}, "concept: 1 different prompts"),
        ({"without": ["a star"]}, "without: 1 different prompts; a statistic needs 2 or more"),
        ({"without": WITH}, "is a prompt with the concept too; the two sets must differ"),
        ({"layers": LayerSet((), 16)}, "layers: empty; give at least one"),
        ({"others": [WITHOUT]}, "without: every prompt holds another concept; give plain ones too"),
    ],
)
def test_what_cannot_be_compared_is_refused(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        detect(**change)


@pytest.mark.parametrize(
    ("choose_by", "count", "sentence"),
    [
        (ChooseBy.COUNT, 65, "count: 65; there are 64 of these neurons in layers 8-9, so give 0 to 64"),
        (ChooseBy.COUNT_PER_LAYER, 25, "count: 25; there are 24 of these neurons in a layer, so give 0 to 24"),
        (ChooseBy.COUNT, -2, "count: -2"),
    ],
)
def test_more_neurons_than_there_are_cannot_be_chosen(neurons, choose_by, count, sentence):
    with pytest.raises(ValueError, match=sentence):
        chosen_neurons(neurons, choose_by, count)


@pytest.mark.parametrize("scale", [2.5, -0.1, float("nan")])
def test_a_scale_that_is_none_is_refused(neurons, scale):
    with pytest.raises(ValueError, match=f"scale: {scale}; give 0 to 2"):
        ablation(neurons, {}, Mode.SCALE, scale)
