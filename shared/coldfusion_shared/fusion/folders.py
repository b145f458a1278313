"""
Fusing model folders into a model folder, without a Repository.

The result is written beside its place under a temporary name and renamed when it is whole. In it,
besides a transformers model: ``fusion.json``, the report; ``master/``, the weights in float32,
where the published ones are coarser; ``optimizer/``, the server optimizer's state. A later fuse
that takes this folder as its base goes on from both.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from pydantic import BaseModel, Field, ValidationError

from coldfusion_shared import __version__
from coldfusion_shared.errors import (
    BadModel,
    IncompatibleWeights,
    InvalidRequest,
    MalformedWeights,
)
from coldfusion_shared.fusion.engine import Onto, fused
from coldfusion_shared.fusion.executor import Executor, threads
from coldfusion_shared.fusion.gram import Gram
from coldfusion_shared.fusion.new_folder import new_folder, partial_folder
from coldfusion_shared.fusion.plan import Plan, Progress, kinds, make_plan
from coldfusion_shared.fusion.report import Report, make_report
from coldfusion_shared.fusion.step import Step
from coldfusion_shared.fusion.updates import FullUpdate, Update
from coldfusion_shared.fusion.views import (
    MASTER,
    WEIGHTS,
    View,
    master_view,
    needs_master,
    state_views,
    weights_view,
)
from coldfusion_shared.schemas.recipes import Recipe
from coldfusion_shared.weights.body import align
from coldfusion_shared.weights.checkpoint import Checkpoint, StoredTensor
from coldfusion_shared.weights.header import ITEM_BYTES
from coldfusion_shared.weights.layout import (
    CONFIG_FILE,
    SIDE_FILES,
    SINGLE_FILE,
    write_index,
)
from coldfusion_shared.weights.tied import FusedTensors, fused_tensors, same_values, together_in
from coldfusion_shared.weights.write import match_body

REPORT_FILE = "fusion.json"
FISHER_FILE = "fisher.safetensors"
OPTIMIZER_FOLDER = "optimizer"
STATE_FILE = "state.json"

TORCH_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class Contribution:
    """
    A finetuned model's folder.

    Attributes:
        name: what reports call it.
        folder: a transformers folder, with whatever head.
        made_from: the base that it was finetuned from; null: the one that is fused onto.
        prior: its weight before the method has looked.
        age: rounds between its base and the one that is fused onto.
    """

    name: str
    folder: Path
    made_from: Path | None = None
    prior: float = 1.0
    age: int = 0


@dataclass(frozen=True)
class Job:
    """
    What is to be fused, and where to.

    Attributes:
        base: folder of the base.
        contributions: in their order.
        recipe: how.
        out: folder that is made; it must not be there, or be empty.
        dtype: of the result's floats, as safetensors names it; null: the base's own.
        heads: whether heads are fused, too; every contribution must have them then.
        origin: folder of the pretrained model, where the recipe pulls towards it.
        compare: whether norms and cosines are wanted in any case.
        score: measures a model folder, for methods that choose by score.
    """

    base: Path
    contributions: Sequence[Contribution]
    recipe: Recipe
    out: Path
    dtype: str | None = None
    heads: bool = False
    origin: Path | None = None
    compare: bool = True
    score: Callable[[Path], float] | None = None


class OptimizerState(BaseModel):
    """``optimizer/state.json``: whose tensors lie beside it."""

    optimizer: str
    steps: Annotated[int, Field(ge=1, le=10**9)]


@dataclass(frozen=True)
class Inputs:
    """A job's folders, opened."""

    base: Checkpoint
    fused: FusedTensors
    onto: Onto
    updates: list[Update]
    changed_integers: list[list[str]]


def fuse_folders(job: Job, count: int = 1, progress: Progress = lambda phase, size: None) -> Report:
    """
    Fuse `job` with `count` threads; return the report, which is also in the new folder.

    Raises:
        BadModel, MalformedWeights: a folder holds no model that can be read.
        IncompatibleWeights: a contribution is of another architecture; it and the tensors are
            named.
        NonFiniteWeights: an update holds NaN or infinity; the contribution is named.
        InvalidRequest: something about the recipe or the output folder does not fit.
        StorageFull: no room on the disk; nothing is left behind.
    """
    check_out(job.out)
    _check_config(job)
    with ExitStack() as stack:
        inputs = open_inputs(job, stack)
        executor = threads(count)
        plan = make_plan(
            inputs.fused.spans,
            inputs.updates,
            job.recipe,
            executor,
            progress=progress,
            score=_scorer(job, inputs, executor),
            with_gram=job.compare,
        )
        with new_folder(job.out.resolve()) as folder:
            gram, step = _write_model(folder, job, inputs, plan, executor, progress)
            report = make_report(
                plan,
                gram,
                step,
                base=job.base.resolve().name,
                software=f"coldfusion {__version__}",
                dtype=job.dtype,
                changed_integers=inputs.changed_integers,
            )
            text = report.model_dump_json(indent=2) + "\n"
            (folder / REPORT_FILE).write_text(text, encoding="utf-8")
    return report


def check_out(out: Path) -> None:
    """Check that a model folder can be made at `out`; raises `InvalidRequest`."""
    hint = "Choose another --out, or remove it first."
    if out.is_symlink() and not out.exists():
        raise InvalidRequest(f"{str(out)!r} is a link to nowhere.", hint=hint)
    if out.exists() and not out.is_dir():
        raise InvalidRequest(f"{str(out)!r} is there already, and no folder.", hint=hint)
    if out.is_dir() and any(out.iterdir()):
        raise InvalidRequest(f"The folder {str(out)!r} is there already and not empty.", hint=hint)
    if out.is_dir() and (out.is_mount() or out.resolve() == Path.cwd()):
        hint = "Choose a folder inside of it."
        raise InvalidRequest(f"{str(out)!r} cannot be replaced by a new folder.", hint=hint)


def open_inputs(job: Job, stack: ExitStack) -> Inputs:
    """Open all folders of `job` until `stack` closes; errors say which one is at fault."""
    names = [contribution.name for contribution in job.contributions]
    if len(set(names)) != len(names):
        raise InvalidRequest("Two contributions have the same name.")
    if not names:
        raise InvalidRequest("There is nothing to fuse: no contribution is given.")
    base = _opened(stack, job.base, "The base")
    opened = [
        _opened(stack, contribution.folder, f"Contribution {contribution.name}")
        for contribution in job.contributions
    ]
    theirs = [_under_names(base, finetuned) for finetuned in opened]
    befores = [_before(stack, job, base, contribution) for contribution in job.contributions]
    # Two tensors that a model has equal were changed alike only if they were equal before, too.
    pairs = zip(befores, job.contributions, strict=True)
    older = [before for before, contribution in pairs if contribution.made_from is not None]
    tensors = fused_tensors(base, map(together_in, [*theirs, *older]), heads=job.heads)
    updates = [
        _update(stack, job, base, finetuned, before, contribution)
        for finetuned, before, contribution in zip(opened, befores, job.contributions, strict=True)
    ]
    changed = [_changed_integers(base, tensors_of) for tensors_of in theirs]
    return Inputs(base, tensors, _onto(stack, job, base, tensors), updates, changed)


def _under_names(base: Checkpoint, finetuned: Checkpoint) -> dict[str, StoredTensor]:
    """Return the tensors of `finetuned` that the base has, too, under the base's names."""
    names = align(base.tensors, finetuned.tensors)
    return {ours: finetuned.tensors[theirs] for ours, theirs in names.items()}


def _opened(stack: ExitStack, folder: Path, who: str) -> Checkpoint:
    with named(who):
        return stack.enter_context(Checkpoint.from_folder(folder))


@contextmanager
def named(who: str) -> Iterator[None]:
    """Say in an error whose file it is about."""
    try:
        yield
    except IncompatibleWeights as error:
        hint = "Only models that were finetuned from this very base, or one like it, can be fused."
        raise IncompatibleWeights(
            f"{who}: {error.message}", hint=hint, tensors=error.tensors
        ) from None
    except (BadModel, MalformedWeights) as error:
        raise type(error)(f"{who}: {error.message}", hint=error.hint) from None
    except OSError as error:
        raise BadModel(f"{who}: {error.strerror or error}.") from None


def _before(
    stack: ExitStack, job: Job, base: Checkpoint, contribution: Contribution
) -> Mapping[str, StoredTensor]:
    """Return the body that a contribution was finetuned from, under the base's names."""
    who, made_from = f"The base of {contribution.name}", base
    if contribution.made_from is not None:
        made_from = _opened(stack, contribution.made_from, who)
    with named(who):
        return match_body(made_from, base, heads=job.heads)


def _update(
    stack: ExitStack,
    job: Job,
    base: Checkpoint,
    finetuned: Checkpoint,
    before: Mapping[str, StoredTensor],
    contribution: Contribution,
) -> Update:
    with named(f"Contribution {contribution.name}"):
        weights = match_body(finetuned, base, heads=job.heads)
    # What it does not have did not change from what it was made from, perhaps an older base.
    own = {
        name: before[name] if tensor is base.tensors[name] else tensor
        for name, tensor in weights.items()
    }
    return Update(
        id=contribution.name,
        reader=FullUpdate(own, before),
        prior=contribution.prior,
        age=contribution.age,
        fisher=_fisher(stack, base, contribution),
    )


def _fisher(
    stack: ExitStack, base: Checkpoint, contribution: Contribution
) -> Mapping[str, StoredTensor] | None:
    file = contribution.folder / FISHER_FILE
    if not file.is_file():
        return None
    with named(f"The Fisher information of {contribution.name}"):
        found = _under_names(base, stack.enter_context(Checkpoint.from_file(file)))
        shapes = {name: tensor.span.shape for name, tensor in found.items()}
        different = [name for name in shapes if shapes[name] != base.tensors[name].span.shape]
        if different or not found:
            raise IncompatibleWeights("It is not that of the base's tensors.", tensors=different)
        return found


def _changed_integers(base: Checkpoint, theirs: Mapping[str, StoredTensor]) -> list[str]:
    """Return the integer tensors of which a contribution has other values than the base."""
    return [
        name
        for name, tensor in theirs.items()
        if not base.tensors[name].span.is_float and not same_values(base.tensors[name], tensor)
    ]


def _onto(stack: ExitStack, job: Job, base: Checkpoint, fused: FusedTensors) -> Onto:
    """Return what the step is added to: the base's master and optimizer state, if it has them."""
    master = base
    if (job.base / MASTER).is_dir():
        master = _opened(stack, job.base / MASTER, "The base's master")
        if _layout(master) != _layout(base):
            raise IncompatibleWeights(
                "The base's master is not that of its weights: names, shapes or files differ.",
                hint=f"Remove {job.base / MASTER} to go on from the weights alone.",
            )
    origin = None
    if job.recipe.pull:
        if job.origin is None:
            raise InvalidRequest(
                "A pull towards the pretrained model needs that model.",
                hint="Give its folder: --origin DIR",
            )
        with named("The pretrained model"):
            origin = match_body(
                _opened(stack, job.origin, "The pretrained model"), base, heads=job.heads
            )
    state, steps = _state(stack, job, fused)
    return Onto(master, origin, state, steps, fused.tied)


def _layout(model: Checkpoint) -> dict[str, list[tuple[str, tuple[int, ...]]]]:
    return {
        file: [(span.name, span.shape) for span in header.tensors]
        for file, header in model.headers.items()
    }


def _state(
    stack: ExitStack, job: Job, fused: FusedTensors
) -> tuple[dict[str, Mapping[str, StoredTensor]], int]:
    """Return the tensors and the steps of the base's optimizer, if it is the one asked for."""
    folder = job.base / OPTIMIZER_FOLDER
    if not (folder / STATE_FILE).is_file():
        return {}, 0
    try:
        before = OptimizerState.model_validate_json((folder / STATE_FILE).read_bytes())
    except ValidationError:
        raise BadModel(f"{folder / STATE_FILE} is not the state of an optimizer.") from None
    if before.optimizer != job.recipe.optimizer:
        return {}, 0
    state: dict[str, Mapping[str, StoredTensor]] = {}
    for name in kinds(job.recipe).optimizer.state:
        state[name] = _opened(stack, folder / name, "The optimizer's state").tensors
        shapes = {key: tensor.span.shape for key, tensor in state[name].items()}
        if shapes != {key: span.shape for key, span in fused.body.items()}:
            raise BadModel(f"The optimizer's state in {folder / name} is not that of the base.")
    return state, before.steps


def _scorer(job: Job, inputs: Inputs, executor: Executor) -> Callable[[Plan], float] | None:
    """Return what measures the model that a plan makes, by making it in a temporary folder."""
    measure = job.score
    if measure is None:
        return None

    def score(plan: Plan) -> float:
        with partial_folder(job.out.resolve()) as folder:
            _write_model(folder, job, inputs, plan, executor, lambda phase, size: None)
            return measure(folder)

    return score


def _write_model(
    folder: Path, job: Job, inputs: Inputs, plan: Plan, executor: Executor, progress: Progress
) -> tuple[Gram | None, Step]:
    """
    Write weights, master, optimizer state and all small files of the fused model.

    Returns:
        The Gram matrix of the updates, if it is known by then, and how far the base moved.
    """
    published = weights_view(inputs.base.spans(), job.dtype)
    views = [published, *state_views(plan.kinds.optimizer.state, inputs.fused.body)]
    if needs_master(published):
        views.append(master_view(inputs.base.spans()))
    with ExitStack() as stack:
        files = {
            (view.name, name): _allocated(
                stack, _folder_of(folder, view) / name, view.size(header.tensors)
            )
            for view in views
            for name, header in inputs.base.headers.items()
            if view.has(header.tensors)
        }
        grams, steps = [plan.gram], list[Step]()
        pieces = fused(
            plan, inputs.onto, views, executor, progress, grams.append, stepped=steps.append
        )
        for piece in pieces:
            files[piece.view, piece.file].write(piece.data)
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
    for view in views:
        _index(_folder_of(folder, view), view, inputs.base)
    _copy_side_files(job, folder)
    if plan.kinds.optimizer.state:
        state = OptimizerState(optimizer=job.recipe.optimizer, steps=inputs.onto.steps + 1)
        text = state.model_dump_json() + "\n"
        (folder / OPTIMIZER_FOLDER / STATE_FILE).write_text(text, encoding="utf-8")
    return grams[-1], steps[-1]


def _folder_of(folder: Path, view: View) -> Path:
    if view.name == WEIGHTS:
        return folder
    return folder / MASTER if view.name == MASTER else folder / OPTIMIZER_FOLDER / view.name


def _allocated(stack: ExitStack, path: Path, size: int) -> BinaryIO:
    """Open a file of which the disk has promised all bytes before the first is computed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = stack.enter_context(path.open("wb"))
    # Not every file system can promise; then a full disk shows later.
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
    return file


def _index(folder: Path, view: View, base: Checkpoint) -> None:
    files = {
        file: [span.name for span in header.tensors if span.name in view.dtypes]
        for file, header in base.headers.items()
        if view.has(header.tensors)
    }
    if list(files) == [SINGLE_FILE]:
        return
    total = sum(
        span.elements * ITEM_BYTES[view.dtypes[name]]
        for name, span in base.spans().items()
        if name in view.dtypes
    )
    write_index(folder, files, total)


def _copy_side_files(job: Job, folder: Path) -> None:
    for name in SIDE_FILES:
        if (job.base / name).is_file():
            shutil.copyfile(job.base / name, folder / name)
    values = _config(job)
    if job.dtype is None or values is None:
        return
    # Libraries load the weights in the dtype that stands here; "dtype" is its newer name.
    for key in {"torch_dtype", "dtype"} & set(values) or {"dtype"}:
        values[key] = TORCH_NAMES[job.dtype]
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    (folder / CONFIG_FILE).write_text(text, encoding="utf-8")


def _check_config(job: Job) -> None:
    """Refuse before the work what could not be written after it."""
    if job.dtype is not None:
        _config(job)


def _config(job: Job) -> dict[str, Any] | None:
    file = job.base / CONFIG_FILE
    if not file.is_file():
        return None
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise BadModel(f"The base's {CONFIG_FILE} is not a JSON object.")
    return values
