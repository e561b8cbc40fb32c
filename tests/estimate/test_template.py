from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from governor.estimate.evidence import BANDS, OTHERS, Evidence
from governor.estimate.template import NODE_CLUSTERS, Templates, sketch
from governor.records import Step

TEMPLATES = (
    "Return the shortest path through the maze from {} to {}. Give only the moves, nothing else.",
    "Extract the order number from this ticket about {} and {}: answer with one field in JSON.",
    "Prove that the sum of {} and {} is never a prime, step by step, and check each case on its own.",
    "{} {} Please write a friendly summary of the conversation above in one sentence for our customer.",
)
FILL = ("alpha", "Berlin 12", "the red car", "9981.5", "x*y", "someone's dog")


def step(prompt: str, node: str = "default") -> Step:
    return Step(id="s", messages=({"role": "user", "content": prompt},), node=node)


class Memory:
    """Clusters as they come to be while prompts arrive."""

    def __init__(self) -> None:
        self.evidence = Evidence()

    def see(self, prompt: str, node: str = "default") -> str:
        name, seen = Templates(self.evidence).find(step(prompt, node))
        if name not in self.evidence.clusters:
            new = Evidence((), (OTHERS, name), np.stack([np.zeros_like(seen), seen]), np.zeros((2, 0, 5)))
            self.evidence = self.evidence.plus(new)
        return name


def test_prompts_of_one_template_fall_together_and_of_different_ones_apart() -> None:
    memory = Memory()
    names = [
        {memory.see(template.format(first, second)) for first in FILL for second in FILL} for template in TEMPLATES
    ]
    assert [len(found) for found in names] == [1] * len(TEMPLATES)
    assert len(set.union(*names)) == len(TEMPLATES)


def test_a_named_node_keeps_its_own_clusters() -> None:
    memory = Memory()
    prompt = TEMPLATES[0].format("a", "b")
    assert len({memory.see(prompt, node) for node in ("default", "plan", "act", "plan|odd")}) == 4
    assert memory.see(TEMPLATES[0].format("c", "d"), "plan") == memory.see(prompt, "plan")


def test_a_node_of_ever_new_prompts_ends_in_one_mixed_cluster() -> None:
    memory = Memory()
    words = np.array([f"{a}{b}{c}" for a in "bdfgklmn" for b in "aeiou" for c in "prstvz"])
    random = np.random.default_rng(1)
    names = [memory.see(" ".join(random.choice(words, 25, replace=False)), "chat") for _ in range(60)]
    assert names[-20:].count("chat|") > 15
    assert len(set(names)) == NODE_CLUSTERS + 1


def test_a_prompt_without_words_is_of_no_template() -> None:
    for prompt in ("", "12 + 7 =", "= ? !"):
        assert Templates().find(step(prompt))[0] == OTHERS
        assert Templates().find(step(prompt, "sum"))[0] == "sum|"


@given(st.text(max_size=2_000))
def test_any_text_has_a_sketch(text: str) -> None:
    seen = sketch(text)
    assert seen.shape == (BANDS,)
    assert seen.dtype == np.uint32
    assert np.array_equal(seen, sketch(text))


def test_a_sketch_does_not_depend_on_the_process() -> None:
    text = TEMPLATES[2].format("seven", "eight")
    code = f"from governor.estimate.template import sketch; print(sketch({text!r}).tolist())"
    for seed in ("1", "2"):
        printed = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert printed.strip() == str(sketch(text).tolist())
