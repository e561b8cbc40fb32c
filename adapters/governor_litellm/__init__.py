"""LiteLLM as Governor's way to hosted models and to any OpenAI-compatible server.

backend.py    LiteLLMBackend: call, acall, stream, astream
request.py    Call -> keyword arguments of litellm.completion
reply.py      LiteLLM's response or chunks -> Reply
faults.py     LiteLLM's exceptions -> BackendError, once
retries.py    which faults are tried again, and until when
"""

from governor_litellm.backend import LiteLLMBackend

__all__ = ["LiteLLMBackend"]
