"""A verifier of your own: any callable of (step, reply) that gives a bool, a score or a Verdict.

pip install -e '.[local]'; governor models pull smollm2-135m        (once, in a checkout)
python examples/own_verifier.py
"""

from pathlib import Path

from governor import Governor, Reply, Step, Verdict

POLICY = Path(__file__).parent / "quickstart.yaml"


def short_enough(step: Step, reply: Reply) -> Verdict:
    """Accept answers of at most twelve words; say what is wrong with longer ones."""
    words = len(reply.text.split())
    if words <= 12:
        return Verdict(decision="accept", verifier="short_enough")
    return Verdict(
        decision="reject", verifier="short_enough", failure="format", feedback=f"{words} words; use at most twelve"
    )


def main() -> None:
    """Stream one answer that must be short: rejected attempts are never shown."""
    check = {"callable": f"{__name__}:short_enough"}
    with Governor.from_policy(POLICY) as governor:
        stream = governor.stream(
            "What is the capital of France? Answer briefly.", node="facts", checks=(check,), seed=1
        )
        for text in stream:
            print(text, end="", flush=True)
    assert stream.outcome is not None
    print(f"\n{stream.outcome.status} after {len(stream.outcome.attempts)} attempt(s)")


if __name__ == "__main__":
    main()
