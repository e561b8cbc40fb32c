"""Two governors, one SQLite ledger: a session's budget holds for both together, in one process or in several.

pip install -e '.[local]'; governor models pull smollm2-135m        (once, in a checkout)
python examples/shared_budget.py
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from governor import Governor
from governor.ledger import open_ledger

POLICY = Path(__file__).parent / "shared_budget.yaml"
LIMIT = 300  # tokens of one session, as the policy says


def main() -> None:
    """Take turns until the session's tokens are used up: whoever comes next is refused, and nothing is sent."""
    with TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/budget.db"
        with (
            Governor.from_policy(POLICY, ledger=open_ledger(uri)) as one,
            Governor.from_policy(POLICY, ledger=open_ledger(uri)) as other,
        ):
            for turn in range(10):
                name, governor = ("one", one) if turn % 2 == 0 else ("other", other)
                outcome = governor.run("Name a colour.", session="s")
                print(f"{name:5} {outcome.status}: {outcome.spent.tokens} tokens {outcome.error}")
                if outcome.status == "refused":
                    break
            balance = one.ledger.balance("session:shared/s")
    print(f"spent {balance.spent.tokens} of {LIMIT}, still reserved {balance.reserved.tokens}")
    assert balance.spent.tokens <= LIMIT


if __name__ == "__main__":
    main()
