"""A run's folder: the finetuned model, and hidden in it the journal and what is under way."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from coldfusion_client.disk import write_atomically, writing
from coldfusion_client.journal import Journal, Submission, run_key
from coldfusion_client.lock import locked
from coldfusion_shared.errors import AlreadyContributed, BaseOutdated, Conflict, InvalidRequest
from coldfusion_shared.schemas.contributions import Contribution

HIDDEN = ".coldfusion"
RUNS_FOLDER = "coldfusion-runs"


class Run:
    """A folder with a journal."""

    def __init__(self, folder: Path, journal: Journal) -> None:
        """Look at `folder`, whose journal reads `journal`; nothing is written yet."""
        self.folder, self.journal = folder, journal
        self.staging = folder / HIDDEN / "model"

    def outbox(self, onto: str) -> Path:
        """Return the folder where the files for the base `onto` are written to be sent."""
        return self.folder / HIDDEN / f"onto-{onto}"

    def save(self) -> None:
        """Write the journal."""
        _hidden(self.folder)
        content = self.journal.model_dump_json(indent=2).encode()
        write_atomically(self.folder / HIDDEN / "run.json", content)

    def note(self, contribution: Contribution) -> None:
        """Write down how the run's contribution stands."""
        submission = self.journal.submission(contribution.base)
        if submission is not None:
            submission.contribution, submission.state = contribution.id, contribution.state
            self.save()

    def forget(self, submission: Submission) -> None:
        """Go on as if `submission` had never been asked for."""
        self.journal.submissions.remove(submission)
        self.tidy()
        self.save()

    def begin_training(self) -> Path:
        """Return a folder to finetune into that does not exist yet; a killed run's is removed."""
        for left in (self.folder / HIDDEN).glob("*model*"):
            shutil.rmtree(left)
        return self.staging

    def take_model(self) -> None:
        """Move the finetuned model into the folder; goes on where it was interrupted."""
        if not self.staging.is_dir():
            return
        for item in sorted(self.staging.iterdir()):
            target = self.folder / item.name
            if target.is_dir():
                shutil.rmtree(target)
            item.replace(target)
        self.staging.rmdir()

    def tidy(self) -> None:
        """Remove what was only needed to send the weights."""
        for outbox in (self.folder / HIDDEN).glob("onto-*"):
            shutil.rmtree(outbox, ignore_errors=True)


@contextmanager
def working_on(run: Run) -> Iterator[Run]:
    """
    Hold the run for this process alone.

    Raises:
        Conflict: another process works on it.
    """
    _hidden(run.folder)
    try:
        with locked(run.folder / HIDDEN / "lock", wait=False):
            # Read again: the process that held it before may just have finished.
            known = read_journal(run.folder)
            if known is not None and known.task == run.journal.task:
                run.journal = known if known.base == run.journal.base else run.journal
            yield run
    except BlockingIOError:
        raise Conflict(
            f"Another coldfusion-client works in {run.folder} at this moment.",
            hint="Wait until it is done, or name another folder with --output.",
        ) from None


def choose_run(wanted: Journal, output: Path | None, *, onto_latest: bool) -> Run:
    """
    Return the run to work on: one that is not done yet, else the one that `wanted` describes.

    Args:
        wanted: a new run from the newest base.
        output: the run's folder; null: one below `RUNS_FOLDER`, by the run's own name.
        onto_latest: whether an older run that was never taken may be contributed now.

    Raises:
        InvalidRequest: `output` holds something else.
        BaseOutdated: `output` holds a finished training on an older base.
    """
    runs = _runs_of(wanted, [output] if output else _folders(wanted.model))
    undecided = [run for run in runs if run.journal.undecided]
    if undecided:
        return undecided[0]
    untold = [run for run in runs if run.journal.trained and not run.journal.taken]
    if onto_latest and untold:
        return untold[0]
    current = [run for run in runs if _belongs_to(run.journal, wanted.base)]
    if current:
        return current[0]
    if output is not None:
        _check_free(output, wanted)
    return Run(output.absolute() if output else _default_folder(wanted), wanted)


def known_task(names: Sequence[str], model: str, output: Path | None) -> str:
    """Return the first of a task's `names` that a run here has, else the first of all."""
    journals = [read_journal(folder) for folder in ([output] if output else _folders(model))]
    known = {journal.task for journal in journals if journal is not None}
    return next((name for name in names if name in known), names[0])


def older_training(wanted: Journal) -> Run | None:
    """Return a finished training of the same task on an older base that was never contributed."""
    for run in _runs_of(wanted, _folders(wanted.model)):
        if run.journal.base != wanted.base and run.journal.trained and not run.journal.submissions:
            return run
    return None


def _belongs_to(journal: Journal, base: str) -> bool:
    return journal.base == base or journal.submission(base) is not None


def _runs_of(wanted: Journal, folders: list[Path]) -> list[Run]:
    journals = [(folder.absolute(), read_journal(folder)) for folder in folders]
    runs = [Run(folder, journal) for folder, journal in journals if journal is not None]
    same = [run for run in runs if run.journal.task == wanted.task]
    return sorted(same, key=lambda run: int(run.journal.base[1:]), reverse=True)


def _check_free(output: Path, wanted: Journal) -> None:
    if not output.exists():
        return
    journal = read_journal(output)
    if journal is None:
        # A run that was killed before its first word has a hidden folder and no journal.
        if output.is_dir() and {path.name for path in output.iterdir()} <= {HIDDEN}:
            return
        what = "is not empty and holds no run of coldfusion-client"
    elif journal.trained is None:
        return  # begun and never finished: there is nothing to lose
    elif journal.task != wanted.task:
        what = "holds the run of another model, data set or other settings"
    elif journal.taken is None:
        raise BaseOutdated(
            f"{output} holds a finished training on {journal.base}, and {wanted.base} is the "
            "newest base.",
            hint=f"Add --onto latest to contribute it without training again, or train on "
            f"{wanted.base} in another folder: --output DIR",
        )
    else:
        raise contributed(output, journal)
    raise InvalidRequest(
        f"{output} {what}; nothing in it was touched.", hint="Name another one: --output DIR"
    )


def contributed(folder: Path, journal: Journal) -> AlreadyContributed:
    """Return the error that says that the run in `folder` has been contributed."""
    name = journal.taken.contribution if journal.taken else None
    return AlreadyContributed(
        f"The model in {folder} was finetuned from {journal.base} and contributed, as {name}.",
        hint="Nothing is left to do for it. To train again on the newest base, name another "
        "folder: --output DIR",
    )


def _folders(model: str) -> list[Path]:
    parent = Path(RUNS_FOLDER, model.replace("/", "--"))
    return sorted(parent.iterdir()) if parent.is_dir() else []


def _default_folder(wanted: Journal) -> Path:
    dataset = re.sub(r"[^A-Za-z0-9._]+", "-", wanted.dataset).strip("-.")[:40] or "data"
    key = run_key(wanted.task, wanted.base)[:8]
    parent = Path(RUNS_FOLDER, wanted.model.replace("/", "--"))
    return (parent / f"{wanted.base}-{dataset}-{key}").absolute()


def _hidden(folder: Path) -> None:
    with writing(folder):
        (folder / HIDDEN).mkdir(parents=True, exist_ok=True)


def read_journal(folder: Path) -> Journal | None:
    """Return the journal of the run in `folder`; null if there is none."""
    try:
        return Journal.model_validate_json((folder / HIDDEN / "run.json").read_bytes())
    except (OSError, ValidationError):
        return None
