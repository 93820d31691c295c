"""What a person sees of the nodes: explanations, words they are found by, inputs that are not folded away.

FIRST_SEEN is the specification: the sockets and widgets of a freshly added node, in their order, while its advanced
inputs are folded.
"""

from __future__ import annotations

import re

import pytest

IMAGES = "seed_count steps cfg"
COMPARED = f"concept_prompts target_prompts keep_prompts {IMAGES}"
FIRST_SEEN = {
    "LoCo_CLIPScorer": "file",
    "LoCo_CLIPVisionScorer": "clip clip_vision",
    "LoCo_Probe": "model clip concept_prompts target_prompts",
    "LoCo_LayerSearch": "model clip vae scorer concept_prompts target_prompts",
    "LoCo_LayerSelect": "model layers preset",
    "LoCo_LayersLoad": "file",
    "LoCo_ConditioningInjector": "model conditioning layers strength",
    "LoCo_Remove": "model clip concept preserve",
    "LoCo_EditApply": "model edit strength",
    "LoCo_EditSolve": "clip layers model concept target preserve attribute",
    "LoCo_EditCheck": "model clip edit strength",
    "LoCo_EditCombine": "clip edit_1 edit_2 edit_3 edit_4 edit_5 model",
    "LoCo_EditSave": "edit filename_prefix",
    "LoCo_EditLoad": "file",
    "LoCo_EditExportLoRA": "model edit strength filename_prefix",
    "LoCo_ErasureReport": f"model_before model_after clip vae scorer {COMPARED}",
    "LoCo_NeuronDetect": "model clip layers concept without",
    "LoCo_NeuronAblate": "model neurons clip count mode",
    "LoCo_NeuronSave": "neurons filename_prefix",
    "LoCo_NeuronLoad": "file",
    "LoCo_NeuronSweep": f"model clip vae scorer neurons counts mode {COMPARED}",
    "LoCo_NeuronEffects": f"model clip vae scorer neurons mode {COMPARED}",
    "LoCo_NeuronExportLoRA": "model neurons count mode filename_prefix",
}
# What people type into the search for nodes, and a node that must then be offered.
TYPED = {
    "erase": "LoCo_Remove",
    "remove": "LoCo_Remove",
    "remove style": "LoCo_Remove",
    "remove artist": "LoCo_Remove",
    "delete concept": "LoCo_Remove",
    "concept erasure": "LoCo_Remove",
    "unlearn": "LoCo_Remove",
    "forget": "LoCo_Remove",
    "knowledge": "LoCo_EditSolve",
    "apply edit": "LoCo_EditApply",
    "block prompt": "LoCo_ConditioningInjector",
    "prompt per layer": "LoCo_ConditioningInjector",
    "give layers another prompt": "LoCo_ConditioningInjector",
    "regional": "LoCo_ConditioningInjector",
    "find layers": "LoCo_LayerSearch",
    "layer map": "LoCo_Probe",
    "where": "LoCo_Probe",
    "locate": "LoCo_LayerSearch",
    "locate style": "LoCo_LayerSearch",
    "find style layers": "LoCo_LayerSearch",
    "where does the style live": "LoCo_Probe",
    "layers 8-9": "LoCo_LayerSelect",
    "did it work": "LoCo_EditCheck",
    "clip score": "LoCo_CLIPScorer",
    "before after": "LoCo_ErasureReport",
    "neuron": "LoCo_NeuronAblate",
    "xy plot": "LoCo_NeuronSweep",
    "save lora": "LoCo_EditExportLoRA",
    "locogen layer search": "LoCo_LayerSearch",  # what the paper and earlier versions call them
    "locoedit apply": "LoCo_EditApply",
    "per-layer conditioning injector": "LoCo_ConditioningInjector",
}
# Words of the implementation, which say nothing to a person with a checkpoint.
INTERNAL = re.compile(r"\b(77|attn2|to_k|to_v)\b")


@pytest.fixture(params=FIRST_SEEN)
def schema(host, request):
    return host.nodes.NODE_CLASS_MAPPINGS[request.param].GET_SCHEMA()


def test_the_table_has_every_node(host):
    assert set(FIRST_SEEN) == {name for name in host.nodes.NODE_CLASS_MAPPINGS if name.startswith("LoCo_")}


def test_a_node_shows_what_a_first_time_user_needs_and_folds_the_rest(schema):
    assert [socket.id for socket in schema.inputs if not socket.advanced] == FIRST_SEEN[schema.node_id].split()


def test_the_host_is_told_which_inputs_are_advanced(host, schema):
    told = host.nodes.NODE_CLASS_MAPPINGS[schema.node_id].INPUT_TYPES()
    options = {name: of[1] for group in ("required", "optional") for name, of in told.get(group, {}).items()}
    assert {name for name, of in options.items() if not of.get("advanced")} == set(FIRST_SEEN[schema.node_id].split())


def test_a_node_its_inputs_and_its_outputs_are_explained_in_a_persons_words(schema):
    texts = {part.id or part.display_name: part.tooltip for part in (*schema.inputs, *schema.outputs)}
    assert [name for name, text in texts.items() if not text] == []
    assert schema.description
    assert [text for text in (schema.description, *texts.values()) if INTERNAL.search(text)] == []


def test_a_node_that_says_something_has_it_as_an_output_too(host, schema):
    """What is only shown is lost to whoever runs a graph without a browser, or closes the subgraph that it is in."""
    says = any(hidden.value == "UNIQUE_ID" for hidden in schema.hidden)
    assert says == any(output.get_io_type() == "STRING" for output in schema.outputs)


def test_a_node_is_found_by_other_words_than_its_name(schema):
    assert schema.search_aliases
    assert len(set(schema.search_aliases)) == len(schema.search_aliases)
    assert all(alias == alias.lower() for alias in schema.search_aliases)


@pytest.mark.parametrize(("typed", "node_id"), TYPED.items())
def test_what_people_type_leads_to_a_node(host, typed, node_id):
    aliases = host.nodes.NODE_CLASS_MAPPINGS[node_id].GET_SCHEMA().search_aliases
    assert any(typed in alias for alias in aliases)


def test_every_default_of_a_combo_is_one_of_its_options(schema):
    combos = [socket for socket in schema.inputs if hasattr(socket, "options") and socket.default is not None]
    assert [socket.id for socket in combos if socket.default not in socket.options] == []
