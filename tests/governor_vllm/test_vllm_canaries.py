"""What a server does is what its canaries say, whatever it answers."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from governor.errors import (
    BackendAuthError,
    BackendError,
    BackendRateLimitError,
    BackendReplyError,
    BackendRequestError,
    BackendUnavailableError,
)
from governor_vllm.canaries import examine
from governor_vllm.served import Budget, Served, Verdict
from tests.governor_vllm.calls import MODEL, backend, rung
from tests.governor_vllm.dialect import END, START, DialectServer

OTHERS = "".join(
    f'vllm:num_requests_{what}{{model_name="{name}"}} 1\n' for what in ("running", "waiting") for name in ("a", "b")
)


def verdicts(served: Served) -> dict[str, Verdict]:
    return {name: found.verdict for name, found in served.findings.items()}


def test_a_server_that_keeps_its_word_is_believed(server: DialectServer) -> None:
    server.now(processor=True, words=True, tools="lax")
    served = examine(server.url)
    found = verdicts(served)
    assert found.pop("priority") == "unproved"
    assert set(found.values()) == {"honoured"}
    assert (served.model, served.window, served.version, served.parses, served.opens) == (
        "q",
        2048,
        "0.32.0",
        True,
        True,
    )


@pytest.mark.parametrize(
    ("manner", "canary", "verdict"),
    [
        ({"budget": "ignored"}, "budget", "ignored"),
        ({"budget": "refused"}, "budget", "refused"),
        ({}, "xargs", "ignored"),
        ({"strange": "refused"}, "xargs", "refused"),
        ({"strange": "refused by name"}, "xargs", "refused"),
        ({"processor": True, "acts": False}, "governed", "ignored"),
        ({"processor": True, "tools": "held"}, "tools", "refused"),
        ({"processor": True, "tools": "off"}, "tools", "unproved"),
        ({"processor": True}, "strict", "refused"),
        ({}, "priority", "unproved"),
        ({"priority": False}, "priority", "refused"),
        ({"repetition": False}, "repetition", "ignored"),
        ({"counts": False}, "counts", "ignored"),
        ({"prefill": False}, "prefill", "ignored"),
        ({"switch": False}, "switch", "ignored"),
        ({"words": False}, "effort", "ignored"),
        ({"parser": False}, "reasoning", "ignored"),
        ({"metrics": "up 1\n"}, "metrics", "ignored"),
        ({"metrics": OTHERS}, "metrics", "ignored"),
        ({"opening": "", "parser": False}, "reasoning", "unproved"),
    ],
)
def test_a_yes_that_nothing_comes_of_is_seen(
    server: DialectServer, manner: dict[str, Any], canary: str, verdict: Verdict
) -> None:
    server.now(**manner)
    found = examine(server.url).findings[canary]
    assert found.verdict == verdict
    assert found.seen
    assert found.change or canary in {"repetition", "reasoning"}


# The traps of vLLM's budgets: what the prompt's template puts behind <think> counts, a start mark of several tokens
# runs over, and the forced end comes on top. `extra` is what each of them comes to.
@pytest.mark.parametrize(
    ("manner", "behind", "extra"),
    [
        ({"forced": END}, 1, 1),
        ({"forced": f"\n{END}"}, 1, 2),
        ({"forced": f"\n I must answer now.{END}"}, 1, 7),
        ({"opening": f"{START}\nLet me think about this step by step.\n", "forced": END}, 11, 1),
        ({"overrun": 3, "forced": END}, 1, 3 + 1),
    ],
)
def test_what_a_budget_counts_otherwise_is_measured(
    server: DialectServer, manner: dict[str, Any], behind: int, extra: int
) -> None:
    server.now(**manner, processor=True)
    served = examine(server.url)
    assert served.engine == Budget(extra - behind, prompt=True, least=extra)
    assert served.processor == Budget(extra, prompt=False, least=1 + extra)


def test_the_marks_of_a_known_family_are_found(server: DialectServer) -> None:
    usual = examine(server.url).marks
    server.now(processor=True, seed=True)
    served = examine(server.url)
    assert (usual, served.marks) == ((START, END), ("<seed:think>", "</seed:think>"))
    assert served.processor == Budget(2, prompt=False, least=3)
    assert (served.engine, served.opens) == (Budget(1, prompt=True, least=2), True)


def test_a_model_that_always_thinks_briefly_proves_nothing(server: DialectServer) -> None:
    server.now(thought=7)  # by itself it is done before the second budget is used up
    served = examine(server.url)
    assert served.engine is None
    assert served.findings["budget"].verdict == "unproved"
    assert "by itself" in served.findings["budget"].seen


def test_a_model_that_thinks_briefly_is_tried_in_a_thought_that_is_begun_for_it(server: DialectServer) -> None:
    begun = examine(server.url).engine
    server.now(thought=7, begun=60)
    briefly = examine(server.url)
    assert briefly.engine == begun


def test_a_server_that_is_not_there_or_not_one(server: DialectServer) -> None:
    with pytest.raises(BackendUnavailableError, match="can't be reached"):
        examine("http://127.0.0.1:9/v1")
    with pytest.raises(BackendRequestError, match=r"serves no model 'p' \(it serves q\)"):
        examine(server.url, "p")
    with pytest.raises(BackendRequestError, match="HTTP 404"):
        examine(server.url + "/elsewhere")


def test_a_server_of_another_kind(server: DialectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("governor_vllm.link.Link.get", lambda *_: "<html>")
    with pytest.raises(BackendReplyError, match="is it an OpenAI-compatible server"):
        examine(server.url)


def test_a_server_without_a_tokenizer_is_told_of_and_not_an_error(server: DialectServer) -> None:
    server.now(tokenizes=False)
    found = verdicts(examine(server.url))
    assert found["budget"] == found["resume"] == found["switch"] == "refused"
    assert found["counts"] == found["metrics"] == "honoured"


@pytest.mark.parametrize("manner", [{"processor": True}, {"parser": False}], ids=["all", "plain"])
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (503, BackendUnavailableError),
        (429, BackendRateLimitError),
        (401, BackendAuthError),
        (500, BackendUnavailableError),
    ],
)
def test_a_fault_that_passes_is_not_believed(
    server: DialectServer, manner: dict[str, Any], status: int, kind: type[BackendError]
) -> None:
    """Whichever request meets it: the call fails, and the next one proves anew. HTTP 500 is asked about once more."""
    server.now(**manner)
    lasting, faults, after = examine(server.url), 0, 0
    while True:
        server.fail(after, status)
        with closing(backend(server)) as made:
            try:
                made.ready(rung())
            except kind:
                faults += 1
            if server.fault is not None:
                break
            made.ready(rung())
            assert made._engine(MODEL).known == lasting
        after += 1
    assert after > 15
    assert faults == after if status != 500 else 0 < faults < 5


def test_a_server_that_fails_at_a_question_for_good_has_answered_it(server: DialectServer) -> None:
    server.now(tokenizes=False, untold=500)
    assert verdicts(examine(server.url))["resume"] == "refused"
    server.now(untold=503)
    with pytest.raises(BackendUnavailableError, match="HTTP 503"):
        examine(server.url)


@pytest.mark.parametrize(
    "answer",
    [
        *(None, 1, "x", [], {}),
        {"choices": [{"message": None}]},
        {"choices": [{"message": "hi"}], "tokens": None},
        {"tokens": ["a", "b"], "prompt": 5, "choices": [{"message": {}, "finish_reason": "stop"}], "usage": None},
        {"tokens": [1e999], "prompt": "x"},
    ],
    ids=repr,
)
def test_answers_of_another_shape_prove_nothing(
    server: DialectServer, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    monkeypatch.setattr("governor_vllm.link.Link.post", lambda *_: answer)
    found = verdicts(examine(server.url))
    assert found.pop("counts") == found.pop("metrics") == "honoured", "which are asked otherwise"
    assert "honoured" not in found.values()
