"""Runs every check of the project and prints one line for each: `make check`.

Enters: the working tree. Leaves: exit status 0 if everything is in order. Does not know: how to repair (`make fmt`).
"""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
CHECKS = {
    "format": [BIN / "ruff", "format", "--check", "--quiet", "."],
    "lint": [BIN / "ruff", "check", "--quiet", "--output-format", "concise", "."],
    "types": [BIN / "mypy", "--no-error-summary", "--hide-error-context"],
    "layers": [BIN / "lint-imports", "--no-logo"],
    "house": [sys.executable, ROOT / "tools" / "check_house.py"],
}


def main() -> int:
    """Run the checks one after the other, all of them even if one fails."""
    failed = []
    for name, command in CHECKS.items():
        started = time.monotonic()
        result = subprocess.run(
            [str(part) for part in command],
            cwd=ROOT,
            env={**os.environ, "NO_COLOR": "1", "PYTHONPATH": str(ROOT / "src")},
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.monotonic() - started
        print(f"{name:8} {'ok' if result.returncode == 0 else 'FAILED'}  {seconds:.1f} s", flush=True)
        if result.returncode != 0:
            failed.append(name)
            print(result.stdout + result.stderr, flush=True)
    print(f"check: {len(CHECKS) - len(failed)} of {len(CHECKS)} in order", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
