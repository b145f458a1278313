"""An already finetuned model to the Repository."""

from __future__ import annotations

from pathlib import Path

from coldfusion_client.bases import base_folder, find_base
from coldfusion_client.connection import USER_AGENT
from coldfusion_client.forms import FULL, LORA, Form, check_form, choose_encodings
from coldfusion_client.moves import onto_newest
from coldfusion_client.packing import check_adapter, is_adapter, pack
from coldfusion_client.record import read_record
from coldfusion_client.runs import contributed, read_journal
from coldfusion_client.sizes import body_bytes
from coldfusion_client.source import Source
from coldfusion_client.speeds import upload_speed
from coldfusion_client.submission import await_verdict, declaration, send
from coldfusion_shared.errors import InvalidRequest
from coldfusion_shared.schemas.bases import Base
from coldfusion_shared.schemas.contributions import Contribution, Work
from coldfusion_shared.weights.layout import weight_files


def push(
    source: Source,
    model: str,
    folder: Path,
    base: str | None,
    *,
    onto_latest: bool,
    wait: bool,
    work: Work | None = None,
    encoding: str = FULL,
) -> Contribution:
    """
    Contribute the body of the transformers model, or the LoRA adapter, in `folder`.

    Args:
        source: the server and the cache.
        model: the model to contribute to.
        folder: what `save_pretrained` wrote, a model's or peft's.
        base: the base's version that it was finetuned from; null: what the folder itself says.
        onto_latest: put the update onto the newest base, where that is another one.
        wait: wait for the verdict.
        work: what may be said of the work in public; null: nothing.
        encoding: the form of the update; `AUTO`: as small as the connection asks for. An adapter
            travels as it is.

    Raises:
        BadModel, IncompatibleWeights: the folder does not hold what can be contributed.
        AlreadyContributed: `contribute` has sent the model of this folder already.
        BaseOutdated: there is a newer base, and `onto_latest` is false.
        ContributionRejected: it was screened and rejected.
    """
    source.api.whoami()
    journal = read_journal(folder)
    # Put onto another base it would be another file, and go into a second round.
    if journal is not None and journal.model == model and journal.taken:
        raise contributed(folder, journal)
    made_from = find_base(source, model, base or _recorded(folder, model))

    form = _form(source, folder, made_from, encoding)

    def once(onto: Base) -> Contribution:
        return _push(source, folder, made_from, onto, form, work or Work())

    contribution = onto_newest(source, made_from, once, onto_latest=onto_latest)
    return await_verdict(source.api, contribution) if wait else contribution


def _push(
    source: Source, folder: Path, made_from: Base, onto: Base, form: Form, work: Work
) -> Contribution:
    # Not in the folder itself, which is the person's own and may be read-only.
    with source.cache.scratch() as scratch:
        package = pack(source, folder, made_from, onto, form, scratch)
        said = work.model_copy(update={"client": USER_AGENT})
        declared = declaration(onto.version, package, said)
        return send(onto.model, declared, lambda: package.files, source)


def _form(source: Source, folder: Path, made_from: Base, encoding: str) -> Form:
    policy = source.api.model(made_from.model).policy
    adapter = is_adapter(folder)
    check_form(encoding, policy, adapter=adapter)
    # Before a base is brought for nothing.
    if adapter:
        check_adapter(folder)
        return Form([LORA], adapter=folder, screening=policy.screening)
    weight_files(folder)
    size = body_bytes(base_folder(source, made_from))
    speed = upload_speed(source.cache.root, source.api.server)
    chosen = choose_encodings(encoding, policy, size, speed)
    return Form(chosen, screening=policy.screening)


def _recorded(folder: Path, model: str) -> str:
    record = read_record(folder)
    if record is not None and record.manifest.model == model:
        return record.manifest.version
    raise InvalidRequest(
        f"{folder} does not say which base of {model} it was finetuned from.",
        hint="Add it, such as --base v3, or base='v3' in Python.",
    )
