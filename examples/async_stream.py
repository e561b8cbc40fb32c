"""Text as it comes, for asyncio: no verifier has to see this answer whole, so nothing is held back.

pip install -e '.[local]'; governor models pull smollm2-135m        (once, in a checkout)
python examples/async_stream.py
"""

import asyncio
from pathlib import Path

from governor import Governor

POLICY = Path(__file__).parent / "quickstart.yaml"


async def answer(governor: Governor, question: str) -> None:
    """Stream one answer. Leaving the loop early would cancel the step and settle what it spent."""
    stream = governor.astream(question, node="reply", seed=1)
    pieces = 0
    async for text in stream:
        print(text, end="", flush=True)
        pieces += 1
    assert stream.outcome is not None
    print(f"\n{stream.outcome.status} on {stream.outcome.rung}, {pieces} pieces, {stream.outcome.spent.tokens} tokens")


def main() -> None:
    """Ask one question."""
    with Governor.from_policy(POLICY) as governor:
        asyncio.run(answer(governor, "Why is the sky blue? One sentence."))


if __name__ == "__main__":
    main()
