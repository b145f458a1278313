"""A run: its folder, begun or gone on with."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from coldfusion_shared.errors import InvalidRequest
from experiments.locks import held
from experiments.presets import settings_of
from experiments.settings import Device, RunFile, Settings

if TYPE_CHECKING:
    from experiments.lab import Lab
    from experiments.progress import Clock

RUN, RECORDS, CACHE, SERVED = "run.yaml", "records.jsonl", "cache", "served"
GIGABYTE = 1e9
# No protocol, but it has settings, a cache and a clock as they have.
PRETRAIN = "pretrain"


def begin(
    out: Path,
    protocol: str,
    preset: str,
    base: Path,
    data: Path,
    given: Mapping[str, Any],
    device: Device = "auto",
    server: str | None = None,
    model: str | None = None,
    cache: Path | None = None,
) -> RunFile:
    """
    Write the run's file into the folder `out`; one that is there already has to say the same.

    Args:
        out: of the run.
        protocol: its name.
        preset: sizes for a machine.
        base: folder of the pretrained model.
        data: folder of the data sets.
        given: settings that differ from the preset's.
        device: what computes.
        server: URL of a server that fuses; null: here.
        model: of that server: owner/name that the models of the lines begin with.
        cache: shared by several runs; null: one of its own.

    Raises:
        InvalidRequest: settings make no sense, or another run is there.
        UnknownName: there is no such protocol or preset.
        BadModel, BadData: base or data cannot be read.
    """
    choose_device(device)
    from coldfusion_shared.evaluate.base_digest import base_digest
    from coldfusion_shared.evaluate.software import libraries
    from experiments.data import Data
    from experiments.digests import code
    from experiments.protocols import discover

    if protocol != PRETRAIN and not discover()[protocol].served and server is not None:
        raise InvalidRequest(
            f"The rounds of {protocol} cannot be fused by a server.",
            hint="Leave --server out.",
        )
    if (server is None) != (model is None):
        raise InvalidRequest("--server and --model go together.")
    settings = _with_whole_paths(settings_of(preset, protocol, given))
    run = RunFile(
        protocol=protocol,
        preset=preset,
        base=str(base.resolve()),
        base_digest=base_digest(base),
        data=str(data.resolve()),
        data_digests=Data(data, settings.datasets).digests(),
        other_base_digest=_other_digest(settings),
        code=code(),
        libraries=libraries(),
        device=device,
        # A pretraining is one job, which takes all cores.
        threads=None if protocol == PRETRAIN else _threads(),
        cache=None if cache is None else str(cache.resolve()),
        server=server,
        model=model,
        settings=settings,
    )
    if (out / RUN).exists():
        before = load(out)
        _check_same(out, before, run)
        # Whoever goes on with it tells that code and libraries have changed.
        kept = {name: getattr(before, name) for name in ("code", "libraries", "learnt", "threads")}
        run = run.model_copy(update={**kept, "cache": run.cache or before.cache})
    out.mkdir(parents=True, exist_ok=True)
    _write(out / RUN, run)
    return run


def load(out: Path) -> RunFile:
    """Return the file of the run in the folder `out`; raises `InvalidRequest`."""
    try:
        text = (out / RUN).read_text(encoding="utf-8")
        return RunFile.model_validate(yaml.safe_load(text))
    except OSError:
        raise InvalidRequest(
            f"There is no run in {out}.", hint="Begin one: python -m experiments run --help"
        ) from None
    except (ValidationError, yaml.YAMLError) as error:
        raise InvalidRequest(f"{out / RUN} is no run's file: {error}") from None


def perform(
    out: Path,
    cache: Path | None = None,
    *,
    quiet: bool = False,
    plan: bool = False,
    jobs: int | None = 1,
) -> float | None:
    """
    Do what is left of the run in the folder `out`; what is in the cache is done.

    Args:
        out: the run's folder.
        cache: from now on; null: the one that it has.
        quiet: tell nothing.
        plan: only measure a few jobs, and estimate the rest; nothing is written.
        jobs: processes that make it together; null: as many as do the most.

    Returns:
        About the seconds that all takes in one process, of a plan; else null.

    Raises:
        InvalidRequest: base or data are not those that the run began with, or another process is
            at it.
        Fault: the machine does not do what it should.
    """
    run = _loaded(out)
    from experiments.progress import Clock

    clock = Clock(quiet)
    if cache is not None:
        run = run.model_copy(update={"cache": str(cache.resolve())})
    if plan:
        return _planned(out, run, clock)
    with held(out):
        run = _of_now(out, run, clock)
        jobs = _usual_jobs(run, clock) if jobs is None else jobs
        # What a server is asked to fuse comes one after the other.
        if jobs > 1 and run.server is None:
            from experiments.jobs import work_together

            work_together(out, jobs, clock)
        _made(out, _of_learnable(out, run, clock), clock)
    return None


def join(out: Path, *, quiet: bool = False, of: int = 1) -> None:
    """
    Make, with the process that is at the run in the folder `out`, what nobody else is at.

    What is made goes into the run's cache; into its folder nothing is written.

    Args:
        out: the run's folder.
        quiet: tell nothing.
        of: so many processes are at it, which share what is left.

    Raises:
        InvalidRequest: there is no run, its base or data have changed, other code makes it, or a
            server fuses it.
        Fault: the machine does not do what it should.
    """
    run = _loaded(out)
    if run.server is not None:
        raise InvalidRequest("A server fuses the rounds of this run: one process asks it to.")
    if _is_of_other_code(run):
        raise InvalidRequest(
            "Other code, or other libraries, make this run: what is made here would not be found.",
            hint="Join it with the same ones, or go on with it here: python -m experiments resume",
        )
    if (run.threads is None) != (_threads() is None):
        raise InvalidRequest(
            "This run is made on a GPU, and there is none here, or the other way round.",
            hint="Join it where it computes.",
        )
    from experiments.learnable import learnt_by_pretrained
    from experiments.progress import Clock
    from experiments.protocols import discover
    from experiments.sweeps import swept

    if _is_undecided(run):
        lab = _lab(out, run, Clock(quiet, of))
        with lab.counting():
            learnt_by_pretrained(lab)
        with lab.clock.running():
            run = run.model_copy(update={"learnt": swept(lab, learnt_by_pretrained)})
    lab = _counted(out, run, Clock(quiet, of))
    lab.clock.say(f"{sum(map(len, lab.clock.expected.values()))} jobs to make together")
    with lab.clock.running():
        swept(lab, discover()[run.protocol].run)


def _loaded(out: Path) -> RunFile:
    """Return a run's file, and compute from now on as it says."""
    run = load(out)
    choose_device(run.device)
    if run.threads is not None:
        from experiments.jobs import compute_with

        compute_with(run.threads)
    return run


def _planned(out: Path, run: RunFile, clock: Clock) -> float:
    """Return about the seconds that a run takes, with all data sets that it has so far."""
    from experiments.learnable import learnt_by_pretrained
    from experiments.planning import estimated

    lab = _counted(out, run, clock)
    if _is_undecided(run):
        with lab.counting():
            learnt_by_pretrained(lab)
        clock.say(
            f"Counted with all {len(run.data_digests)} data sets: those that the base learns "
            "nothing of are left out as the run begins."
        )
    return estimated(lab)


def _is_undecided(run: RunFile) -> bool:
    """Return whether it is still to be found out which data sets are left out."""
    from experiments.protocols import discover

    pooled = discover()[run.protocol].pooled
    return pooled and run.settings.only_learnable and run.learnt is None


def _of_learnable(out: Path, run: RunFile, clock: Clock) -> RunFile:
    """Return the run's file with what is left out of it decided, and write it."""
    if not _is_undecided(run):
        return run
    from experiments.learnable import learnt_by_pretrained
    from experiments.progress import Clock

    lab = _lab(out, run, Clock(clock.console.quiet))
    with lab.counting():
        learnt_by_pretrained(lab)
    with lab.clock.running():
        learnt = learnt_by_pretrained(lab)
    left = [name for name, one in learnt.items() if not one.kept]
    if left:
        clock.say(f"Left out, as the base learns nothing of them: {', '.join(left)}.")
    run = run.model_copy(update={"learnt": learnt})
    _write(out / RUN, run)
    return run


def _counted(out: Path, run: RunFile, clock: Clock) -> Lab:
    """Return the run's lab, whose clock knows what is left to do."""
    from experiments.protocols import discover

    lab = _lab(out, run, clock)
    with lab.counting():
        discover()[run.protocol].run(lab)
    return lab


def _made(out: Path, run: RunFile, clock: Clock) -> None:
    from experiments.protocols import discover

    lab, protocol = _counted(out, run, clock), discover()[run.protocol]
    lab.notebook.records.begin()
    with ExitStack() as stack:
        if run.server is not None and run.model is not None:
            from experiments.repository import Repository

            repository = Repository.of(run.server, run.model, out / SERVED)
            lab.repository = stack.enter_context(closing(repository))
        stack.enter_context(clock.running())
        protocol.run(lab)
    arms = list(dict.fromkeys(place.arm for place in lab.notebook.measured))
    lab.notebook.conclude(protocol.reference, protocol.pairs(arms))


def _usual_jobs(run: RunFile, clock: Clock) -> int:
    from experiments.jobs import threads_for_all, usual

    jobs = 1 if run.server else usual(run.threads or 1)
    if run.threads is not None and (more := threads_for_all(jobs)) > run.threads:
        clock.say(
            f"Some cores are idle: a new run with OMP_NUM_THREADS={more} has threads for all of "
            "them. This one keeps its own, as they decide the last bits of its weights."
        )
    return jobs


def _threads() -> int | None:
    from coldfusion_shared.finetune.precision import device_kind
    from experiments.jobs import chosen_threads

    return chosen_threads() if device_kind() == "cpu" else None


def _is_of_other_code(run: RunFile) -> bool:
    from coldfusion_shared.evaluate.software import libraries
    from experiments.digests import engine

    return engine() not in run.code or libraries() != run.libraries


def _of_now(out: Path, run: RunFile, clock: Clock) -> RunFile:
    """Return the run's file with the code and the libraries that go on with it, and write it."""
    from coldfusion_shared.evaluate.software import libraries
    from experiments.digests import code

    if _is_of_other_code(run):
        clock.say("The code has changed since the run began: what other code made is made anew.")
        run = run.model_copy(update={"learnt": None})
    run = run.model_copy(update={"code": code(), "libraries": libraries()})
    _write(out / RUN, run)
    return run


def pretrain(
    out: Path, preset: str, base: Path, data: Path, given: Mapping[str, Any], device: Device
) -> None:
    """
    Write an encoder that is pretrained on the texts into the folder `out`.

    Args:
        out: it must not be there; what is made is kept in ``.NAME.cache`` beside it meanwhile.
        preset: sizes for a machine.
        base: whose tokenizer it has.
        data: folder of the data sets.
        given: settings that differ from the preset's.
        device: what computes.

    Raises:
        InvalidRequest: settings make no sense, `out` is there, or another process is at it.
    """
    choose_device(device)
    from experiments.pretrain import write_pretrained
    from experiments.progress import Clock

    kept = out.with_name(f".{out.name}.cache")
    run = begin(kept, PRETRAIN, preset, base, data, given, device)
    with held(kept):
        write_pretrained(_lab(kept, run, Clock()), out)
        shutil.rmtree(kept)


def choose_device(device: Device) -> None:
    """
    Let torch see what it is to compute with; called before torch is loaded.

    Raises:
        InvalidRequest: there is no GPU, and one is wanted.
    """
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise InvalidRequest("There is no GPU that torch can use.", hint="Use --device auto.")


def _cache_of(out: Path, run: RunFile) -> Path:
    return out / CACHE if run.cache is None else Path(run.cache)


def _lab(out: Path, run: RunFile, clock: Clock) -> Lab:
    from coldfusion_shared.evaluate.software import libraries
    from coldfusion_shared.finetune.precision import choose_precision, device_kind
    from experiments.cache import Cache
    from experiments.data import Data
    from experiments.digests import engine
    from experiments.lab import Lab, model_in
    from experiments.notebook import Notebook
    from experiments.records import Records

    pretrained = model_in(Path(run.base))
    measuring = run.settings.measuring
    judged = measuring.validation if measuring.split == "validation" else 0
    data = Data(Path(run.data), run.settings.datasets, judged)
    now = (pretrained.digest, data.digests(), _other_digest(run.settings))
    if now != (run.base_digest, run.data_digests, run.other_base_digest):
        raise InvalidRequest(
            "The base or the data are not those that the run began with.",
            hint="Begin a new run in another folder.",
        )
    if run.learnt is not None:
        data.names = [name for name, one in run.learnt.items() if one.kept]
    return Lab(
        protocol=run.protocol,
        settings=run.settings,
        data=data,
        pretrained=pretrained,
        cache=Cache(
            _cache_of(out, run), round(run.settings.cache_gb * GIGABYTE), f"engine/{engine()}"
        ),
        clock=clock,
        notebook=Notebook(run.protocol, Records(out / RECORDS)),
        machine=f"{device_kind()} {choose_precision('auto')} {libraries()}{_more_threads(run)}",
    )


def _more_threads(run: RunFile) -> str:
    """Return what weights depend on beside libraries: more threads make other last bits."""
    return f" threads/{run.threads}" if run.threads is not None and run.threads > 1 else ""


def _with_whole_paths(settings: Settings) -> Settings:
    """Return settings that mean the same to who goes on with the run from another folder."""
    if settings.other_base is None:
        return settings
    return settings.model_copy(update={"other_base": str(Path(settings.other_base).resolve())})


def _other_digest(settings: Settings) -> str | None:
    from coldfusion_shared.evaluate.base_digest import base_digest

    return None if settings.other_base is None else base_digest(Path(settings.other_base))


def _check_same(out: Path, before: RunFile, now: RunFile) -> None:
    # The code may have become another since; what it made is in the cache under its own inputs.
    kept = {"code", "libraries", "device", "preset", "cache", "learnt", "threads"}
    was, new = (one.model_dump(exclude=kept) for one in (before, now))
    different = [name for name in was if was[name] != new[name]]
    if different:
        raise InvalidRequest(
            f"There is another run in {out}: {', '.join(different)} differ.",
            hint="Choose another --out, or go on with that one: python -m experiments resume",
        )


def _write(path: Path, run: RunFile) -> None:
    from experiments.cache import write_text

    text = yaml.safe_dump(run.document(), sort_keys=False, allow_unicode=True)
    write_text(path, "# A run of `python -m experiments`; resume goes on with it.\n" + text)
