"""Reply -> Verdict: checks, their composition, and the sandbox they may need."""
