"""Work in several processes, and what a benchmark says while it is at it."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import torch


def in_processes() -> ProcessPoolExecutor:
    """As many processes of one thread as PyTorch would take threads, which gain little in small batches."""
    spawning = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(torch.get_num_threads(), spawning, torch.set_num_threads, (1,))


def say(line: str) -> None:
    print(line, flush=True)
