"""The connection of a Redis ledger: its URI, its client of either colour, and what their errors mean."""

from __future__ import annotations

import asyncio
import difflib
import re
from dataclasses import dataclass
from threading import Lock
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from redis import Redis, RedisCluster
from redis import asyncio as aio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.connection import HiredisRespSerializer
from redis.exceptions import AuthenticationError, NoScriptError, OutOfMemoryError, RedisError, ResponseError
from redis.exceptions import ConnectionError as LostConnection
from redis.exceptions import TimeoutError as TooLate
from redis.retry import Retry
from redis.utils import HIREDIS_AVAILABLE

from governor.errors import LedgerError, LedgerUnavailableError
from governor.ledger.redis_calls import KEPT, Call, keys_of

MOST_CONNECTIONS = 4_096
"""Of a process: as many as it has threads that call at once."""

MOST_TOGETHER = 128
"""Calls that are sent as one pipeline."""

_BROKEN = (LostConnection, TooLate, OSError)

_OWN = {"tenant": "governor", "timeout": "1", "cluster": "no", "create": "yes"}
_PASSED = ("db", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_KNOWN = (*_OWN, *_PASSED)


@dataclass(frozen=True, slots=True)
class Address:
    """A ledger's URI, read. `where` is the URI without its password; `timeout` seconds bound a whole operation."""

    url: str
    where: str
    tenant: str
    timeout: float
    cluster: bool
    create: bool

    @property
    def options(self) -> dict[str, Any]:
        """What clients of either colour are made with: half of the time for each of two tries."""
        half = self.timeout / 2
        return {"socket_timeout": half, "socket_connect_timeout": half, "max_connections": MOST_CONNECTIONS}


def address(uri: str) -> Address:
    """The parts of a URI like `redis://:password@host:6379/0?tenant=acme&timeout=1`; LedgerError if it is none."""
    parts = urlsplit(uri)
    where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    for option in given:
        if option not in _KNOWN:
            close = difflib.get_close_matches(option, _KNOWN, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(_KNOWN)}"
            raise LedgerError(f"ledger '{where}': unknown option '{option}': {hint}")
    own = {name: given.get(name, usual) for name, usual in _OWN.items()}
    wrong = _wrong_place(parts) or _wrong_option(own, parts.path)
    if wrong:
        raise LedgerError(f"ledger '{where}'{wrong}")
    passed = urlencode({name: value for name, value in given.items() if name in _PASSED})
    url = f"{parts.scheme}://{parts.netloc}{parts.path}" + (f"?{passed}" if passed else "")
    return Address(url, where, own["tenant"], float(own["timeout"]), own["cluster"] == "yes", own["create"] == "yes")


def _wrong_place(parts: SplitResult) -> str:
    """What is wrong with the place that a URI names; empty if nothing is."""
    if parts.scheme == "unix":
        return "" if parts.path else " names no socket: write unix:///path/to/redis.sock"
    if not parts.hostname:
        return f" names no host: write {parts.scheme}://host:6379/0"
    try:
        _ = parts.port
    except ValueError as wrong:
        return f": {wrong}"
    database = parts.path.strip("/")
    return "" if database.isdecimal() or not database else f": the database is a number, not '{database}'"


def _wrong_option(own: dict[str, str], path: str) -> str:
    if not re.fullmatch(r"[^{}]+", own["tenant"]):
        return f": a tenant is a name without braces, not '{own['tenant']}'"
    if not re.fullmatch(r"\d+(\.\d+)?", own["timeout"]) or not float(own["timeout"]):
        return f": timeout must be seconds, not '{own['timeout']}'"
    for name in ("cluster", "create"):
        if own[name] not in ("yes", "no"):
            return f": {name} is yes or no, not '{own[name]}'"
    if own["cluster"] == "yes" and path.strip("/") not in ("", "0"):
        return f": a cluster has database 0 only, not '{path.strip('/')}'"
    return ""


class Link:
    """Calls the script, connecting when first asked. Safe between threads and after a fork, as redis-py's pools are.

    A call whose answer was lost is sent once more over a new connection: every operation may be repeated.
    """

    def __init__(self, at: Address) -> None:
        self._at = at
        self._keys = (len(KEPT), *keys_of(at.tenant))
        self._client: Any = None
        self._lock = Lock()

    def ask(self, call: Call) -> list[Any]:
        """The script's answer, or LedgerUnavailableError."""
        try:
            client = self._client or self._connected()
            try:
                return self._evaluate(client, call)
            except (LostConnection, TooLate):
                self._drop(client)
                return self._evaluate(client, call)
        except (RedisError, OSError) as cause:
            raise _explained(self._at, cause) from cause

    def close(self) -> None:
        """Lets go of all connections."""
        if self._client is not None:
            if self._at.cluster:  # its own close leaves them open
                self._client.disconnect_connection_pools()
            self._client.close()

    def _evaluate(self, client: Any, call: Call) -> list[Any]:
        answer: list[Any]
        try:
            answer = client.execute_command("EVALSHA", call.script.digest, *self._keys, *call.arguments)
        except NoScriptError:
            answer = client.execute_command("EVAL", call.script.text, *self._keys, *call.arguments)
        return answer

    def _connected(self) -> Any:
        with self._lock:
            if self._client is None:
                made: Any = RedisCluster if self._at.cluster else Redis
                self._client = made.from_url(self._at.url, retry=Retry(NoBackoff(), 0), **self._at.options)
            return self._client

    def _drop(self, client: Any) -> None:
        """Connections of before a restart are all dead: the next one is new."""
        if self._at.cluster:
            client.disconnect_connection_pools()
        else:
            client.connection_pool.disconnect(inuse_connections=False)


class AsyncLink:
    """The same, awaited, for one event loop. Calls that come while others are under way go together, as one pipeline.

    So one connection does for any number of tasks, and the more of them there are the less each costs.
    """

    def __init__(self, at: Address) -> None:
        self._at = at
        self._keys = (len(KEPT), *keys_of(at.tenant))
        self._client: Any = None
        self._waiting: list[tuple[Call, asyncio.Future[list[Any]]]] = []
        self._sending: asyncio.Task[None] | None = None

    async def ask(self, call: Call) -> list[Any]:
        """The script's answer, or LedgerUnavailableError."""
        answer: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._waiting.append((call, answer))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send())
        return await answer

    async def close(self) -> None:
        """Lets go of all connections, once what is under way was answered."""
        if self._sending is not None:
            await self._sending
        if self._client is not None:
            await self._client.aclose()

    async def _send(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:MOST_TOGETHER], self._waiting[MOST_TOGETHER:]
                try:
                    found = await self._answers([call for call, _ in batch])
                except Exception as fault:  # noqa: BLE001 - whoever waits must hear of it, a defect too
                    found = [fault] * len(batch)
                if all(isinstance(one, _BROKEN) for one in found):  # whoever waited meanwhile has waited long enough
                    found += found[:1] * len(self._waiting)
                    batch, self._waiting = batch + self._waiting, []
                for (_, answer), one in zip(batch, found, strict=True):
                    if not answer.done():  # else its task was cancelled meanwhile
                        self._deliver(answer, one)
        finally:
            self._sending = None

    def _deliver(self, answer: asyncio.Future[list[Any]], one: Any) -> None:
        if isinstance(one, (RedisError, OSError)):
            one = _explained(self._at, one)
        if isinstance(one, BaseException):
            answer.set_exception(one)
        else:
            answer.set_result(one)

    async def _answers(self, batch: list[Call]) -> list[Any]:
        """For each call its answer, or the error that it ended with."""
        found = await self._attempt(batch)
        again = [number for number, one in enumerate(found) if isinstance(one, _BROKEN)]
        if again:
            await self._client.aclose()
            for number, one in zip(again, await self._attempt([batch[number] for number in again]), strict=True):
                found[number] = one
        for number, one in enumerate(found):
            if isinstance(one, NoScriptError):
                call = batch[number]
                (found[number],) = await self._together([("EVAL", call.script.text, *self._keys, *call.arguments)])
        return found

    async def _attempt(self, batch: list[Call]) -> list[Any]:
        return await self._together([("EVALSHA", call.script.digest, *self._keys, *call.arguments) for call in batch])

    async def _together(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        try:
            client = self._client or self._connected()
            if self._at.cluster:  # whose pipelines take no scripts
                return await asyncio.gather(*(client.execute_command(*one) for one in commands), return_exceptions=True)
            pipeline = client.pipeline(transaction=False)
            for one in commands:
                pipeline.execute_command(*one)
            answers: list[Any] = await pipeline.execute(raise_on_error=False)
        except (RedisError, OSError) as cause:
            return [cause] * len(commands)
        return answers

    def _connected(self) -> Any:
        made: Any = aio.RedisCluster if self._at.cluster else aio.Redis
        self._client = made.from_url(self._at.url, retry=AsyncRetry(NoBackoff(), 0), **self._at.options)
        if HIREDIS_AVAILABLE and not self._at.cluster:
            pool = self._client.connection_pool
            pool.connection_class = type("Packed", (_Packed, pool.connection_class), {})
        return self._client


class _Packed:
    """Mixed into an awaited connection: redis-py writes its commands in Python there, a third of what a call costs."""

    def pack_command(self, *arguments: Any) -> list[bytes]:
        """As blocking connections do it, in C."""
        packed: list[bytes] = HiredisRespSerializer().pack(*arguments)
        return packed


def _explained(at: Address, cause: Exception) -> LedgerUnavailableError:
    return LedgerUnavailableError(f"ledger {at.where}: {_reason(cause)}")


def _reason(cause: Exception) -> str:
    match cause:
        case AuthenticationError():
            return "the server refused the user or password"
        case OutOfMemoryError():
            return "the server's memory is full: raise maxmemory (with maxmemory-policy noeviction)"
        case TooLate():
            return "no answer in time"
        case LostConnection() | OSError():
            return "the server can't be reached, or the connection broke"
        case ResponseError():
            return f"the server refused: {str(cause).splitlines()[0]}"
        case _:
            return str(cause) or type(cause).__name__
