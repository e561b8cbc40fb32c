"""Which of vLLM's parsers a model family needs, and its marks. The first pattern that matches the model's name wins.

Sources: the model cards' own vLLM recipes, and the parsers that vLLM 0.32 registers (tests/governor_vllm checks that
each name here is one of them). The models themselves were not run where this was written.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True, slots=True)
class Family:
    """Names of vLLM's parsers; empty where the family needs none."""

    patterns: tuple[str, ...]
    reasoning: str = ""
    tools: str = ""
    marks: tuple[str, str] | None = None
    """Around a thought, where they are not `<think>` and `</think>`."""


FAMILIES: tuple[Family, ...] = (
    Family(("*qwen3-coder*",), tools="qwen3_coder"),
    Family(("*qwen3-*instruct*",), tools="hermes"),
    Family(("*qwen3.5*", "*qwen3.6*"), "qwen3", "qwen3_coder"),
    Family(("*deepseek-r1-distill*", "*deepseek-r1-0528-qwen*"), "deepseek_r1"),
    Family(("*qwen3*", "*qwq*"), "qwen3", "hermes"),
    Family(("*deepseek-r1*",), "deepseek_r1", "deepseek_v3"),
    Family(("*deepseek-v3.1*",), "deepseek_v3", "deepseek_v31"),
    Family(("*gpt-oss*",), "openai_gptoss", "openai"),
    Family(("*glm-4.5*", "*glm-4.6*"), "glm45", "glm45"),
    Family(("*glm-4.7*",), "glm45", "glm47"),
    Family(("*minimax-m2*",), "minimax_m2", "minimax_m2"),
    Family(("*kimi-k2-thinking*",), "kimi_k2", "kimi_k2"),
    Family(("*kimi-k2*",), tools="kimi_k2"),
    Family(("*seed-oss*",), "seed_oss", "seed_oss", ("<seed:think>", "</seed:think>")),
    Family(("*magistral*",), "mistral", "mistral"),
    Family(("*mistral*", "*ministral*", "*devstral*"), tools="mistral"),
    Family(("*granite-3*",), "granite", "granite"),
    Family(("*qwen2.5*",), tools="hermes"),
    Family(("*llama-3*", "*llama3*"), tools="llama3_json"),
)


def family_of(model: str) -> Family | None:
    """The family of a model by its name or path; None where none is known."""
    name = model.rstrip("/").lower()
    return next((one for one in FAMILIES if any(fnmatchcase(name, pattern) for pattern in one.patterns)), None)
