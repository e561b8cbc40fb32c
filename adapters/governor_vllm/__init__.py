"""vLLM: what a rung becomes on its wire, and the stop rules inside the engine. Only `processor` needs torch and vllm."""
