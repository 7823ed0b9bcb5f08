"""Makes a checkout of verl-omni importable without its `__init__.py`, which imports the engine vllm_omni, for GPUs."""

import os
import sys
from pathlib import Path
from types import ModuleType

if checkout := os.environ.get("EDITR1_HOST_VERL_OMNI"):
    package = ModuleType("verl_omni")
    package.__path__ = [str(Path(checkout) / "verl_omni")]
    package.__file__ = str(Path(checkout) / "verl_omni" / "__init__.py")
    sys.modules["verl_omni"] = package
