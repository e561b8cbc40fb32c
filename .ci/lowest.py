"""Prints the lowest versions that pyproject.toml allows for the packages of some extras, as constraints for pip.

python .ci/lowest.py langgraph langchain > lowest.txt
"""

import re
import sys
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]

for extra in sys.argv[1:]:
    for wanted in PROJECT["optional-dependencies"][extra]:
        found = re.fullmatch(r"([\w-]+)(?:\[[\w,-]+\])?>=([\w.]+)(?:,.*)?", wanted)
        if found:  # an extra of this package has no version
            sys.stdout.write("{}=={}\n".format(*found.groups()))
