"""`make bench`: run the benchmarks and print their tables, as RESULTS.md has them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import fusion


def main() -> int:
    """Run what is asked for and return the exit status."""
    options = _parser().parse_args()
    settings = fusion.Settings(
        folder=options.folder,
        contributions=options.contributions,
        layers=options.layers,
        repeats=options.repeats,
        peer_repeats=options.peer_repeats,
        peers=options.peers,
        memory_layers=min(options.memory_layers, options.layers),
        many=options.many,
    )
    sys.stdout.write(fusion.table(settings) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("--folder", type=Path, default=Path("build/benchmarks"), help="for models")
    add("--contributions", type=int, default=8, help="models to fuse, 3 or more")
    add("--layers", type=int, default=12, help="12: the size of RoBERTa-base")
    add("--repeats", type=int, default=5, help="interleaved runs of ours and the limit")
    add("--peer-repeats", type=int, default=1, help="of these, runs with the peers: minutes each")
    add("--peers", default=sys.executable, help="the Python that has them (benchmarks/peers.txt)")
    add("--memory-layers", type=int, default=3, help="size for the memory table; 0: no such table")
    add("--many", type=int, default=64, help="contributions in the memory table")
    return parser


if __name__ == "__main__":
    sys.exit(main())
