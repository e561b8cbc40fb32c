"""vLLM as an engine that Governor steers: exact thinking budgets, proved before use, and stop rules inside.

backend.py      VllmBackend: call, acall, stream, astream for models named `vllm/NAME`
served.py       what a server honours, as its canaries showed
canaries.py     the proofs: small requests whose answers show whether a setting acts
probe.py        the questions that canaries and requests ask of a server
options.py      how a policy says a model is reached
request.py      Call -> the body that makes its rung true on this server, or the error that says why none can
reply.py        stream chunks -> Reply
marks.py        thought and answer told apart in plain text; end marks that leak
link.py         HTTP to one server; its failures as BackendError
lines.py        bytes of a stream -> lines, as server-sent events end them
load.py         queue and cache of an engine -> how busy it is, 0 to 1
families.py     parsers by model family
launch.py       the exact `vllm serve` command
processor.py    the logits processor that runs in the engine; batch, logits, script and vocabulary are its parts

Only `processor` and `logits` need torch and vLLM.
"""
