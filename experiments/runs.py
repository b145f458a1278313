"""A run: its folder, begun or gone on with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from coldfusion_shared.errors import InvalidRequest
from experiments.presets import settings_of
from experiments.settings import Device, RunFile

if TYPE_CHECKING:
    from experiments.lab import Lab

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
    settings = settings_of(preset, protocol, given)
    run = RunFile(
        protocol=protocol,
        preset=preset,
        base=str(base.resolve()),
        base_digest=base_digest(base),
        data=str(data.resolve()),
        data_digests=Data(data, settings.datasets).digests(),
        code=code(),
        libraries=libraries(),
        device=device,
        server=server,
        model=model,
        settings=settings,
    )
    if (out / RUN).exists():
        _check_same(out, load(out), run)
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
    out: Path, cache: Path | None = None, *, quiet: bool = False, plan: bool = False
) -> float | None:
    """
    Do what is left of the run in the folder `out`; what is in the cache is done.

    Args:
        out: the run's folder.
        cache: shared by several runs; null: one of its own.
        quiet: tell nothing.
        plan: only measure a few jobs, and estimate the rest.

    Returns:
        About the seconds that all takes, of a plan; else null.

    Raises:
        InvalidRequest: base or data are not those that the run began with.
    """
    run = load(out)
    choose_device(run.device)
    from experiments.planning import estimated
    from experiments.protocols import discover

    lab = _lab(out, run, cache or out / CACHE, quiet)
    protocol = discover()[run.protocol]
    lab.planning = True
    protocol.run(lab)
    lab.planning, lab.rates = False, {}
    if plan:
        lab.cache.folder.mkdir(parents=True, exist_ok=True)
        return estimated(lab)
    with ExitStack() as stack:
        if run.server is not None and run.model is not None:
            from experiments.repository import Repository

            repository = Repository.of(run.server, run.model, out / SERVED)
            lab.repository = stack.enter_context(closing(repository))
        stack.enter_context(lab.clock.running())
        protocol.run(lab)
    arms = list(dict.fromkeys(place.arm for place in lab.notebook.measured))
    lab.notebook.conclude(protocol.reference, protocol.pairs(arms))
    return None


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
        InvalidRequest: settings make no sense, or `out` is there.
    """
    choose_device(device)
    import shutil

    from experiments.pretrain import write_pretrained

    kept = out.with_name(f".{out.name}.cache")
    run = begin(kept, PRETRAIN, preset, base, data, given, device)
    write_pretrained(_lab(kept, run, kept / CACHE, quiet=False), out)
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


def _lab(out: Path, run: RunFile, cache: Path, quiet: bool) -> Lab:
    from coldfusion_shared.evaluate.software import libraries
    from coldfusion_shared.finetune.precision import choose_precision, device_kind
    from experiments.cache import Cache
    from experiments.data import Data
    from experiments.lab import Lab, model_in
    from experiments.notebook import Notebook
    from experiments.progress import Clock
    from experiments.records import Records

    pretrained = model_in(Path(run.base))
    data = Data(Path(run.data), run.settings.datasets)
    if pretrained.digest != run.base_digest or data.digests() != run.data_digests:
        raise InvalidRequest(
            "The base or the data are not those that the run began with.",
            hint="Begin a new run in another folder.",
        )
    return Lab(
        protocol=run.protocol,
        settings=run.settings,
        data=data,
        pretrained=pretrained,
        cache=Cache(cache, round(run.settings.cache_gb * GIGABYTE)),
        clock=Clock(quiet),
        notebook=Notebook(run.protocol, Records(out / RECORDS)),
        machine=f"{device_kind()} {choose_precision('auto')} {libraries()}",
    )


def _check_same(out: Path, before: RunFile, now: RunFile) -> None:
    # The code may have become another since; what it made is in the cache under its own inputs.
    kept = {"code", "libraries", "device", "preset"}
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
