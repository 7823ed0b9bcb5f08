"""Cold start: from (source, instruction) rows to traces that a judge of edits learns from, in resumable stages.

select -> decompose -> candidates -> traces -> verify -> choose -> dataset. `run_coldstart` runs them; `load_config`
reads the YAML of `editr1 coldstart`.
"""

from .config import STAGES, ColdStartConfig
from .config_file import config_from_mapping, load_config
from .pipeline import run_coldstart
from .report import ColdStartReport

__all__ = ["STAGES", "ColdStartConfig", "ColdStartReport", "config_from_mapping", "load_config", "run_coldstart"]
