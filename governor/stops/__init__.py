"""When a thought should end: rules on text and log-probabilities, written once for every carrier.

The rules are functions over an array namespace (`numpy` or `torch`): a row is one reply, and state is one row of a
matrix. `watch` carries them on the client, one row of numpy at a time; `governor_vllm.processor` carries them inside
the engine, all rows of a batch at once. Nothing here knows where tokens come from.
"""
