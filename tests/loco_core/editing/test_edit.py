from __future__ import annotations

import weakref

import pytest
import torch

from loco_core.editing.closed_form import EditOperator
from loco_core.editing.recipe import EditRecipe, Preservation, Tokens, combined
from loco_core.editing.report import edit_report
from loco_core.editing.solve import PROMPTS_AT_ONCE, solve_edit
from loco_core.editing.token_pairs import token_pairs
from loco_core.models.engine import Encode, TextEmbedding
from loco_core.models.layers import LayerSet
from made_up import POOLED, WIDTH, chunk, encode, recipe, shared_operator


def embedding(tokens: int, *last_subjects: int, seed: int) -> TextEmbedding:
    """A prompt of chunks of so many tokens, each with its own last subject token."""
    chunks = tuple(chunk(last, tokens, start=place * tokens) for place, last in enumerate(last_subjects))
    values = torch.randn(tokens * len(chunks), 8, generator=torch.Generator().manual_seed(seed))
    return TextEmbedding(f"prompt {seed}", values, chunks)


def last_subject(embedding: TextEmbedding) -> torch.Tensor:
    """The last subject token of a short prompt."""
    return embedding.tokens[embedding.chunks[0].last_subject]


def paired(tokens: Tokens, concept: TextEmbedding, target: TextEmbedding) -> list[tuple[int, int]]:
    """Which row of the concept is paired with which of the target."""
    found = token_pairs(concept, target, tokens)

    def rows(part: torch.Tensor, source: TextEmbedding) -> list[int]:
        return [int((source.tokens.double() - column).abs().sum(1).argmin()) for column in part.T]

    return list(zip(rows(found[0], concept), rows(found[1], target), strict=True))


def solved(asked: EditRecipe, encoder: Encode = encode) -> EditOperator:
    return shared_operator(solve_edit(encoder, asked))


def test_the_last_subject_token_is_one_column_per_prompt():
    assert paired(Tokens.LAST_SUBJECT, embedding(77, 6, seed=1), embedding(77, 2, seed=2)) == [(6, 2)]


def test_all_subject_tokens_are_paired_from_the_last_one_backwards():
    pairs = paired(Tokens.ALL_SUBJECT, embedding(77, 4, seed=1), embedding(77, 3, seed=2))
    assert pairs == [(1, 1), (2, 1), (3, 2), (4, 3)]


def test_words_that_both_prompts_begin_with_are_paired_with_themselves():
    concept, target = embedding(77, 4, seed=1), embedding(77, 3, seed=2)
    same = torch.cat([concept.tokens[:2], target.tokens[2:]])
    pairs = paired(Tokens.ALL_SUBJECT, concept, TextEmbedding("", same, target.chunks))
    assert pairs == [(1, 1), (2, 2), (3, 2), (4, 3)]


def test_end_of_text_is_paired_with_end_of_text():
    assert paired(Tokens.END_OF_TEXT, embedding(77, 6, seed=1), embedding(77, 2, seed=2)) == [(7, 3)]


def test_the_tail_pairs_end_with_end_and_padding_by_position():
    pairs = paired(Tokens.TAIL, embedding(77, 6, seed=1), embedding(77, 2, seed=2))
    assert pairs == [(6, 2), (7, 3), *((place, place) for place in range(8, 77))]


def test_a_prompt_that_fills_its_chunk_has_no_padding_to_pair():
    assert paired(Tokens.TAIL, embedding(77, 75, seed=1), embedding(77, 2, seed=2)) == [(75, 2), (76, 3)]


def test_padding_where_the_target_still_has_words_is_left_as_it_is():
    pairs = paired(Tokens.TAIL, embedding(12, 3, seed=1), embedding(12, 7, seed=2))
    assert pairs == [(3, 7), (4, 8), (9, 9), (10, 10), (11, 11)]


@pytest.mark.parametrize("length", [12, 77, 248])
@pytest.mark.parametrize(
    ("tokens", "first", "last"),
    [
        (Tokens.LAST_SUBJECT, [(10, 10)], [(3, 2)]),
        (Tokens.END_OF_TEXT, [(11, 11)], [(4, 3)]),
        (Tokens.ALL_SUBJECT, [(place, place) for place in range(1, 11)], [(1, 1), (2, 1), (3, 2)]),
    ],
)
def test_each_chunk_of_a_long_prompt_is_paired_with_the_targets_chunk_of_its_place(tokens, first, last, length):
    concept, target = embedding(length, 10, 3, seed=1), embedding(length, 10, 2, seed=2)
    expected = first + [(length + own, length + other) for own, other in last]
    assert paired(tokens, concept, target) == expected


def test_every_word_of_a_chunk_that_goes_on_is_its_tail_for_it_carries_what_stands_before_it():
    pairs = paired(Tokens.TAIL, embedding(6, 4, 1, seed=1), embedding(6, 4, 1, seed=2))
    assert pairs == [(place, place) for place in [1, 2, 3, 4, 5, *range(7, 12)]]


def test_a_shorter_targets_last_chunk_is_paired_with_all_further_chunks_of_the_concept():
    pairs = paired(Tokens.LAST_SUBJECT, embedding(12, 10, 10, 3, seed=1), embedding(12, 2, seed=2))
    assert pairs == [(10, 2), (22, 2), (27, 2)]


def test_a_longer_targets_further_chunks_are_paired_with_the_concepts_last_chunk():
    pairs = paired(Tokens.LAST_SUBJECT, embedding(12, 3, seed=1), embedding(12, 10, 2, seed=2))
    assert pairs == [(3, 10), (3, 14)]


def test_an_encoder_without_padding_gives_an_empty_target_fewer_tokens_than_the_concept_has():
    concept, empty = embedding(5, 3, seed=1), embedding(2, 0, seed=2)
    assert paired(Tokens.TAIL, concept, empty) == [(3, 1), (4, 1)]


def test_a_concept_without_words_is_refused():
    with pytest.raises(ValueError, match="concept: empty"):
        token_pairs(embedding(12, 0, seed=1), embedding(12, 2, seed=2), Tokens.TAIL)


def long_prompts(prompts) -> list[TextEmbedding]:
    """Prompts whose chunks are written with a bar between them, each encoded alone."""
    found = []
    for prompt in prompts:
        parts = encode(prompt.split("|"))
        chunks = tuple(chunk(part.chunks[0].last_subject, start=77 * place) for place, part in enumerate(parts))
        found.append(TextEmbedding(prompt, torch.cat([part.tokens for part in parts]), chunks))
    return found


@pytest.mark.parametrize("concept", ["woodcut|by day|at sea", "by day|woodcut|at sea", "by day|at sea|woodcut"])
def test_a_concept_is_edited_in_whichever_chunk_it_stands(concept):
    edit = solve_edit(long_prompts, recipe([concept], concept.replace("woodcut", "a painting"), relative_ridge=0.01))
    (woodcut,) = encode(["woodcut"])
    own = woodcut.tokens[woodcut.chunks[0].end_of_text].double()[:, None]
    change = shared_operator(edit).change(own)
    assert torch.linalg.norm(change) > 0.5 * torch.linalg.norm(own)


def test_every_chunk_of_a_long_preserved_prompt_is_preserved():
    edit = solve_edit(long_prompts, recipe(preserve=["by day|at sea"], tokens=Tokens.LAST_SUBJECT))
    for part in encode(["by day", "at sea"]):
        own = part.tokens[part.chunks[0].last_subject].double()[:, None]
        # the tolerance of PRESERVED_TOLERANCE, below which directions are not preserved
        assert torch.linalg.norm(shared_operator(edit).change(own)) < 0.05 * torch.linalg.norm(own)


def test_a_preserved_token_of_zeros_changes_by_nothing():
    def encode_with_zeros(prompts):
        found = encode(prompts)
        for embedding in found:
            embedding.tokens[-1] = 0
        return found

    asked = recipe(preserve=["a cat"], tokens=Tokens.LAST_SUBJECT)
    assert "nan" not in str(edit_report(solve_edit(encode_with_zeros, asked)))


def test_an_empty_target_is_what_the_empty_prompt_has_in_each_place():
    pairs = paired(Tokens.TAIL, embedding(77, 3, seed=1), embedding(77, 0, seed=2))
    assert pairs == [(3, 3), (4, 4), *((place, place) for place in range(5, 77))]


def test_the_relative_ridge_does_not_depend_on_the_scale_of_the_embeddings():
    def larger(prompts):
        return [TextEmbedding(e.prompt, 100 * e.tokens, e.chunks) for e in encode(prompts)]

    one, other = (solved(recipe(), encoder) for encoder in (encode, larger))
    # the embeddings are float32: scaling them by 100 rounds once
    torch.testing.assert_close(one.up @ one.down, other.up @ other.down, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("preservation", [Preservation.EXACT, Preservation.WEIGHTED])
def test_what_is_preserved_changes_less_than_without(preservation):
    asked = dict(preserve=["a cat"], tokens=Tokens.LAST_SUBJECT, relative_ridge=0.01)
    kept = encode(["a cat"])[0].tokens[2].double()
    changes = {}
    for name in (Preservation.NONE, preservation):
        operator = solved(recipe(["a cat in woodcut"], **asked, preservation=name))
        changes[name] = torch.linalg.norm(operator.change(kept[:, None])) / torch.linalg.norm(kept)
    assert changes[Preservation.NONE] > 0.05
    assert changes[preservation] < 0.2 * changes[Preservation.NONE]


def test_the_figures_are_what_they_say():
    asked = recipe(
        ["woodcut", "a halftone"], preserve=["a cat"], tokens=Tokens.LAST_SUBJECT, preservation=Preservation.EXACT
    )
    edit = solve_edit(encode, asked)
    operator = shared_operator(edit)
    concepts = torch.stack([last_subject(e) for e in encode(["woodcut", "a halftone"])], 1).double()
    targets = torch.stack([last_subject(e) for e in encode(["a painting"] * 2)], 1).double()
    left = concepts + operator.change(concepts) - targets
    assert edit.figures.residual == pytest.approx((left.norm() / (targets - concepts).norm()).item())
    assert edit.figures.rank == operator.rank == 2
    assert edit.figures.kept_error <= 1e-12
    kept = torch.cat([e.tokens for e in encode(["a painting", "", "a cat"])]).double().T
    moved = operator.change(kept).norm(dim=0) / kept.norm(dim=0)
    assert edit.figures.token_error == pytest.approx(moved.max().item())
    assert len(edit.figures.room) == 2
    assert all(0 < share < 1 for share in edit.figures.room)


@pytest.mark.parametrize("preservation", list(Preservation))
def test_the_order_of_the_concepts_does_not_matter(preservation):
    names = ["woodcut", "a halftone", "blueprint by day", "stained glass"]
    one, other = (solved(recipe(order, preservation=preservation)) for order in (names, names[::-1]))
    # products of the embeddings, which are float32, are float32 too
    assert (one.up @ one.down - other.up @ other.down).abs().max() <= 1e-4


@pytest.mark.parametrize(
    "asked",
    [
        recipe([f"artist {number}" for number in range(40)]),
        recipe([f"artist {number}" for number in range(40)], preserve=["a cat"]),
        recipe([f"artist {number}" for number in range(40)], preservation=Preservation.EXACT),
    ],
)
def test_the_embeddings_of_many_concepts_are_not_kept(asked):
    """SDXL's take 0.6 MB each: they are asked for in parts, and gone when the next part is."""
    alive: list[weakref.ref] = []

    def counted(prompts):
        assert sum(reference() is not None for reference in alive) <= 2 + len(asked.preserve) + PROMPTS_AT_ONCE
        made = encode(prompts)
        alive.extend(weakref.ref(embedding.tokens) for embedding in made)
        return made

    assert solved(asked, counted).rank > 1
    assert len(alive) == 43 + len(asked.preserve)  # 40 concepts, the target, nothing, and the fingerprint


@pytest.mark.parametrize("preservation", [Preservation.EXACT, Preservation.WEIGHTED])
def test_a_concept_that_is_itself_preserved_is_refused(preservation):
    with pytest.raises(ValueError, match="preserve: 'woodcut' is to be removed too"):
        solve_edit(encode, recipe(preserve=["woodcut"], preservation=preservation))


def encode_with_room(room: float):
    """A text encoder for which that share of woodcut's last token lies outside what all other prompts consist of."""
    (woodcut,) = encode(["woodcut"])
    own = last_subject(woodcut)
    across = torch.randn(WIDTH, generator=torch.Generator().manual_seed(0))
    across -= (across @ own) / (own @ own) * own
    others = 2 * ((1 - room**2) ** 0.5 * own + room * own.norm() * across / across.norm()).repeat(77, 1)

    def run(prompts):
        return [woodcut if prompt == "woodcut" else TextEmbedding(prompt, others, (chunk(1),)) for prompt in prompts]

    return run


def test_a_concept_of_which_nothing_lies_outside_what_is_preserved_is_refused():
    with pytest.raises(ValueError, match="preserve: only 0.0% of 'woodcut' is left outside"):
        solve_edit(encode_with_room(0), recipe(tokens=Tokens.LAST_SUBJECT, preservation=Preservation.EXACT))


def test_a_prompt_that_is_its_own_target_needs_no_room():
    asked = recipe(["woodcut", "a painting"], tokens=Tokens.LAST_SUBJECT, preservation=Preservation.EXACT)
    edit = solve_edit(encode, asked)
    assert edit.figures.room[1] == 1
    assert edit.figures.room[0] < 1


def test_a_concept_with_little_room_is_warned_of():
    asked = recipe(tokens=Tokens.LAST_SUBJECT, preservation=Preservation.EXACT)
    little, enough = (edit_report(solve_edit(encode_with_room(room), asked)).result[-1] for room in (0.05, 0.5))
    assert little.startswith('WARNING: only 5.0% of "woodcut" lies outside what is preserved')
    assert "WARNING" not in enough


def test_the_pooled_embedding_has_an_operator_of_its_own():
    edit = solve_edit(encode, recipe(pooled=True, preservation=Preservation.EXACT))
    assert edit.width == shared_operator(edit).width == WIDTH
    assert edit.pooled.width == POOLED
    empty = encode([""])[0].pooled.double()[:, None]
    assert edit.pooled.change(empty).abs().max() <= 1e-12


def test_a_text_encoder_without_a_pooled_embedding_is_refused_one():
    def plain(prompts):
        return [TextEmbedding(e.prompt, e.tokens, e.chunks) for e in encode(prompts)]

    with pytest.raises(ValueError, match="pooled: .* switch it off"):
        solve_edit(plain, recipe(pooled=True))


def test_combined_edits_are_solved_jointly_and_not_added():
    first, second = recipe(["woodcut"], preserve=["a cat"]), recipe(["halftone"])
    joint = solved(combined([first, second], encode, "a text encoder"))
    turned = solved(combined([second, first], encode, "a text encoder"))
    together = solved(recipe(["woodcut", "halftone"], preserve=["a cat"]))
    torch.testing.assert_close(joint.up @ joint.down, together.up @ together.down, rtol=0, atol=1e-10)
    # in another order, products of float32 embeddings round otherwise
    torch.testing.assert_close(joint.up @ joint.down, turned.up @ turned.down, rtol=0, atol=1e-4)
    parts = [solved(part) for part in (first, second)]
    assert (joint.up @ joint.down - sum(part.up @ part.down for part in parts)).norm() > 0.01


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (recipe(["halftone"], layers=LayerSet((6,), 16)), "their layers differ"),
        (recipe(["halftone"], layers=LayerSet((8, 9), 70)), "models' numbers of layers differ .16 and 70"),
        (recipe(["halftone"], pooled=True), "their pooled differ .False and True"),
        (recipe(["halftone"], preserve=["woodcut"]), "'woodcut' is to be removed too"),
    ],
)
def test_edits_that_do_not_go_together_are_refused(other, message):
    with pytest.raises(ValueError, match=message):
        solve_edit(encode, combined([recipe(), other], encode, "a text encoder"))
