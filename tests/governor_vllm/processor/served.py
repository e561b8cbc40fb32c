"""The processor under stand-ins of the runners' configuration, on the toy model's tokens."""

# torch and vllm need an environment of their own:
# pyright: reportMissingImports=false
from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from vllm import SamplingParams

from governor_vllm import processor
from tests.governor_vllm.toy import SIZE, Request, Toy


def config(slots: int, drafts: int = 0, *, eos: Any = None, stages: int = 1, unread: bool = False, **more: Any) -> Any:
    """The part of a VllmConfig that is read. `eos`: that of the model's generation_config; None where it has none."""
    generation = {} if eos is None else {"eos_token_id": eos}
    return SimpleNamespace(
        model_config=SimpleNamespace(
            get_vocab_size=lambda: SIZE, try_get_generation_config=lambda: generation, skip_tokenizer_init=unread
        ),
        scheduler_config=SimpleNamespace(max_num_seqs=slots),
        speculative_config=SimpleNamespace(num_speculative_tokens=drafts) if drafts else None,
        parallel_config=SimpleNamespace(pipeline_parallel_size=stages),
        additional_config=more,
    )


def toy_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "cached_tokenizer_from_config", lambda model_config: Toy())


def params(request: Request) -> SamplingParams:
    args = None if request.stops is None else request.stops.args()
    return SamplingParams(temperature=0.0, max_tokens=request.max_tokens, extra_args=args)
