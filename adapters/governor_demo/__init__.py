"""`governor demo`: the main job on a real local model, inside a real LangGraph graph."""
