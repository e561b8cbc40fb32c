"""vLLM: what a rung becomes on its wire, and stop rules inside the engine. Only `processor` and `logits` need torch."""
