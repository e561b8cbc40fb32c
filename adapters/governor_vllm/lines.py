"""The lines of server-sent events, cut from bytes as they come.

Such a line ends with CR, LF or both (WHATWG HTML, 9.2.5) and with nothing else. What Python takes for the end of a line
too, U+2028, U+2029 and U+0085 among others, vLLM writes into its JSON as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Lines:
    """Bytes in pieces of any size -> lines; one that has no end yet is held back. Between CR and LF is an empty one."""

    _held: list[bytes] = field(default_factory=list)

    def feed(self, data: bytes) -> list[str]:
        """The lines that end in `data`."""
        first, *others = data.replace(b"\r", b"\n").split(b"\n")
        self._held.append(first)
        if not others:
            return []
        whole, self._held = [b"".join(self._held), *others[:-1]], [others[-1]]
        return [line.decode("utf-8", "replace") for line in whole]
