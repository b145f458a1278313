"""`make bench`: run the benchmarks and print their tables, as RESULTS.md has them."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import Any

from benchmarks import (
    encoding_lines,
    encoding_speed,
    encodings,
    evaluate,
    finetune,
    fusion,
    transfer,
)

FOLDER = Path("build/benchmarks")
DATA = Path("../shared/data")


def main() -> int:
    """Run what is asked for and return the exit status."""
    options = _parser().parse_args()
    tables = {
        "transfer": _transfer,
        "finetune": _finetune,
        "encodings": _encodings,
        "evaluate": _evaluate,
    }
    sys.stdout.write(tables.get(options.what, _fusion)(options) + "\n")
    return 0


def _fusion(options: argparse.Namespace) -> str:
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
    return fusion.table(settings)


def _transfer(options: argparse.Namespace) -> str:
    _end_tidily()
    settings = transfer.Settings(
        folder=options.folder,
        size=options.megabytes * 10**6,
        repeats=options.repeats,
        memory_size=options.memory_megabytes * 10**6,
    )
    return transfer.table(settings)


def _finetune(options: argparse.Namespace) -> str:
    training = {
        "epochs": options.epochs,
        "lr": options.lr,
        "batch_size": options.batch_size,
        "max_length": options.max_length,
        "max_steps": options.max_steps,
        "seed": options.seed,
    }
    settings = finetune.Settings(
        options.folder, options.data, options.datasets, training, options.limit
    )
    return finetune.table(settings)


def _end_tidily() -> None:
    """Let a termination do as Ctrl-C does: servers are ended and files removed."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


def _encodings(options: argparse.Namespace) -> str:
    _end_tidily()
    if options.repeats:
        # At once: what follows takes hours.
        sys.stdout.write(encoding_speed.table(options.folder, repeats=options.repeats) + "\n\n")
        sys.stdout.flush()
    settings = encoding_lines.Settings(
        folder=options.folder,
        data=options.data,
        names=options.datasets or _all_names(options.data),
        encodings=[
            name
            for name in encodings.ALL
            if name == encoding_lines.FULL or name in options.encodings
        ],
        rounds=options.rounds,
        seeds=options.seeds,
        examples=options.examples,
        training={
            "max_steps": options.max_steps,
            "batch_size": options.batch_size,
            "max_length": options.max_length,
        },
        lr=options.lr,
    )
    return encodings.table(settings)


def _evaluate(options: argparse.Namespace) -> str:
    settings = evaluate.Settings(
        options.folder, options.data, options.datasets, options.train, options.test, options.seeds
    )
    return evaluate.table(settings)


def _all_names(data: Path) -> list[str]:
    return sorted(path.parent.name for path in data.glob("*/train.*"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=f"{__doc__} Without a command: fusing."
    )
    add = parser.add_argument
    add("--folder", type=Path, default=FOLDER, help="for models")
    add("--contributions", type=int, default=8, help="models to fuse, 3 or more")
    add("--layers", type=int, default=12, help="12: the size of RoBERTa-base")
    add("--repeats", type=int, default=5, help="interleaved runs of ours and the limit")
    add("--peer-repeats", type=int, default=1, help="of these, runs with the peers: minutes each")
    add("--peers", default=sys.executable, help="the Python that has them (benchmarks/peers.txt)")
    add("--memory-layers", type=int, default=3, help="size for the memory table; 0: no such table")
    add("--many", type=int, default=64, help="contributions in the memory table")
    commands = parser.add_subparsers(dest="what", metavar="transfer|finetune|encodings|evaluate")
    add = commands.add_parser("transfer", help="moving models; see transfer --help").add_argument
    add("--folder", type=Path, default=FOLDER, help="for everything that is moved")
    add("--megabytes", type=int, default=1000, help="size of the model that is moved")
    add("--repeats", type=int, default=3, help="interleaved runs of all")
    add(
        "--memory-megabytes",
        type=int,
        default=4000,
        help="the larger model of the memory table; needs four times its size; 0: no such table",
    )
    _add_finetune(commands)
    _add_encodings(commands)
    _add_evaluate(commands)
    return parser


def _add_finetune(commands: Any) -> None:
    about = "beside a plain Trainer script; see finetune --help"
    add = commands.add_parser("finetune", help=about, description=finetune.__doc__).add_argument
    add("--folder", type=Path, default=FOLDER, help="keeps the results; a later run goes on")
    add("--data", type=Path, default=DATA, help="a folder with one folder for each data set")
    add("--datasets", nargs="*", default=[], help="names of data sets; by default all there are")
    add("--epochs", type=float, default=4.0, help="passes over the training examples")
    add("--max-steps", type=int, default=None, help="stop after so many steps")
    add("--lr", type=float, default=5e-5, help="learning rate")
    add("--batch-size", type=int, default=16, help="examples a step")
    add("--max-length", type=int, default=128, help="tokens of an example")
    add("--seed", type=int, default=13, help="of heads and order")
    add("--limit", type=float, default=7200.0, help="seconds that one finetuning may take")


def _add_encodings(commands: Any) -> None:
    about = "what they cost, in bytes and scores; see encodings --help"
    add = commands.add_parser("encodings", help=about, description=encodings.__doc__).add_argument
    add("--folder", type=Path, default=FOLDER, help="keeps results and bases; a later run goes on")
    add("--data", type=Path, default=DATA, help="a folder with one folder for each data set")
    add("--datasets", nargs="*", default=[], help="names of data sets; by default all there are")
    add(
        "--encodings",
        nargs="*",
        default=list(encodings.ALL),
        choices=encodings.ALL,
        metavar="ENCODING",
        help="beside full; by default all",
    )
    add("--rounds", type=int, default=3, help="of fusing")
    add("--examples", type=int, default=800, help="of training and of test, a data set, at most")
    add("--max-steps", type=int, default=60, help="of a finetuning")
    add("--lr", type=float, default=None, help="learning rate, but for adapters; default: usual")
    add("--batch-size", type=int, default=16, help="examples a step")
    add("--max-length", type=int, default=128, help="tokens of an example")
    add("--seeds", type=int, nargs="+", default=[13], help="of examples, heads and order")
    add("--repeats", type=int, default=5, help="of the table of speeds; 0: no such table")


def _add_evaluate(commands: Any) -> None:
    about = "linear probing beside a plain script; see evaluate --help"
    add = commands.add_parser("evaluate", help=about, description=evaluate.__doc__).add_argument
    add("--folder", type=Path, default=FOLDER, help="for the suite and what is kept")
    add("--data", type=Path, default=DATA, help="a folder with one folder for each data set")
    add("--datasets", nargs="*", default=evaluate.DATASETS, help="names of data sets")
    add("--train", type=int, default=1000, help="examples that a seed trains on")
    add("--test", type=int, default=500, help="examples that are scored")
    add("--seeds", type=int, default=3, help="how many")


if __name__ == "__main__":
    sys.exit(main())
