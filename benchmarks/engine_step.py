"""What the processor itself takes of an engine's step: part of benchmarks.engine.

The throughput of two servers tells it only as far as a machine is quiet; this is the time of the very calls that runner
V1 makes, in this process, on logits of the served model's vocabulary.
"""

# torch and vllm need an environment of their own:
# pyright: reportMissingImports=false
from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from vllm import SamplingParams
from vllm.config import ModelConfig
from vllm.v1.sample.logits_processor import BatchUpdate

from governor_vllm.processor import GovernorLogitsProcessor

TABLES = 16
"""Different logits that rows are given in turn."""


def own_seconds(model: Path, rules: Mapping[str, Any], rows: int, thinks: int, steps: int) -> float:
    """Median seconds of one step's calls, `rows` requests under `rules` being in their thought for `thinks` tokens."""
    config = ModelConfig(model=str(model))
    known = SimpleNamespace(
        model_config=config,
        scheduler_config=SimpleNamespace(max_num_seqs=rows),
        speculative_config=None,
        parallel_config=SimpleNamespace(pipeline_parallel_size=1),
        additional_config={},
    )
    processor = GovernorLogitsProcessor(known, torch.device("cpu"))
    prompt = _prompt(config)
    tables = torch.randn(TABLES, rows, config.get_vocab_size(), generator=torch.Generator().manual_seed(0))
    outputs: list[list[int]] = [[] for _ in range(rows)]
    asked = SamplingParams(temperature=0.0, max_tokens=steps, extra_args=dict(rules) or None)
    begun = BatchUpdate(rows, (), [(row, asked, list(prompt), outputs[row]) for row in range(rows)], ())
    taken: list[float] = []
    for step in range(min(steps, thinks)):
        logits = tables[step % TABLES].clone()
        at = time.perf_counter()
        processor.update_state(None if step else begun)
        processor.apply(logits)
        taken.append(time.perf_counter() - at)
        for output, token in zip(outputs, logits.argmax(-1).tolist(), strict=True):
            output.append(token)
    return statistics.median(taken)


def _prompt(config: ModelConfig) -> list[int]:
    """Tokens of a prompt whose thought is open."""
    from vllm.tokenizers import cached_tokenizer_from_config

    tokenizer = cached_tokenizer_from_config(model_config=config)
    question = [{"role": "user", "content": "Explain step by step how you would sort five numbers by hand."}]
    text = tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
    return [*tokenizer.encode(text)]
