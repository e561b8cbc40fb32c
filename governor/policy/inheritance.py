"""`extends`: a policy file and those it builds on, read, checked for cycles, and merged into one tree.

Mappings merge key by key, the file's own keys first, so that its globs are tried first; everything else replaces: lists
(`ladder`, `steps`), `verify` as a whole, scalars. A null takes an inherited key away. `dial` drops an inherited `keep`
and the other way round. Each value keeps the place of the file it came from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from governor.errors import Problem
from governor.policy.document import Entry, Node, Place, parse
from governor.policy.finding import suggestion
from governor.policy.schema import VERSION
from governor.policy.shipped import shipped_names, shipped_path
from governor.policy.wording import shown

_WHOLE = ("verify",)
"""Keys whose mappings mean something only as a whole, so that they replace instead of merging."""
_EXCLUDING = {"dial": "keep", "keep": "dial"}


@dataclass(slots=True)
class Chain:
    """A policy file and its bases: `files` in the order read, the merged `tree`, and what was wrong.

    `tree` is None where the file itself could not be read. `whole` is False where a base is missing from it.
    """

    files: list[Path] = field(default_factory=list)
    tree: Node | None = None
    whole: bool = True
    problems: list[Problem] = field(default_factory=list)


def find(source: str | Path) -> tuple[Path | None, str]:
    """The file that `source` names and, where there is none, a hint.

    A Path, and text with a folder or a .yaml or .yml ending, is a file; other text is the name of a shipped
    policy, unless a file of that very name exists.
    """
    path = Path(source)
    if isinstance(source, Path) or _looks_like_file(source) or path.is_file():
        return path, ""
    return shipped_path(source), suggestion(source, shipped_names())


def read_chain(source: str | Path) -> Chain:
    """Read `source` and all it extends, and merge them."""
    chain = Chain()
    path, hint = find(source)
    if path is None:
        message = f"no file and no shipped policy is called '{source}'"
        chain.problems.append(Problem(message, hint=hint))
        return chain
    chain.tree = _read(path, chain, {})
    return chain


def _read(path: Path, chain: Chain, above: dict[Path, Place]) -> Node | None:
    """The merged tree of `path`; `above` holds the files that led here and where each says so."""
    chain.files.append(path)
    parsed, problems = _parse_file(path)
    chain.problems += problems
    tree = None if parsed is None else _versioned(parsed, chain)
    if tree is None:
        return None
    base = tree.child("extends")
    if not isinstance(base, Entry) or not isinstance(base.node.value, str) or not base.node.value:
        return tree  # extends nothing, or something that the schema's checks refuse
    found = _base(base, path, chain, {**above, path.resolve(): base.node.place})
    if found is None:
        chain.whole = False
        return tree
    return merged(tree, found)


def _parse_file(path: Path) -> tuple[Node | None, list[Problem]]:
    file = str(path)
    try:
        raw = path.read_bytes()
    except IsADirectoryError:
        return None, [Problem("is a folder, not a policy file", file)]
    except FileNotFoundError:
        return None, [Problem("no such file", file, hint="`governor init` writes a starter")]
    except (OSError, ValueError) as cause:
        return None, [Problem(f"can't be read: {getattr(cause, 'strerror', None) or cause}", file)]
    try:
        return parse(raw.decode("utf-8-sig"), file)
    except UnicodeDecodeError as cause:
        before = raw[: cause.start].decode("utf-8", "replace")
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        return None, [Problem("the file is not UTF-8", file, line, column, hint="save it as UTF-8")]


def _versioned(tree: Node, chain: Chain) -> Node | None:
    """The tree with a version that can be read; None for another version, of which nothing else can be said."""
    entry = tree.child("version")
    held = entry.node.value if isinstance(entry, Entry) else None
    if type(held) is int and held == VERSION:
        return tree
    place = tree.place_of(("version",))
    if isinstance(entry, Entry):
        words, hint = f"this Governor reads version {VERSION}, not {shown(held)}", f"write 'version: {VERSION}'"
    else:
        words, hint = "missing key 'version'", f"add 'version: {VERSION}' at the top"
    chain.problems.append(Problem(words, place.file, place.line, place.column, "version", hint))
    if type(held) is int:
        return None
    return Node({**_entries(tree), "version": Entry(place, Node(VERSION, place))}, tree.place)


def _base(entry: Entry, path: Path, chain: Chain, above: dict[Path, Place]) -> Node | None:
    name, place = str(entry.node.value), entry.node.place
    base = path.parent / name if _looks_like_file(name) else shipped_path(name)
    if base is None:
        hint = suggestion(name, shipped_names()) or "the path of a file ends in .yaml"
        _complain(chain, place, f"no shipped policy is called '{name}'", hint)
    elif base.resolve() in above:
        _complain(chain, place, f"'{name}' extends this file in turn", "break the circle")
    elif not base.is_file():
        _complain(chain, place, f"no such file: {base}", "the path is relative to this file")
        chain.files.append(base)
    else:
        return _read(base, chain, above)
    return None


def _entries(node: Node) -> dict[str, Entry]:
    return node.value if isinstance(node.value, dict) else {}


def _looks_like_file(name: str) -> bool:
    return "/" in name or "\\" in name or name.endswith((".yaml", ".yml"))


def _complain(chain: Chain, place: Place, message: str, hint: str) -> None:
    chain.problems.append(Problem(message, place.file, place.line, place.column, "extends", hint))


def merged(over: Node, base: Node) -> Node:
    """`base` with the keys of `over` laid on top; both are mappings."""
    own, inherited = dict(_entries(over)), dict(_entries(base))
    for key, other in _EXCLUDING.items():
        if key in own and own[key].node.value is not None:
            inherited.pop(other, None)
    for key in [key for key, entry in own.items() if entry.node.value is None and key in inherited]:
        del own[key], inherited[key]
    result = {**own, **{key: entry for key, entry in inherited.items() if key not in own}}
    for key in own.keys() & inherited.keys():
        mine, theirs = own[key].node, inherited[key].node
        if key not in _WHOLE and isinstance(mine.value, dict) and isinstance(theirs.value, dict):
            result[key] = Entry(own[key].key, merged(mine, theirs))
    if "extends" not in own:
        result.pop("extends", None)
    return Node(result, over.place)
