"""Difficulty from rules: no training, no model, and open about how little a prompt tells."""

from __future__ import annotations

import math
from dataclasses import dataclass

from governor.estimate.features import Features, features
from governor.estimate.latent import LatentBelief, latent
from governor.protocols import Terms
from governor.records import Step

_PLAIN = -0.9  # a plain short question in English
_SD = 0.9
_SD_UNREAD = 1.5
_SD_STATED = 0.7
_MAX = 3.2
_REASONS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Difficulty:
    """Mean and standard deviation on the latent scale, and why: the strongest reason first."""

    mean: float
    sd: float
    length: float
    reasons: tuple[str, ...]


class RuleEstimator:
    """Estimator (governor.protocols) by fixed rules; `terms.difficulty` overrides the mean."""

    def estimate(self, step: Step, terms: Terms) -> LatentBelief:
        """Features, then rules, then a normal belief on the grid."""
        seen = features(step)
        found = difficulty(seen)
        mean, sd, reasons = found.mean, found.sd, found.reasons
        if terms.difficulty is not None:
            mean, sd = latent(terms.difficulty), _SD_STATED
            reasons = (f"the policy states difficulty {terms.difficulty:g}", *reasons)
        return LatentBelief.normal(
            mean, sd, terms, reasons=reasons, length=found.length, input_tokens=seen.input_tokens
        )


def difficulty(seen: Features) -> Difficulty:
    """Sum of what each piece of evidence adds.

    Evidence that needs English counts only as far as the text can be read as English: what a text in another
    language lacks (no hard words, few words at all) must not make it easy.
    """
    unread = unreadable(seen)
    read = 1.0 - unread
    shares = [(amount if amount > 0 else amount * read, why) for amount, why in _of_any_language(seen)]
    shares += [(amount * read, why) for amount, why in _of_english(seen)]
    context = _of_context(seen)
    mean = _PLAIN * read + sum(amount for amount, _ in shares) + sum(amount for amount, _ in context)
    shares += context
    if unread > 0.3:
        shares.append((2.0 * unread, "a language that the rules can't read: held in the middle, and uncertain"))
    shares = [share for share in shares if abs(share[0]) >= 0.1]
    shares.sort(key=lambda share: -abs(share[0]))
    sd = _SD + (_SD_UNREAD - _SD) * unread + (0.15 if seen.in_context else 0.0)
    return Difficulty(
        mean=_MAX * math.tanh(mean / _MAX),  # much evidence still orders steps, where a clip would level them
        sd=sd,
        length=_length(seen),
        reasons=tuple(why for _, why in shares[:_REASONS]) or ("a plain request",),
    )


def unreadable(seen: Features) -> float:
    """0 = English (or no words at all, as in a bare formula), 1 = no language that the rules know."""
    letters = seen.letters
    if letters == 0:
        return 0.0
    foreign = _ramp((letters - seen.latin) / letters, 0.2, 0.6)
    known = seen.function_words
    vocabulary = known + seen.easy_words + seen.maths_words + seen.code_words + seen.build_words
    vocabulary += seen.short_words + seen.constraint_words + seen.hard_words + seen.proof_words + seen.long_words
    if seen.words <= 6:  # few words: a name or a word or two of the trade is no foreign language
        english = known or vocabulary > 0.3 * seen.words
        strange = 0.0 if english else (0.8 if seen.words >= 3 else 0.4)
    else:
        strange = 1.0 - _ramp(known / seen.words, 0.03, 0.12)
    return max(foreign, strange)


def _ramp(value: float, low: float, high: float) -> float:
    return min(max((value - low) / (high - low), 0.0), 1.0)


def _of_any_language(seen: Features) -> list[tuple[float, str]]:
    """Digits, signs and code look alike in every language."""
    shares: list[tuple[float, str]] = []
    if seen.operations:
        size = min(0.55 * (seen.longest_number - 1.5), 2.2) - (0.6 if seen.longest_number < 2 else 0.0)
        digits = f"{seen.longest_number:.0f} digit{'s' if seen.longest_number > 1 else ''}"
        shares.append((size, f"arithmetic on numbers of {digits}"))
        if seen.operations > 1:
            shares.append((min(0.3 * math.log2(seen.operations), 1.2), f"{seen.operations:.0f} operations in a row"))
    elif seen.numbers > 1:
        shares.append((min(0.25 * math.log2(seen.numbers), 0.9), f"{seen.numbers:.0f} numbers"))
    notation = seen.latex + 0.5 * (seen.maths_signs - seen.operations)
    if notation >= 1 and not seen.code_words > 3:
        shares.append((min(0.35 * math.log2(1 + notation), 1.5), "mathematical notation"))
    code = 3 * seen.fences + 0.5 * seen.brackets + 0.5 * seen.indented_lines
    if code >= 2:
        shares.append((min(0.2 * math.log2(1 + code), 0.9), "code in the prompt"))
    if seen.list_items > 1:
        shares.append((min(0.2 * math.log2(seen.list_items), 0.8), f"{seen.list_items:.0f} listed items"))
    if seen.question_marks > 1:
        shares.append((min(0.15 * (seen.question_marks - 1), 0.6), f"{seen.question_marks:.0f} questions"))
    if seen.words > 60:
        shares.append((min(0.25 * math.log2(seen.words / 60), 0.9), f"a long prompt ({seen.words:.0f} words)"))
    elif seen.chars < 60 and not seen.in_context and not seen.longest_number > 2:
        shares.append((-0.7 if seen.chars > 15 else -1.2, "a very short prompt"))
    return shares


def _of_english(seen: Features) -> list[tuple[float, str]]:
    shares: list[tuple[float, str]] = []
    for count, weight, most, why in (
        (seen.proof_words, 1.3, 2.2, "a proof or derivation"),
        (seen.maths_words, 0.5, 1.5, "mathematical terms"),
        (seen.build_words, 0.7, 1.4, "software to build or mend"),
        (seen.code_words, 0.3, 0.9, "programming terms"),
        (seen.hard_words, 0.35, 1.0, "asks to analyse or explain"),
        (seen.constraint_words, 0.3, 1.2, "constraints to be met"),
        (seen.sequence_words, 0.2, 0.7, "several steps"),
        (seen.long_words, 0.25, 0.6, "a long answer is asked for"),
    ):
        if count:
            shares.append((min(weight * math.log2(1 + count), most), why))
    if seen.easy_words and seen.words < 200:
        shares.append((-0.7, "extraction, labelling or small talk"))
    return shares


def _of_context(seen: Features) -> list[tuple[float, str]]:
    """What surrounds the prompt: tools, schema, history, and what already went wrong."""
    shares: list[tuple[float, str]] = []
    if seen.attempts:
        shares.append((min(0.5 * seen.attempts, 1.5), f"{seen.attempts:.0f} attempts already failed"))
    if seen.tool_errors:
        shares.append((min(0.45 * seen.tool_errors, 1.4), f"{seen.tool_errors:.0f} tool errors"))
    if seen.tools:
        shares.append((min(0.15 * math.log2(1 + seen.tools), 0.7), f"{seen.tools:.0f} tools to choose from"))
    if seen.schema_fields == 1:
        shares.append((-0.3, "an answer of one field"))
    elif seen.schema_fields > 3:
        shape = 0.2 * math.log2(seen.schema_fields / 3) + 0.15 * max(seen.schema_depth - 1, 0)
        shares.append((min(shape, 0.8), f"an answer of {seen.schema_fields:.0f} fields"))
    if seen.history_chars > 500:
        amount = min(0.2 * math.log2(seen.history_chars / 500), 1.0) * (1.5 if seen.in_context else 0.5)
        shares.append((amount, f"{seen.messages:.0f} messages of history"))
    if seen.retrieval_chars > 2000:
        shares.append((min(0.15 * math.log2(seen.retrieval_chars / 2000), 0.6), "much retrieved text"))
    if seen.step_index > 2:
        shares.append((min(0.05 * seen.step_index, 0.4), f"step {seen.step_index:.0f} of its session"))
    return shares


def _length(seen: Features) -> float:
    """Shift of log answer tokens, in quarters so that a ladder's curves are computed few times."""
    shift = min(0.4 * seen.long_words, 1.2) + min(0.15 * (seen.build_words + seen.code_words), 0.75)
    shift += min(0.25 * max(seen.question_marks - 1, 0), 0.75)
    if not shift:
        shift -= min(0.35 * seen.short_words, 0.7) + (0.5 if seen.easy_words and seen.words < 60 else 0.0)
    return round(shift * 4) / 4
