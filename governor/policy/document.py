"""YAML text -> a tree of plain values in which everything knows its file, line and column.

The YAML is 1.2 (so `on` and `no` are text), read by ruamel.yaml's composer: its node tree carries the
positions of keys and values alike. Only what JSON also has is accepted: mappings with text keys, lists,
text, numbers, booleans, null. Anchors, aliases and merge keys (`<<`) are resolved here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, StringMark, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode
from ruamel.yaml.nodes import Node as YamlNode
from ruamel.yaml.reader import ReaderError

from governor.errors import Problem

MAX_DEPTH = 40
MAX_VALUES = 50_000
"""Values a document may hold once its aliases are written out; more is an accident or an attack."""

_MERGE = "tag:yaml.org,2002:merge"
_TEXT_TAGS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:timestamp")
_NUMBER_TAGS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_CONSTANT_TAGS = ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:null")
_BREAK = re.compile(r"\r\n|\n|\r")
_DIRECTIVE = re.compile(r"^%YAML[ \t]+(?!1\.2\b)(\S+)", re.MULTILINE)

Scalar: TypeAlias = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands; lines and columns count from 1."""

    file: str
    line: int = 1
    column: int = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One `key: value` of a mapping: where the key stands, and the value."""

    key: Place
    node: Node


@dataclass(frozen=True, slots=True)
class Node:
    """A value and where it begins. A mapping's value is a dict of entries, a list's a list of nodes.

    `unread` marks a value that could not be read, and about which no more is to be said.
    """

    value: Scalar | dict[str, Entry] | list[Node]
    place: Place
    unread: bool = False

    def plain(self) -> Any:
        """The value without places: dicts, lists and scalars."""
        if isinstance(self.value, dict):
            return {key: entry.node.plain() for key, entry in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def place_of(self, path: Sequence[str | int], *, key: bool = False) -> Place:
        """Where the value at `path` stands; with `key`, where its key does.

        Mappings, lists and empty values are shown by their key, which is what a reader looks for. A path
        that leads beyond the tree ends at its last known part.
        """
        node, place = self, self.place
        for position, part in enumerate(path):
            child = node.child(part)
            if child is None:
                return place
            if isinstance(child, Node):
                node, place = child, child.place
                continue
            node = child.node
            by_key = isinstance(node.value, dict | list | None) or (key and position == len(path) - 1)
            place = child.key if by_key else node.place
        return place

    def leads_to_unread(self, path: Sequence[str | int]) -> bool:
        """Whether the value at `path`, or one that holds it, could not be read."""
        node = self
        for part in path:
            child = node.child(part)
            if child is None:
                break
            node = child.node if isinstance(child, Entry) else child
        return node.unread

    def child(self, part: str | int) -> Entry | Node | None:
        """The entry under a key, the node at a list position, or None."""
        if isinstance(self.value, dict) and isinstance(part, str):
            return self.value.get(part)
        if isinstance(self.value, list) and isinstance(part, int) and part < len(self.value):
            return self.value[part]
        return None


def tree_of(data: Any, file: str) -> Node:
    """The tree of values that were never text: everything stands at line 1 of `file`."""
    place = Place(file)
    if isinstance(data, dict):
        return Node({str(key): Entry(place, tree_of(value, file)) for key, value in data.items()}, place)
    if isinstance(data, list | tuple):
        return Node([tree_of(value, file) for value in data], place)
    return Node(data, place)


def parse(text: str, file: str) -> tuple[Node | None, list[Problem]]:
    """The tree of a YAML document, and every mistake found on the way.

    The tree is None where the text is not one YAML mapping at all; duplicate keys and the like leave a
    tree that can still be checked further.
    """
    try:
        root = _compose(text)
    except (YAMLError, RecursionError) as cause:
        return None, [_syntax_problem(cause, text, file)]
    if root is None:
        return None, [Problem("the policy is empty", file, 1, 1, hint="`governor init` writes a starter")]
    outdated = _DIRECTIVE.search(text)
    if outdated:
        line = text.count("\n", 0, outdated.start()) + 1
        return None, [Problem(f"policies are YAML 1.2, not {outdated[1]}", file, line, 1, hint="remove the line")]
    reader = _Reader(file)
    tree = reader.node(root, 0)
    if not isinstance(tree.value, dict):
        place = tree.place
        return None, [Problem("a policy is a mapping (key: value)", file, place.line, place.column), *reader.problems]
    return tree, reader.problems


def _compose(text: str) -> YamlNode | None:
    yaml = YAML(typ="safe", pure=True)
    yaml.composer.warn_double_anchors = False  # YAML allows an anchor to be defined anew
    root: YamlNode | None = yaml.compose(text)
    return root


def _syntax_problem(cause: YAMLError | RecursionError, text: str, file: str) -> Problem:
    if isinstance(cause, RecursionError):
        return Problem("nested too deeply", file, 1, 1)
    if isinstance(cause, ReaderError):
        return _character_problem(cause, text, file)
    marks = (getattr(cause, "problem_mark", None), getattr(cause, "context_mark", None))
    unclosed = "unexpected end of stream" in str(cause)  # then what was opened says more than where the text ends
    mark = next((mark for mark in (marks[::-1] if unclosed else marks) if mark), None)
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    lines = _BREAK.split(text.rstrip("\r\n"))
    if line > len(lines):  # the end of the text is where the parser noticed; show the last line instead
        line, column = len(lines), len(lines[-1]) + 1
    message, hint = _plain_syntax(cause)
    return Problem(message, file, line, column, hint=hint)


def _character_problem(cause: ReaderError, text: str, file: str) -> Problem:
    place = max(0, min(int(cause.position), len(text)))
    before = _BREAK.split(text[:place])
    line, column = len(before), len(before[-1]) + 1
    character = chr(cause.character) if isinstance(cause.character, int) else cause.character
    return Problem(f"character {character!r} is not allowed in YAML", file, line, column, hint="remove it")


_SYNTAX_HINTS = (
    ("found character '\\t'", "a tab begins the line or value", "indent with spaces"),
    ("mapping values are not allowed", "':' where no key can be", "quote text with ': ', or mend the indentation"),
    ("undefined alias", "", "define it with '&name' further up"),
    ("but found another document", "the file holds more than one document", "remove the '---' line"),
    ("found unexpected end of stream", "a quote is never closed", "add the closing quote"),
    ("could not find expected ':'", "a key without ':'", "write 'key: value'"),
    ("did not find expected", "", "check indentation and brackets"),
    ("cannot start any token", "", "put the text in quotes"),
)  # fmt: skip


_TOKEN = re.compile(r"'?<([\w ]+)>'?")
_TOKENS = {"scalar": "text", "stream end": "the end of the file", "block end": "the end of the block"}


def _plain_syntax(cause: YAMLError) -> tuple[str, str]:
    problem = str(cause.problem if isinstance(cause, MarkedYAMLError) else cause).splitlines()[0]
    problem = _TOKEN.sub(lambda found: _TOKENS.get(found[1], found[1]), problem)
    for sign, words, hint in _SYNTAX_HINTS:
        if sign in problem:
            return (words or f"not valid YAML: {problem}"), hint
    return f"not valid YAML: {problem}", "check indentation, brackets and quotes"


@dataclass(slots=True)
class _Reader:
    """Turns composed nodes into ours, collecting mistakes instead of stopping at the first."""

    file: str
    problems: list[Problem] = field(default_factory=list)
    values: int = 0

    def node(self, source: YamlNode, depth: int) -> Node:
        place = self.place(source.start_mark)
        self.values += 1
        if depth > MAX_DEPTH or self.values > MAX_VALUES:
            if self.values < _GIVEN_UP:
                self.values = _GIVEN_UP
                self.complain(place, "nested too deeply, or aliases that expand without end")
            return Node(None, place, unread=True)
        if isinstance(source, MappingNode):
            return Node(self.entries(source, depth), place)
        if isinstance(source, SequenceNode):
            return Node([self.node(item, depth + 1) for item in source.value], place)
        known = len(self.problems)
        return Node(self.scalar(source, place), place, unread=len(self.problems) > known)

    def entries(self, source: MappingNode, depth: int) -> dict[str, Entry]:
        own: dict[str, Entry] = {}
        merged: dict[str, Entry] = {}
        for key, value in source.value:
            place = self.place(key.start_mark)
            if key.tag == _MERGE:
                for name, entry in self.merged(value, depth).items():
                    merged.setdefault(name, entry)
            elif not isinstance(key, ScalarNode) or key.tag not in _TEXT_TAGS:
                self.complain(place, "a key must be text", "put it in quotes")
            elif key.value in own:
                line = own[key.value].key.line
                self.complain(place, f"key '{key.value}' stands twice", f"first on line {line}; remove one")
            else:
                own[key.value] = Entry(place, self.node(value, depth + 1))
        return {**merged, **own}

    def merged(self, source: YamlNode, depth: int) -> dict[str, Entry]:
        """What `<<` brings in: the mapping, or the mappings of a list, earlier ones first."""
        parts = source.value if isinstance(source, SequenceNode) else [source]
        found: dict[str, Entry] = {}
        for part in parts:
            node = self.node(part, depth + 1)
            if isinstance(node.value, dict):
                found = {**node.value, **found}
            else:
                self.complain(node.place, "'<<' takes a mapping", "write '<<: *name' of a mapping")
        return found

    def scalar(self, source: YamlNode, place: Place) -> Scalar:
        text = str(source.value)
        if source.tag in _TEXT_TAGS:
            return text
        try:
            if source.tag in _CONSTANT_TAGS:
                return _constant(source.tag, text)
            if source.tag in _NUMBER_TAGS:
                return _number(source.tag, text)
        except ValueError:
            self.complain(place, f"'{text[:20]}' can't be read as a number or constant", "put text in quotes")
            return None
        self.complain(place, f"tag '{source.tag}' is not supported", "remove it")
        return None

    def place(self, mark: StringMark) -> Place:
        return Place(self.file, mark.line + 1, mark.column + 1)

    def complain(self, place: Place, message: str, hint: str = "") -> None:
        self.problems.append(Problem(message, place.file, place.line, place.column, hint=hint))


_GIVEN_UP = 1 << 60


def _constant(tag: str, text: str) -> bool | None:
    if tag.endswith("null"):
        return None
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def _number(tag: str, text: str) -> int | float:
    digits = text.replace("_", "").lower()
    if tag.endswith("float"):
        return float(digits.replace(".inf", "inf").replace(".nan", "nan"))
    sign = -1 if digits.startswith("-") else 1
    digits = digits.lstrip("+-")
    for prefix, base in (("0x", 16), ("0o", 8), ("0b", 2)):
        if digits.startswith(prefix):
            return sign * int(digits.removeprefix(prefix), base)
    return sign * int(digits)
