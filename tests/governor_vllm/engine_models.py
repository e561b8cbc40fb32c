"""Small models for a real vLLM: SmolLM2 where it can be converted, else random weights made here.

`python -m tests.governor_vllm.engine_models FOLDER` makes two of the same weights and prints which they are:
`stock`, whose tokenizer knows no `<think>`, so that it takes several, and `thinking`, where `<think>` and `</think>`
are one token each. Neither has learned to think: they show what the engine enforces, not what it is good for.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

TEMPLATE = (
    "{%- for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n"
    "{%- if enable_thinking is not defined or enable_thinking %}{{ OPENING }}{% endif %}{% endif %}"
)
"""A chat template that opens the thought, as those of reasoning models do."""

MERGED, APART, LONG = "<think>> ", "<think> ", "<think>\nLet me think about this step by step.\n"
"""Openings: one whose last letter a tokenizer without the mark merges with what follows, as Qwen's does with a line
break; one that stays apart; and one that says more."""

_UNUSED = ("<jupyter_start>", "<jupyter_text>")  # special tokens of SmolLM2 that chats never use
_CONVERTER = Path(__file__).parents[3] / "shared" / "models" / "gguf_to_hf.py"
_TEXT = (
    "Explain step by step how you would sort five numbers by hand. First I look at the numbers. Then I compare two "
    "of them and swap them where they stand the wrong way round. What is six times seven? The answer is forty-two. "
    "Think of many >> one >> two. Let me think about this step by step. <think> </think> Wait, I must answer now. "
)


def template(opening: str) -> str:
    """The chat template with an opening."""
    return TEMPLATE.replace("OPENING", json.dumps(opening))


def make(folder: Path) -> str:
    """Make `folder/stock` and `folder/thinking`; the name of what they are made of."""
    kind = "SmolLM2-135M" if _converted(folder / "stock") else _random(folder / "stock")
    _thinking(folder / "stock", folder / "thinking")
    return kind


def _converted(folder: Path) -> bool:
    """SmolLM2's file as vLLM reads it; False where the file or the converter is not here."""
    name = "smollm2-135m-instruct-q4_1.gguf"
    places = [os.environ.get("GOVERNOR_MODELS", ""), str(Path.home() / ".cache" / "compute-governor" / "models")]
    found = next((path for place in places if place and (path := Path(place) / name).is_file()), None)
    if found is None or not _CONVERTER.is_file():
        return False
    done = subprocess.run([sys.executable, str(_CONVERTER), str(found), str(folder)], capture_output=True, check=False)
    if done.returncode != 0:
        shutil.rmtree(folder, ignore_errors=True)
        return False
    (folder / "chat_template.jinja").write_text(template(APART), encoding="utf-8")
    return True


def _random(folder: Path) -> str:
    """A model of two small layers with random weights and a tokenizer trained on a few sentences."""
    tokenizers, transformers, torch = (import_module(name) for name in ("tokenizers", "transformers", "torch"))
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *_UNUSED]
    trained = tokenizers.ByteLevelBPETokenizer()
    trained.train_from_iterator([_TEXT] * 50, vocab_size=600, min_frequency=1, special_tokens=marks)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=trained._tokenizer,
        eos_token="<|im_end|>",
        bos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
    )
    fast.chat_template = template(APART)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=max(640, len(fast)), hidden_size=128, intermediate_size=256, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=4096, tie_word_embeddings=True,
        bos_token_id=fast.bos_token_id, eos_token_id=fast.eos_token_id,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return "random weights"


def _thinking(source: Path, folder: Path) -> None:
    """The same weights, with two unused tokens renamed to the marks of a thought."""
    shutil.copytree(source, folder)
    path = folder / "tokenizer.json"
    whole = json.loads(path.read_text(encoding="utf-8"))
    vocabulary, added = whole["model"]["vocab"], whole["added_tokens"]
    for unused, mark in zip(_UNUSED, ("<think>", "</think>"), strict=True):
        number = next(one["id"] for one in added if one["content"] == unused)
        vocabulary.pop(unused, None)
        vocabulary[mark] = number
        plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
        added = [one for one in added if one["id"] != number] + [{"id": number, "content": mark, **plain}]
    whole["added_tokens"] = sorted(added, key=lambda one: int(one["id"]))
    path.write_text(json.dumps(whole, ensure_ascii=False), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(template(LONG), encoding="utf-8")


if __name__ == "__main__":
    print(make(Path(sys.argv[1])))  # noqa: T201 - its one result
