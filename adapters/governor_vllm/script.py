"""The words that are being written into a row's thought, token by token."""

from __future__ import annotations

from dataclasses import dataclass

from governor.stops.arrays import Array, Namespace, flag, index
from governor.stops.phrases import AGAIN, BUDGET, GROUP, MARGIN, PHRASES, REPEAT
from governor.stops.settings import Stops
from governor_vllm.vocabulary import Vocabulary

BARE = AGAIN + 1
"""The mark alone, which ends a thought whose budget has no room left for words."""


@dataclass(frozen=True, slots=True)
class Script:
    """State (rows,): whose words are being written (0: none), and how many of them are."""

    kind: Array
    written: Array


def scripts_of(stops: Stops, vocabulary: Vocabulary) -> dict[int, tuple[int, ...]]:
    """The tokens that each rule writes.

    What ends a thought counts as part of its budget; where the budget has no room for the words, the bare mark ends it.
    """
    own = {BUDGET: stops.phrase} if stops.phrase is not None else {}
    made = {kind: vocabulary.closing(own.get(kind) or PHRASES[kind]) for kind in (BUDGET, MARGIN, GROUP, REPEAT)}
    if stops.budget is not None and len(made[BUDGET]) > stops.budget:
        made[BUDGET] = vocabulary.end
    made[AGAIN] = vocabulary.words(stops.again) if stops.again is not None else ()
    made[BARE] = vocabulary.end
    return made


def fitting(xp: Namespace, kind: Array, fits: Array) -> Array:
    """Whose words are begun (rows,), where the rules want those of `kind` and the budget has room for them or not.

    Without room the budget's own become the bare mark; all others are left out, as the budget comes before their end.
    """
    return xp.where(fits, kind, xp.where(kind == BUDGET, BARE + 0 * kind, 0 * kind))


def followed(xp: Namespace, script: Script, kind: Array, obeyed: Array, lengths: Array) -> Script:
    """The script one token later.

    `kind` (rows,) was written next, and `obeyed` says that its token came; where it did not, something else forbade it,
    and the words are dropped. `lengths` (rows,) is how many they are.
    """
    begun = xp.where(kind == script.kind, script.written, 0.0 * script.written)
    written = begun + 1.0
    goes_on = obeyed & (written < lengths)
    return Script(
        kind=flag(xp, goes_on) * kind,
        written=flag(xp, goes_on) * written,
    )


def next_place(xp: Namespace, script: Script, kind: Array) -> Array:
    """Which of its words comes next: an index into the script's tokens."""
    return index(xp, xp.where(kind == script.kind, script.written, 0.0 * script.written))
