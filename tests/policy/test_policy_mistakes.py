# ruff: noqa: E501 - tables of odd inputs read best with one case a line
"""Every kind of mistake in a policy file: one problem, at exactly this line and column, with this hint."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from governor.errors import PolicyError
from governor.policy import Finding, Policy, inspect_policy, load_policy


class Case(NamedTuple):
    name: str
    text: str
    line: int
    column: int
    field: str
    message: str
    hint: str


RUNG = "ladder: [{id: a, model: m}]\n"
HEAD = "version: 1\n"
ONE_KEY = (
    "options stand inside, {regex: {pattern: ..., mode: ...}}; several verifiers in a list, [complete, {regex: ...}]"
)
LIMITED = HEAD + "models: {m: {max_output_tokens: 1000, context_window: 5000}, n: {context_window: 500}}\n"

CASES = [
    Case("empty file", "", 1, 1, "", "the policy is empty", "`governor init` writes a starter"),
    Case("only comments", "# nothing\n\n", 1, 1, "", "the policy is empty", "`governor init` writes a starter"),
    Case("a list", "- a\n- b\n", 1, 1, "", "a policy is a mapping (key: value)", ""),
    Case("tab", "version: 1\nbudget:\n\tstep: 1\n", 3, 1, "", "a tab begins the line or value", "indent with spaces"),
    Case(
        "colon in text", HEAD + RUNG + "app: a: b\n", 3, 7, "", "':' where no key can be",
        "quote text with ': ', or mend the indentation",
    ),
    Case("open quote", HEAD + "app: 'a\n", 2, 6, "", "a quote is never closed", "add the closing quote"),
    Case("open bracket", HEAD + "ladder: [a", 2, 11, "", "not valid YAML", "check indentation, brackets and quotes"),
    Case("two documents", HEAD + "---\nb: 1\n", 2, 1, "", "the file holds more than one document", "remove the '---' line"),
    Case("unknown alias", HEAD + "ladder: *x\n", 2, 9, "", "not valid YAML: found undefined alias", "define it with '&name' further up"),
    Case("control character", HEAD + "app: a\x07b\n", 2, 7, "", "character '\\x07' is not allowed in YAML", "remove it"),
    Case("yaml 1.1", "%YAML 1.1\n---\nversion: 1\n", 1, 1, "", "policies are YAML 1.2, not 1.1", "remove the line"),
    Case("tag", HEAD + RUNG + "app: !x a\n", 3, 6, "", "tag '!x' is not supported", "remove it"),
    Case("number key", HEAD + RUNG + "models:\n  1: {}\n", 4, 3, "", "a key must be text", "put it in quotes"),
    Case("duplicate key", HEAD + RUNG + "dial: 0.1\ndial: 0.2\n", 4, 1, "", "key 'dial' stands twice", "first on line 3; remove one"),
    Case("circular alias", HEAD + RUNG + "verify: &v [*v]\n", 3, 9, "", "nested too deeply", ""),
    Case("no version", RUNG, 1, 1, "version", "missing key 'version'", "add 'version: 1' at the top"),
    Case("version 2", "version: 2\ndail: 1\n", 1, 10, "version", "this Governor reads version 1, not 2", "write 'version: 1'"),
    Case("version as text", "version: '1'\n" + RUNG, 1, 10, "version", "this Governor reads version 1, not '1'", "write 'version: 1'"),
    Case("version true", "version: true\n" + RUNG, 1, 10, "version", "this Governor reads version 1, not true", "write 'version: 1'"),
    Case("unknown key", HEAD + "dail: 0.3\n" + RUNG, 2, 1, "dail", "unknown key 'dail'", "did you mean 'dial'?"),
    Case(
        "unknown key in a rung", HEAD + "ladder:\n  - id: a\n    model: m\n    thinking_token: 5\n", 5, 5,
        "ladder[0].thinking_token", "unknown key 'thinking_token'", "did you mean 'thinking_tokens'?",
    ),
    Case(
        "another tool's key", HEAD + "ladder:\n  - {id: a, model: m, max_tokens: 5}\n", 3, 23,
        "ladder[0].max_tokens", "unknown key 'max_tokens'", "did you mean 'answer_tokens'?",
    ),
    Case(
        "unknown key in a price", HEAD + "ladder:\n  - id: a\n    model: m\n    price: {inptu: 1}\n", 5, 13,
        "ladder[0].price.inptu", "unknown key 'inptu'", "did you mean 'input'?",
    ),
    Case(
        "key in the wrong place", HEAD + RUNG + "budget:\n  ledger: 'memory://'\n", 4, 3,
        "budget.ledger", "unknown key 'ledger'", "'ledger' belongs at the top of the policy",
    ),
    Case(
        "unknown key in a match", HEAD + RUNG + "steps:\n  - match: {nod: x}\n", 4, 13,
        "steps[0].match.nod", "unknown key 'nod'", "did you mean 'node'?",
    ),
    Case("misspelt canary", HEAD + RUNG + "mode: {canry: 0.1}\n", 3, 8, "mode.canry", "unknown key 'canry'", "did you mean 'canary'?"),
    Case("unknown mode", HEAD + RUNG + "mode: shadw\n", 3, 7, "mode", "must be on or shadow, not 'shadw'", "did you mean 'shadow'?"),
    Case("mode true", HEAD + RUNG + "mode: true\n", 3, 7, "mode", "must be on, shadow or {canary: SHARE}, not true", ""),
    Case("canary over 1", HEAD + RUNG + "mode:\n  canary: 10\n", 4, 11, "mode.canary", "must be at most 1, not 10", ""),
    Case("unknown effort", HEAD + "ladder: [{id: a, model: m, effort: hihg}]\n", 2, 36, "ladder[0].effort", "must be none, minimal,", "did you mean 'high'?"),
    Case("dial and keep", HEAD + RUNG + "keep: 0.9\ndial: 0.2\n", 3, 7, "keep", "'dial' and 'keep' exclude each other", "remove one of them"),
    Case(
        "dial and keep in a rule", HEAD + RUNG + "steps:\n  - dial: 0.2\n    keep: 0.9\n", 5, 11,
        "steps[0].keep", "'dial' and 'keep' exclude each other", "remove one of them",
    ),
    Case("dial too high", HEAD + RUNG + "dial: 1.5\n", 3, 7, "dial", "must be at most 1, not 1.5", ""),
    Case("dial negative", HEAD + RUNG + "dial: -0.1\n", 3, 7, "dial", "must be at least 0, not -0.1", ""),
    Case("keep zero", HEAD + RUNG + "keep: 0\n", 3, 7, "keep", "must be more than 0, not 0", ""),
    Case("nan", HEAD + RUNG + "dial: .nan\n", 3, 7, "dial", "must be a finite number, not nan", ""),
    Case("infinite", HEAD + RUNG + "deadline: .inf\n", 3, 11, "deadline", "must be a finite number, not inf", ""),
    Case("number as text", HEAD + RUNG + "dial: '0.3'\n", 3, 7, "dial", "must be a number, not '0.3'", "write 0.3, without quotes or units"),
    Case(
        "tokens with unit", HEAD + "ladder: [{id: a, model: m, answer_tokens: 8k}]\n", 2, 43,
        "ladder[0].answer_tokens", "must be a whole number, not '8k'", "write 8000, without quotes or units",
    ),
    Case(
        "float tokens", HEAD + "ladder: [{id: a, model: m, answer_tokens: 4e3}]\n", 2, 43,
        "ladder[0].answer_tokens", "must be a whole number, not 4000", "write 4000",
    ),
    Case("yes is text", HEAD + RUNG + "require_hard: yes\n", 3, 15, "require_hard", "must be true or false, not 'yes'", "write true"),
    Case("text as number", HEAD + RUNG + "app: 7\n", 3, 6, "app", "must be text, not 7", "put it in quotes"),
    Case("bad app name", HEAD + RUNG + "app: a/b\n", 3, 6, "app", "must begin with a letter or digit", ""),
    Case("ledger without scheme", HEAD + RUNG + "ledger: a.db\n", 3, 9, "ledger", "must be a URI such as", ""),
    Case("mapping for list", HEAD + "ladder: {id: a}\n", 2, 1, "ladder", "must be a list, not a mapping", ""),
    Case("list for mapping", HEAD + RUNG + "budget: [1]\n", 3, 1, "budget", "must be a mapping (key: value), not a list", ""),
    Case("empty value", HEAD + RUNG + "budget:\n", 3, 1, "budget", "must be a mapping (key: value), not empty", "give a value, or remove the key"),
    Case("empty ladder", HEAD + "ladder: []\n", 2, 1, "ladder", "must be a list of at least 1, not an empty list", ""),
    Case("no ladder", HEAD + "dial: 0.3\n", 1, 1, "ladder", "missing key 'ladder'", "list at least one rung, or extend a policy that has some"),
    Case("rung without id", HEAD + "ladder:\n  - model: m\n", 3, 5, "ladder[0].id", "missing key 'id'", "add 'id:'"),
    Case(
        "duplicate rung", HEAD + "ladder:\n  - {id: a, model: m}\n  - {id: a, model: n}\n", 4, 10,
        "ladder[1].id", "rung id 'a' is used twice", "give every rung an id of its own",
    ),
    Case("unknown baseline", HEAD + RUNG.replace("id: a", "id: top") + "baseline: tpo\n", 3, 11, "baseline", "unknown rung 'tpo'", "did you mean 'top'?"),
    Case(
        "unknown rung in a rule", HEAD + RUNG.replace("id: a", "id: mini-low") + "steps:\n  - ladder: [mini_lo]\n", 4, 14,
        "steps[0].ladder[0]", "unknown rung 'mini_lo'", "did you mean 'mini-low'?",
    ),
    Case("number as rung", HEAD + RUNG + "steps:\n  - ladder: [3]\n", 4, 14, "steps[0].ladder[0]", "must be a rung's id, or a rung, not 3", ""),
    Case(
        "unknown model", HEAD + "models: {openai/gpt-5: {}}\nladder: [{id: a, model: openai/gtp-5}]\n", 3, 25,
        "ladder[0].model", "unknown model 'openai/gtp-5'", "did you mean 'openai/gpt-5'?",
    ),
    Case(
        "over the model's output", LIMITED + "ladder:\n  - {id: a, model: m, thinking_tokens: 900, answer_tokens: 200}\n", 4, 40,
        "ladder[0].thinking_tokens", "thinking and answer are 1100 tokens together, but m gives at most 1000", "lower it by 100",
    ),
    Case(
        "no room for a prompt", LIMITED + "ladder:\n  - {id: a, model: n, answer_tokens: 500}\n", 4, 38,
        "ladder[0].answer_tokens", "which leaves no room for a prompt in n's 500", "lower it",
    ),
    Case(
        "least over a rung's thinking", HEAD + "ladder:\n  - {id: a, model: m, thinking_tokens: 100, stops: {least: 200}}\n", 3, 60,
        "ladder[0].stops.least", "200 is more than the 100 thinking tokens of rung 'a'", "lower it, raise thinking_tokens, or give the rung its own stops",
    ),
    Case(
        "least over the thinking of one of all rungs", HEAD + "ladder: [{id: a, model: m, thinking_tokens: 100}, {id: b, model: m, thinking_tokens: 900}]\nstops: {least: 200}\nsteps: [{dial: .1}]\n", 3, 16,
        "stops.least", "200 is more than the 100 thinking tokens of rung 'a'", "lower it, raise thinking_tokens, or give the rung its own stops",
    ),
    Case(
        "a rule's least over a rung's thinking", HEAD + "ladder: [{id: a, model: m, thinking_tokens: 100}]\nstops: {least: 9}\nsteps: [{stops: {least: 200}}]\n", 4, 25,
        "steps[0].stops.least", "200 is more than the 100 thinking tokens of rung 'a'", "lower it, raise thinking_tokens, or give the rung its own stops",
    ),
    Case(
        "bad regex", HEAD + RUNG + "steps:\n  - match:\n      prompt: '[a'\n", 5, 15,
        "steps[0].match.prompt", "is not a regular expression: unterminated character set at position 0", "",
    ),
    Case("number as glob", HEAD + RUNG + "steps:\n  - match: {node: [a, 1]}\n", 4, 23, "steps[0].match.node[1]", "must be text, not 1", "put it in quotes"),
    Case(
        "lengths crossed", HEAD + RUNG + "steps:\n  - match: {min_prompt_chars: 9, max_prompt_chars: 3}\n", 4, 52,
        "steps[0].match.max_prompt_chars", "no prompt has at least 9 and at most 3 characters", "swap the two",
    ),
    Case(
        "two verifiers in a mapping", HEAD + RUNG + "verify: {regex: a, choice: b}\n", 3, 1, "verify",
        "a verifier is one key with its options, not 2", ONE_KEY,
    ),
    Case(
        "option beside its verifier", HEAD + RUNG + "verify: {regex: a, mode: fullmatch}\n", 3, 1, "verify",
        "a verifier is one key with its options, not 2", ONE_KEY,
    ),
    Case("all without list", HEAD + RUNG + "verify: {all: complete}\n", 3, 15, "verify.all", "'all' takes a list of verifiers", "write 'all: [complete, ...]'"),
    Case("verify a number", HEAD + RUNG + "verify: [complete, 3]\n", 3, 20, "verify[1]", "must be a verifier's name", ""),
    Case("verify nothing", HEAD + RUNG + "verify: []\n", 3, 1, "verify", "names no verifier", "write 'complete', or null for no verification"),
    Case("no period", HEAD + RUNG + "budget:\n  app: {usd: 3}\n", 4, 3, "budget.app.per", "missing key 'per'", "add 'per:'"),
    Case("empty limits", HEAD + RUNG + "budget:\n  step: {}\n", 4, 3, "budget.step", "limits nothing", "give tokens, usd, seconds or calls, or remove it"),
    Case("money with unit", HEAD + RUNG + "budget: {step: {usd: $0.05}}\n", 3, 22, "budget.step.usd", "must be a number, not '$0.05'", "write 0.05, without quotes or units"),
    Case("half a call", HEAD + RUNG + "budget: {step: {calls: 1.5}}\n", 3, 24, "budget.step.calls", "must be a whole number, not 1.5", ""),
    Case("unknown backtrack", HEAD + RUNG + "backtrack: {modes: [mroe]}\n", 3, 21, "backtrack.modes[0]", "must be continue, more, feedback, fresh, again, agree, compare or verify", "did you mean 'more'?"),
    Case("huge number", HEAD + RUNG + f"harm: {'9' * 400}\n", 3, 7, "harm", "must be", ""),
    Case("unreadable number", HEAD + RUNG + f"harm: {'9' * 5000}\n", 3, 7, "", "can't be read as a number or constant", "put text in quotes"),
    Case("state of a list", HEAD + RUNG + "steps: [{match: {state: {a: [1]}}}]\n", 3, 26, "steps[0].match.state.a", "must be text, a number, true or false", ""),
    Case(
        "on_fail says nothing", HEAD + RUNG + "steps:\n  - on_fail: {}\n", 4, 5, "steps[0].on_fail",
        "does not say what to go back to", "give 'backtrack: {to: NODE}', or 'blame: auto'",
    ),
    Case(
        "backtrack to nowhere", HEAD + RUNG + "steps:\n  - on_fail:\n      backtrack: {rung: 0}\n", 5, 7,
        "steps[0].on_fail.backtrack", "does not say what to go back to", "give 'backtrack: {to: NODE}', or 'blame: auto'",
    ),
    Case(
        "to beside blame", HEAD + RUNG + "steps:\n  - on_fail: {blame: auto, backtrack: {to: plan}}\n", 4, 22,
        "steps[0].on_fail.blame", "'backtrack.to' and 'blame' exclude each other", "remove one of them",
    ),
    Case(
        "back to itself", HEAD + RUNG + "steps:\n  - match: {node: plan}\n    on_fail: {backtrack: {to: plan}}\n", 5, 31,
        "steps[0].on_fail.backtrack.to", "'plan' is the node of this rule itself", "name an earlier node; 'backtrack' of the rule says how a step is tried again",
    ),
    Case(
        "back to itself in a list", HEAD + RUNG + "steps:\n  - match: {node: [plan]}\n    on_fail: {backtrack: {to: plan}}\n", 5, 31,
        "steps[0].on_fail.backtrack.to", "'plan' is the node of this rule itself", "name an earlier node; 'backtrack' of the rule says how a step is tried again",
    ),
    Case("unknown blame", HEAD + RUNG + "steps:\n  - on_fail: {blame: me}\n", 4, 22, "steps[0].on_fail.blame", "must be auto, not 'me'", ""),
    Case("rung downwards", HEAD + RUNG + "steps:\n  - on_fail: {backtrack: {to: a, rung: -1}}\n", 4, 40, "steps[0].on_fail.backtrack.rung", "must be at least 0, not -1", ""),
    Case("rung in words", HEAD + RUNG + "steps:\n  - on_fail: {backtrack: {to: a, rung: up}}\n", 4, 40, "steps[0].on_fail.backtrack.rung", "must be a whole number, not 'up'", ""),
    Case("rung without a sign", HEAD + RUNG + "steps:\n  - on_fail: {backtrack: {to: a, rung: '1'}}\n", 4, 40, "steps[0].on_fail.backtrack.rung", "must be a whole number, not '1'", "write 1, without quotes or units"),
    Case("no rewinds", HEAD + RUNG + "steps:\n  - on_fail: {backtrack: {to: a, max: 0}}\n", 4, 39, "steps[0].on_fail.backtrack.max", "must be at least 1, not 0", ""),
    Case("misspelt backtrack", HEAD + RUNG + "steps:\n  - on_fail: {blame: auto, backtrak: {}}\n", 4, 28, "steps[0].on_fail.backtrak", "unknown key 'backtrak'", "did you mean 'backtrack'?"),
    Case("misspelt replay", HEAD + RUNG + "tools: {pay: {on_rewind: repaly}}\n", 3, 26, "tools.pay.on_rewind", "must be replay, rerun or forbid, not 'repaly'", "did you mean 'replay'?"),
    Case("negative calls", HEAD + RUNG + "tools: {pay: {max_calls: -1}}\n", 3, 26, "tools.pay.max_calls", "must be at least 0, not -1", ""),
    Case("a word for a tool's rule", HEAD + RUNG + "tools: {pay: forbid}\n", 3, 14, "tools.pay", "must be a mapping (key: value), not 'forbid'", ""),
    Case("unknown key of a tool", HEAD + RUNG + "tools: {pay: {on_rewnd: rerun}}\n", 3, 15, "tools.pay.on_rewnd", "unknown key 'on_rewnd'", "did you mean 'on_rewind'?"),
    Case("ungoverned open", HEAD + RUNG + "ungoverned: open\n", 3, 13, "ungoverned", "must be error or pass, not 'open'", ""),
    Case("run without limits", HEAD + RUNG + "budget:\n  run: {}\n", 4, 3, "budget.run", "limits nothing", "give tokens, usd, seconds or calls, or remove it"),
    Case("tell yes", HEAD + RUNG + "budget: {tell: yes}\n", 3, 16, "budget.tell", "must be true or false, not 'yes'", "write true"),
    Case("unknown base", HEAD + "extends: balancd\n", 2, 10, "extends", "no shipped policy is called 'balancd'", "did you mean 'balanced'?"),
    Case("base that is not there", HEAD + "extends: ./x.yaml\n", 2, 10, "extends", "no such file", "the path is relative to this file"),
    Case("own base", HEAD + "extends: ./policy.yaml\n", 2, 10, "extends", "'./policy.yaml' extends this file in turn", "break the circle"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_one_mistake_one_problem(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(case.text, encoding="utf-8", newline="")
    with pytest.raises(PolicyError) as caught:
        load_policy(path)
    assert len(caught.value.problems) == 1, str(caught.value)
    (problem,) = caught.value.problems
    assert problem.message.startswith(case.message) or case.message in problem.message
    assert (problem.line, problem.column, problem.field) == (case.line, case.column, case.field)
    assert problem.hint == case.hint
    assert problem.file == str(path)
    assert str(problem).startswith(f"{path}:{case.line}:{case.column}: ")
    assert "\n" not in str(problem)


def test_the_table_is_long_enough() -> None:
    assert len(CASES) >= 60
    assert len({case.name for case in CASES}) == len(CASES)


def test_every_mistake_is_told_at_once_in_file_order(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(
        "version: 1\ndail: 0.3\nkeep: .9\ndial: .2\n"
        "models: {m/a: {max_output_tokens: 1000, price: {outpt: 2}}}\n"
        "ladder:\n  - {id: a, model: m/a, answer_tokens: 8k}\n  - id: a\n    model: m/b\n"
        "steps:\n  - ladder: [b, a]\nbudget: {app: {usd: 1}}\napp: x\napp: y\n"
    )
    problems = inspect_policy(path).problems
    assert [(p.line, p.field) for p in problems] == [
        (2, "dail"),
        (3, "keep"),
        (5, "models.m/a.price.outpt"),
        (7, "ladder[0].answer_tokens"),
        (8, "ladder[1].id"),
        (9, "ladder[1].model"),
        (11, "steps[0].ladder[0]"),
        (12, "budget.app.per"),
        (14, ""),
    ]


@pytest.mark.parametrize(
    ("raw", "line", "column"),
    [(b"version: 1\napp: caf\xe9\n", 2, 9), (b"\xff\xfev\x00", 1, 1)],
    ids=["latin-1", "utf-16"],
)
def test_not_utf_8(raw: bytes, line: int, column: int, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_bytes(raw)
    (problem,) = inspect_policy(path).problems
    assert (problem.message, problem.line, problem.column) == ("the file is not UTF-8", line, column)


def test_byte_order_mark_is_welcome(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + (HEAD + RUNG).encode())
    assert load_policy(path).ladder[0].id == "a"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (missing,) = inspect_policy(tmp_path / "none.yaml").problems
    (folder,) = inspect_policy(tmp_path).problems
    (name,) = inspect_policy("ballanced").problems
    (nul,) = inspect_policy("a\0b.yaml").problems
    assert missing.message == "no such file"
    assert missing.hint == "`governor init` writes a starter"
    assert folder.message == "is a folder, not a policy file"
    assert str(name) == "no file and no shipped policy is called 'ballanced' (did you mean 'balanced'?)"
    assert nul.message.startswith("can't be read")


def test_deep_nesting_and_expanding_aliases_are_refused(tmp_path: Path) -> None:
    deep, bomb = tmp_path / "deep.yaml", tmp_path / "bomb.yaml"
    deep.write_text("version: 1\nverify: " + "[" * 5000)
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    bomb.write_text("version: 1\n" + "\n".join(lines))
    assert inspect_policy(deep).problems[0].message == "nested too deeply"
    assert any("aliases that expand without end" in problem.message for problem in inspect_policy(bomb).problems)


def test_a_name_with_a_nul_is_no_shipped_policy() -> None:
    (problem,) = inspect_policy("a\0b").problems
    assert problem.message.startswith("no file and no shipped policy")


def test_the_checks_of_other_parts_are_placed_too(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(HEAD + "ladder:\n  - id: a\n    model: m\n    effort: high\n")

    def check(policy: Policy) -> list[Finding]:
        assert policy.ladder[0].effort == "high"
        return [
            Finding(("ladder", 0, "effort"), "m has no effort", "remove it"),
            Finding(("ladder", 0, "temperature"), "is not sent", severity="warning"),
        ]

    found = inspect_policy(path, [check])
    assert [str(problem) for problem in found.problems] == [
        f"{path}:5:13: ladder[0].effort: m has no effort (remove it)"
    ]
    assert [str(warning) for warning in found.warnings] == [f"{path}:3:5: ladder[0].temperature: is not sent"]
    assert found.policy is None
    with pytest.raises(PolicyError, match="m has no effort"):
        load_policy(path, checks=[check])
    assert load_policy(path).ladder[0].effort == "high"


WARNINGS = [
    ("budget: {step: {usd: 1}}\n", 2, 25, "rung 'a' has no price, so its calls count as free"),
    (
        "steps: [{dial: 0.1}, {match: {node: x}}]\n",
        3,
        9,
        "matches every step, so that steps[1] and later are never used",
    ),
    ("budget: {call: {tokens: 1000}}\n", 2, 15, "rung 'a' may use 1024 tokens"),
    (
        "steps: [{on_fail: {backtrack: {to: x, rung: +1}}}]\n",
        3,
        45,
        "no ladder has more than 0 rungs above its first",
    ),
    ("tools: {'*': {}, pay: {max_calls: 1}}\n", 3, 18, "is never used: '*' stands before it"),
    ("tools: {'p*': {}, 'q*': {}, '?ay': {}, pay: {}}\n", 3, 40, "is never used: 'p*' stands before it"),
    ("baseline: a\nsteps: [{ladder: [{id: b, model: m}]}]\n", 4, 10, "the baseline 'a' is not in this ladder"),
]


@pytest.mark.parametrize(("text", "line", "column", "message"), WARNINGS)
def test_doubts_are_warnings(text: str, line: int, column: int, message: str, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(HEAD + RUNG + text)
    found = inspect_policy(path)
    assert found.policy is not None
    (warning,) = found.warnings
    assert (warning.line, warning.column) == (line, column)
    assert message in warning.message
