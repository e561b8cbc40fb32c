"""Which words and signs say something about a prompt. Each belongs to one kind; unlisted words say nothing."""

from __future__ import annotations

# Plain integers, not an Enum: they index a list in the innermost loop of every decision.
FUNCTION = 0
QUESTION = 1
MATHS = 2
PROOF = 3
CODE = 4
BUILD = 5
EASY = 6
HARD = 7
CONSTRAINT = 8
SEQUENCE = 9
LONG = 10
SHORT = 11
SIGN = 12
MARK = 13
BRACKET = 14
FENCE = 15
KINDS = 16

_WORDS: dict[int, str] = {
    # Only words that are rare in other languages of the Latin script: German "was", Spanish "a" and Dutch "of"
    # would make those languages look like English.
    FUNCTION: """the and is are that this these those with for from have has had does did been being your
        you they their there them it its if by be to can will would than not into about between
        my our we please let given such each any some other also more most whose were at""",
    QUESTION: "what which who whom when where why how whether",
    MATHS: """integral integrate derivative differentiate polynomial modulo remainder divisible prime primes
        integer integers probability permutations combinations combinatorics equation equations matrix matrices
        eigenvalue eigenvalues vector theorem triangle perimeter circumference radius hypotenuse logarithm
        factorial sequence arithmetic geometric coefficient coefficients inequality real rational irrational
        determinant converges convergence limit sum product ratio percent percentage calculate compute solve
        evaluate multiply divided quotient square cube cubed root gcd lcm bijection subset subsets graph""",
    PROOF: """prove proof proves disprove lemma corollary contradiction induction derive derivation
        rigorous rigorously olympiad necessary sufficient supremum infimum""",
    CODE: """def return import class function const var int void public static async await lambda elif struct
        null none true false print printf string boolean array dict list tuple sql select join regex api json
        python javascript typescript java rust golang bash html css stdin stdout exception traceback recursion
        recursive pointer thread threads mutex compile algorithm runtime dataframe pandas numpy""",
    BUILD: """implement implements implementing refactor debug optimize optimise architecture architect
        concurrent concurrency distributed migrate schema deploy deadlock latency scalable
        asynchronous parser compiler""",
    EASY: """extract classify label lowercase uppercase capitalize copy repeat spell echo translate greet
        hello hi hey thanks thank yes ok okay convert colour opposite synonym antonym sentiment
        format rename""",
    HARD: """analyze analyse compare contrast critique design evaluate justify tradeoffs tradeoff
        implications optimal optimize maximize minimise minimize maximise strategy hypothesis infer deduce
        puzzle paradox explain  diagnose reconcile synthesize synthesise ambiguous counterfactual""",
    CONSTRAINT: """must exactly least without never only unless except ensure ensuring should cannot constraint
        constraints required requires require within avoid forbidden precisely neither nor every all""",
    SEQUENCE: """then next finally first second third step steps afterwards subsequently therefore hence after
        before lastly initially""",
    LONG: """essay article story report detailed comprehensive thorough chapter documentation tutorial guide
        elaborate paragraphs write""",
    SHORT: "briefly concise short single word brief answer reply respond",
}
_SIGNS: dict[int, str] = {
    SIGN: "= ^ < > + * × ÷ ≤ ≥ ≠ ≈ √ ∑ ∏ ∫ ∂ ± ∞ ∈ ∉ ⊂ ∪ ∩ ∀ ∃ ∇ → ⇒ ≡ $ %",  # noqa: RUF001 - signs as such
    MARK: "? \uff1f \u061f",
    BRACKET: "{ } ; [ ] | & @ # ~",
    FENCE: "```",
}

LEXICON: dict[str, int] = {
    token: kind for table in (_WORDS, _SIGNS) for kind, row in table.items() for token in row.split()
}
"""Lower-case token -> kind."""
