"""Records -> better decisions: load, fit, replay, certify, watch, export."""
