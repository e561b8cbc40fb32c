"""One step, governed, on a local model: forecast first, then the run, then what it cost.

pip install -e '.[local]'; governor models pull smollm2-135m        (once, in a checkout)
python examples/quickstart.py
"""

from pathlib import Path

from governor import Governor

POLICY = Path(__file__).parent / "quickstart.yaml"
PROMPT = "What is 6 + 2? Answer with the number alone."


def main() -> None:
    """Explain a step, run it, and print every attempt."""
    with Governor.from_policy(POLICY) as governor:
        found = governor.explain(PROMPT, node="sums")
        print(f"difficulty {found.difficulty:.2f}, would start with: {found.plan.reason}")

        outcome = governor.run(PROMPT, node="sums", seed=1, checks=({"number": {"minimum": 0, "maximum": 20}},))
        for attempt in outcome.attempts:
            verdict = attempt.verdict.decision if attempt.verdict else attempt.error
            print(f"{attempt.number}. {attempt.rung.id} ({attempt.mode}): {verdict}")
        print(f"{outcome.status}: {outcome.answer!r} for {outcome.spent.tokens} tokens")


if __name__ == "__main__":
    main()
