"""`python -m experiments`: list, run, resume, join, report, pretrain."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from coldfusion_shared.errors import ColdFusionError, InvalidRequest
from experiments.faults import Fault
from experiments.presets import names as preset_names

FAILED, INTERRUPTED = 1, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what is asked for and return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        options.do(options)
    except (ColdFusionError, Fault) as error:
        sys.stderr.write(f"Error: {error.message}\n")
        if error.hint:
            sys.stderr.write(f"{error.hint}\n")
        return FAILED
    except KeyboardInterrupt:
        sys.stderr.write(f"Interrupted.{_going_on(options)}\n")
        return INTERRUPTED
    return 0


def _going_on(options: argparse.Namespace) -> str:
    """Return how to go on with what was interrupted; "": there is nothing to go on with."""
    if options.do is _pretrain:
        return " The same command goes on with it."
    if options.do not in (_run, _resume) or options.plan:
        return ""
    from experiments.runs import RUN

    run = options.out if options.do is _run else options.run
    if not (run / RUN).exists():
        return ""
    return f" Go on with: python -m experiments resume {shlex.quote(str(run))}"


def _list(_: argparse.Namespace) -> None:
    from experiments.protocols import discover

    registry = discover()
    width = max(map(len, registry))
    for name in registry:
        found = registry[name]
        where = f" (paper: {found.paper})" if found.paper else ""
        sys.stdout.write(f"{name:{width}}  {found.summary}{where}\n")


def _run(options: argparse.Namespace) -> None:
    if not options.plan:
        _begin(options.out, options)
        _go_on(options.out, options)
        return
    from experiments.runs import CACHE

    # The folder is not bound to what is only planned; what is in its cache is counted as made.
    cache = options.cache or options.out / CACHE
    with TemporaryDirectory() as folder:
        _begin(Path(folder), options)
        _plan(Path(folder), cache, options.quiet)


def _begin(out: Path, options: argparse.Namespace) -> None:
    from experiments.runs import begin

    given = _given(options)
    preset = options.preset or given.pop("preset", None) or _usual_preset(options.device)
    begin(
        out, options.protocol, preset, options.base, options.data, given,
        options.device, options.server, options.model, options.cache,
    )  # fmt: skip


def _resume(options: argparse.Namespace) -> None:
    if options.plan:
        _plan(options.run, options.cache, options.quiet)
    else:
        _go_on(options.run, options)


def _plan(run: Path, cache: Path | None, quiet: bool) -> None:
    from experiments.runs import perform

    seconds = perform(run, cache, quiet=quiet, plan=True) or 0.0
    sys.stdout.write(f"About {seconds / 60:.0f} minutes in all.\n")


def _go_on(run: Path, options: argparse.Namespace) -> None:
    from experiments.runs import perform

    perform(run, options.cache, quiet=options.quiet, jobs=options.jobs)
    if options.report:
        from experiments.report import write_report

        sys.stdout.write(f"{write_report([run], run / 'report')}\n")


def _join(options: argparse.Namespace) -> None:
    from experiments.runs import join

    join(options.run, quiet=options.quiet, of=options.of)


def _report(options: argparse.Namespace) -> None:
    from experiments.report import write_report

    out = options.out or options.runs[0] / "report"
    sys.stdout.write(f"{write_report(options.runs, out)}\n")


def _pretrain(options: argparse.Namespace) -> None:
    from experiments.runs import pretrain

    given = _given(options)
    preset = options.preset or given.pop("preset", None) or _usual_preset(options.device)
    pretrain(options.out, preset, options.base, options.data, given, options.device)
    sys.stdout.write(f"{options.out}\n")


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that differ from the preset's: of the file, then of the options."""
    found: Any = {}
    if options.config is not None:
        try:
            found = yaml.safe_load(options.config.read_text(encoding="utf-8")) or {}
        except (OSError, yaml.YAMLError) as error:
            raise InvalidRequest(f"{options.config} cannot be read: {error}") from None
        if not isinstance(found, dict):
            raise InvalidRequest(f"{options.config} is no mapping of settings.")
    if getattr(options, "seeds", None) is not None:
        found["seeds"] = options.seeds
    return dict(found)


def _usual_preset(device: str) -> str:
    if device == "cpu":
        return "cpu"
    import torch

    return "gpu" if torch.cuda.is_available() else "cpu"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m experiments", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="show the protocols")
    listing.set_defaults(do=_list)
    run = commands.add_parser("run", help="run a protocol")
    run.add_argument("protocol", help="its name, as list shows it")
    _add_inputs(run)
    run.add_argument("--seeds", type=int, help="lines, each with its own draws")
    run.add_argument("--server", metavar="URL", help="a running server that fuses the rounds")
    run.add_argument(
        "--model", metavar="OWNER/NAME",
        help="of that server: what the names of the lines' models begin with",
    )  # fmt: skip
    _add_manner(run)
    run.set_defaults(do=_run)
    resume = commands.add_parser("resume", help="go on with a run that was interrupted")
    resume.add_argument("run", type=Path, help="its folder")
    _add_manner(resume)
    resume.set_defaults(do=_resume)
    joining = commands.add_parser("join", help="make a part of what a run that goes on has left")
    joining.add_argument("run", type=Path, help="its folder")
    joining.add_argument(
        "--of", type=_count, metavar="N", default=1,
        help="processes that are at it, this one too, by which the time left is reckoned",
    )  # fmt: skip
    joining.add_argument("--quiet", action="store_true", help="show no progress")
    joining.set_defaults(do=_join)
    report = commands.add_parser("report", help="write one page of the results of some runs")
    report.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="their folders")
    report.add_argument("--out", type=Path, help="folder; by default report/ in the first run's")
    report.set_defaults(do=_report)
    pretrain = commands.add_parser(
        "pretrain", help="make an encoder that has seen nothing but the texts"
    )
    _add_inputs(pretrain)
    pretrain.set_defaults(do=_pretrain)
    return parser


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base", type=Path, required=True, help="folder of a pretrained model")
    parser.add_argument("--data", type=Path, required=True, help="folder of data sets")
    parser.add_argument("--out", type=Path, required=True, help="folder that is made")
    parser.add_argument("--config", type=Path, help="YAML file of settings that differ")
    parser.add_argument("--preset", choices=preset_names(), help="sizes for a machine")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")


def _add_manner(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cache", type=Path, help="folder that several runs share")
    parser.add_argument(
        "--jobs", type=_count, metavar="N",
        help="processes that make it together; by default one for each core, 8 at most, on a GPU "
        "1; with --server always 1",
    )  # fmt: skip
    parser.add_argument("--plan", action="store_true", help="only estimate how long it takes")
    parser.add_argument(
        "--no-report", dest="report", action="store_false", help="measure, and write no page"
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of processes")
    return int(text)


if __name__ == "__main__":
    # As an interruption, so that nothing half done stays.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
