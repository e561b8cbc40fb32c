"""A LangChain agent under a policy: each model call is a governed step, tool calls are checked before they run.

pip install -e '.[langgraph,langchain,local]'; governor models pull smollm2-135m        (once, in a checkout)
python examples/governed_agent.py
"""

from pathlib import Path

from langchain.agents import create_agent
from langchain_core.tools import tool

from governor import Governor
from governor_langgraph import GovernedChat, GovernorMiddleware
from governor_local.backend import LocalBackend
from governor_local.schema_tools import SchemaTools

POLICY = Path(__file__).parent / "governed_agent.yaml"
PEOPLE = {"paris": 2_100_000, "rome": 2_750_000}


@tool
def population(city: str) -> str:
    """Look up how many people live in a city."""
    return f"{PEOPLE.get(city.lower(), 0):,} people live in {city}."


def main() -> None:
    """Ask the agent one question, and print what it did and what each step came to."""
    backend = SchemaTools(LocalBackend())  # so small a model calls tools only where its answers are held to a schema
    with Governor.from_policy(POLICY, backend=backend) as governor:
        agent = create_agent(
            GovernedChat(governor=governor),
            [population],
            middleware=[GovernorMiddleware(governor, on_refusal="message")],  # the first one is outermost
        )
        final = agent.invoke({"messages": [{"role": "user", "content": "How many people live in Paris?"}]})
    for message in final["messages"]:
        for call in getattr(message, "tool_calls", ()):
            print(f"calls {call['name']}({call['args']})")
        if told := message.response_metadata.get("governor"):
            print(
                f"step {told['status']} on {told['rung']} after {told['attempts']} attempt(s), {told['tokens']} tokens"
            )
    print(f"answer: {final['messages'][-1].content[:200]}")


if __name__ == "__main__":
    main()
