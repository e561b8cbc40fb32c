"""Which of the requests that a call was made of may have reached a model, as LiteLLM's deployment hooks tell."""

from __future__ import annotations

from dataclasses import dataclass, field

from governor_litellm.faults import causes, unsent


@dataclass(slots=True)
class Tries:
    """The requests of one call: LiteLLM may send it several times, to several deployments.

    `untold`: nothing tells when a deployment is asked; what failed then tells itself whether it was sent.
    """

    untold: bool = False
    begun: int = 0
    """How often a deployment was asked."""
    refused: int = 0
    """How many of these came to nothing before anything was sent."""
    _kind: object = None
    _before: list[BaseException] = field(default_factory=list)
    """What the errors so far came from: Python hangs them on the error of the next try, which they do not explain."""

    def begin(self, kind: object = None) -> None:
        """A deployment is asked. `kind` is LiteLLM's of the call: one within another has another, and is no try more.

        A request in one format that LiteLLM sends in another is such a pair.
        """
        if not self.begun:
            self._kind = kind
        self.begun += kind == self._kind

    def failed(self, error: BaseException, kind: object = None) -> None:
        """A deployment failed. What fails later, in a guardrail say, is no failure of the model's."""
        if kind == self._kind:
            self.refused += unsent(error, self._before)
            self._before += causes(error, self._before)

    def sent(self, *, otherwise: bool = True) -> bool:
        """Whether any may have been sent; `otherwise` is what is known where nothing tells."""
        return self.begun > self.refused if self.begun else self.untold and otherwise
