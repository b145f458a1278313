"""`make bench`: run the benchmarks and print their tables, as RESULTS.md has them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import fusion


def main() -> int:
    """Run what is asked for and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("build/benchmarks"), help="for models")
    parser.add_argument("--contributions", type=int, default=8, help="models to fuse")
    parser.add_argument("--layers", type=int, default=12, help="12: the size of RoBERTa-base")
    parser.add_argument("--repeats", type=int, default=5, help="interleaved runs of each program")
    options = parser.parse_args()
    sys.stdout.write(
        fusion.table(options.folder, options.contributions, options.layers, options.repeats) + "\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
