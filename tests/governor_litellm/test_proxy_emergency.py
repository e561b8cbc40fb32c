"""An application that may go on while its store is down: what is spent so outlives reloads, and is booked."""

from __future__ import annotations

import asyncio

import pytest

from governor.ledger import open_ledger
from governor.records import Amount, Limit
from governor_litellm.ledgers import Ledgers
from tests.governor_litellm.proxy_app import LADDER, ProxyUnderTest
from tests.redis_servers import RedisServer

pytestmark = pytest.mark.asyncio(loop_scope="session")
POLICY = """\
version: 1
app: {app}
ledger: {uri}?timeout=0.3
{ladder}
budget: {{app: {{per: total, usd: 1}}, emergency: {{usd: {cap}}}}}
"""


def write(proxy: ProxyUnderTest, redis: RedisServer, cap: float) -> str:
    """A policy whose cap is as given; the application's name."""
    app = "emergency"
    text = POLICY.format(app=app, uri=redis.uri, ladder=LADDER, cap=cap)
    (proxy.folder / f"{app}.yaml").write_text(text)
    proxy.look()
    assert app in proxy.governor.desk.folder.served, proxy.governor.desk.folder.errors
    return app


async def test_what_was_spent_in_an_outage_outlives_reloads_and_is_booked_without_a_further_request(
    proxy: ProxyUnderTest, own_redis: RedisServer
) -> None:
    app = write(proxy, own_redis, 0.0003)
    proxy.default(app)
    own_redis.stop()
    served: list[int] = []
    for reload in range(1, 30):
        served.append((await proxy.chat()).status_code)
        write(proxy, own_redis, 0.0003 + reload / 1e9)  # another policy, and as good as the same cap
    assert served[0] == 200
    assert served[-1] == 402, f"each reload made the cap whole again: {served}"
    desk = proxy.governor.desk
    await proxy.idle()
    assert desk.ledgers.owed == served.count(200)
    own_redis.start()
    for _ in range(100):
        if not desk.ledgers.owed:
            break
        await asyncio.sleep(0.1)
    assert desk.ledgers.owed == 0
    late = open_ledger(own_redis.uri)
    spent = late.balance(f"app:{app}").spent.micros
    late.close()
    assert spent is not None
    assert spent > 0
    proxy.remove(app)


async def test_what_stands_in_is_paid_when_the_proxy_stops() -> None:
    known = Ledgers(open_ledger)
    stands_in, store = known.standing_in("memory://", Limit("emergency:a", tokens=10)), known.of("memory://")
    assert known.standing_in("memory://", Limit("emergency:a", tokens=20)) is stands_in
    stands_in._books.down_until = float("inf")  # as after a failure
    stands_in.reserve("k", Amount(tokens=15), (Limit("app:a", tokens=100),))
    stands_in.settle("k", Amount(tokens=12))
    assert known.owed == 1
    booked = store.balance
    await known.aclose()
    assert booked("app:a").spent.tokens == 12
