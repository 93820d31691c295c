"""The search on the stored scores of the demo model."""

from __future__ import annotations

import pytest

pytest.importorskip("diffusers")

from benchmarks.score_tables import concepts
from benchmarks.search import PLANTED, verdicts


@pytest.mark.parametrize("name", concepts())
def test_styles_and_facts_are_localized_where_they_were_planted_and_objects_are_not(name):
    attribute, _ = concepts()[name]
    planted = PLANTED.get(attribute)
    expected = f"localized: layers {planted}" if planted else "spread over several layers"
    assert verdicts()[name].startswith(expected)
