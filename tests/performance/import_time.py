"""Time of `import editr1_plugins` in fresh interpreters, next to an interpreter that imports nothing.

    python tests/performance/import_time.py [RUNS]

The promise is under 100 ms on a quiet machine. Printed: median and worst of RUNS (default 20), in ms.
"""

import statistics
import subprocess
import sys

CODE = "import time; t = time.perf_counter(); {}; print((time.perf_counter() - t) * 1000)"
CASES = {
    "nothing": "pass",
    "import editr1_plugins": "import editr1_plugins",
    "... and types": "from editr1_plugins import Edit, Principle, Verdict, Verification",
    "... and all plugins": "from editr1_plugins.plugins import registry; registry()",
    "editr1 --help": "from editr1_plugins.cli import _parser; _parser().format_help()",
}


def measure(statement: str, runs: int) -> list[float]:
    """Milliseconds of `statement`, once in each of `runs` fresh interpreters."""
    command = [sys.executable, "-c", CODE.format(statement)]
    return [float(subprocess.check_output(command, text=True).splitlines()[-1]) for _ in range(runs)]


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    for name, statement in CASES.items():
        times = measure(statement, runs)
        print(f"{name:<24}{statistics.median(times):8.1f} ms median{max(times):8.1f} ms worst of {runs}")


if __name__ == "__main__":
    main()
