"""Names of the request arguments (`vllm_xargs`) that Governor's logits processor reads."""

BUDGET = "governor_budget"
"""Thinking tokens after which the thought is ended."""
