"""Makers of benchmark folders, found beside this file."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode finds no helper modules by itself
