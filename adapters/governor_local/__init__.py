"""Small models in this process: llama.cpp's server, without a server to run.

backend.py    LocalBackend: call, acall, stream, astream
engine.py     one loaded model; a generation that can be stopped
wire.py       Call -> the server's request, its chunks -> Reply
registry.py   name -> file; pull, list
catalog.py    the models that are known by name, and the folders they are looked for in
download.py   the package index and the Hugging Face hub as places to get a file from
gguf.py       what a model file says of itself, and whether it is whole
"""

from governor_local.backend import LocalBackend

__all__ = ["LocalBackend"]
