"""What benchmarks/search.py measures of a batch of interventions in the host."""

from __future__ import annotations

import torch

from benchmarks.search_overhead import patch_overhead


def test_a_batch_with_interventions_is_timed_against_one_without(pack, demo):
    threads = torch.get_num_threads()
    try:
        overhead = patch_overhead(pack, demo, rows=2)
    finally:
        torch.set_num_threads(threads)
    assert 0.2 < overhead.ratio < 5  # of two rows, on a machine that does other things too
