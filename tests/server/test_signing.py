"""What the Repository signs, and what its real client makes of it."""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update

from coldfusion_client.api import Api
from coldfusion_client.cache import Cache
from coldfusion_client.connection import Connection
from coldfusion_client.patience import Patience
from coldfusion_client.pull import pull
from coldfusion_client.reporting import Silent
from coldfusion_client.source import Source
from coldfusion_client.verifying import verify
from coldfusion_server.db.tables import BaseRow, ModelRow
from coldfusion_server.services import head_moves, signing
from coldfusion_server.services.closing import close_due
from coldfusion_server.services.context import open_context
from coldfusion_server.services.health import examine
from coldfusion_server.services.lookup import manifest_of
from coldfusion_server.settings import Settings
from coldfusion_shared.errors import (
    BadKey,
    BadSignature,
    ConfigurationError,
    HistoryChanged,
    KeyChanged,
    ModelNotFound,
)
from coldfusion_shared.schemas.bases import Manifest
from coldfusion_shared.signing.heads import check_head
from coldfusion_shared.signing.keys import PublicKey, SigningKey
from coldfusion_shared.signing.model_signature import check_base, sign_base
from tests.dashboard.measured import grow
from tests.server.backends import both_databases
from tests.server.repository import MODEL, SIGNING_KEY, Repository, body_file

BASES = f"/v1/models/{MODEL}/bases"
NONCE = "0123456789abcdef" * 2


def base_of(repo: Repository, version: str) -> tuple[Manifest, str]:
    manifest = Manifest.model_validate(repo.get(f"{BASES}/{version}")["manifest"])
    answer = repo.client().get(f"{BASES}/{version}/signature")
    assert answer.headers["content-type"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
    return manifest, answer.text


def unsign(repo: Repository) -> None:
    with repo.ctx.database.write() as session:
        session.execute(update(BaseRow).values(signature=None))


def stored(repo: Repository) -> list[str | None]:
    with repo.ctx.database.read() as session:
        return list(session.scalars(select(BaseRow.signature).order_by(BaseRow.number)))


def test_every_base_is_signed_when_it_is_published(repo: Repository) -> None:
    for name, seed in (("ann", 1), ("bob", 2)):
        repo.contributor(name).contribute(body_file(seed))
    while repo.work() or close_due(repo.ctx):
        pass
    assert None not in stored(repo)
    for version in ("v0", "v1"):
        manifest, signature = base_of(repo, version)
        check_base(signature, manifest, SIGNING_KEY.public)
        assert base_of(repo, version)[1] == signature
    assert base_of(repo, "latest") == base_of(repo, "v1")


def test_a_base_without_a_signature_is_never_signed_by_itself(repo: Repository) -> None:
    unsign(repo)
    repo.work()
    answer = repo.client().get(f"{BASES}/v0/signature")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert "not signed" in answer.json()["detail"] and "--sign-again" in answer.json()["hint"]
    assert stored(repo) == [None]


def test_all_can_be_signed_again_with_the_key_of_who_asks(repo: Repository) -> None:
    grow(repo, 1)
    before = stored(repo)
    assert signing.sign_again(repo.ctx) == signing.SignedAgain(2, [])
    assert None not in stored(repo) and not set(before) & set(stored(repo))
    unsign(repo)
    # A worker that still holds the key from before has no part in it.
    other = replace(repo.ctx, signing_key=SigningKey.new())
    assert signing.sign_again(other).unsigned == [f"{MODEL} v0", f"{MODEL} v1"]
    repo.work()
    for version in ("v0", "v1"):
        manifest, signature = base_of(repo, version)
        check_base(signature, manifest, other.signing_key.public)


def changed_manifest(row: BaseRow) -> None:
    row.manifest = row.manifest.replace('"software":"', '"software":"x')


def changed_base(row: BaseRow) -> None:
    """Another manifest, with a digest that fits, and no signature: the next base tells."""
    changed_manifest(row)
    row.digest, row.signature = manifest_of(row).digest(), None


def junk(row: BaseRow) -> None:
    row.signature = "junk"


def of_another_base(row: BaseRow) -> None:
    row.signature = sign_base(
        manifest_of(row).model_copy(update={"version": "v9"}), SigningKey.new()
    )


def wrong(row: BaseRow) -> None:
    """It names the key in force and is not of it."""
    forged = json.loads(sign_base(manifest_of(row), SigningKey.new()))
    forged["verificationMaterial"]["publicKey"]["hint"] = SIGNING_KEY.public.id
    row.signature = json.dumps(forged)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (changed_manifest, "its digest"),
        (changed_base, "made from"),
        (junk, "cannot be read"),
        (of_another_base, "another base"),
        (wrong, "is wrong"),
    ],
)
def test_what_was_changed_is_not_signed_again(
    repo: Repository, change: Callable[[BaseRow], None], said: str
) -> None:
    grow(repo, 1)
    with repo.ctx.database.write() as session:
        change(session.scalars(select(BaseRow).where(BaseRow.number == 0)).one())
    before = stored(repo)
    with pytest.raises(BadSignature, match=said) as caught:
        signing.sign_again(repo.ctx)
    assert "backup" in (caught.value.hint or "") and stored(repo) == before
    # The doctor says the same, and does not take it for another key.
    (look,) = [one for one in examine(repo.ctx) if one.subject == "key"]
    assert not look.ok and said in look.message


def test_everybody_gets_the_public_key_and_nobody_the_other(repo: Repository) -> None:
    pem = repo.client().get("/v1/signing-key").content
    assert PublicKey.from_pem(pem, "there").id == SIGNING_KEY.public.id
    assert b"PRIVATE" not in pem


def test_the_head_is_signed_for_who_asks(repo: Repository) -> None:
    answer = repo.client().get(f"/v1/models/{MODEL}/head", params={"nonce": NONCE})
    assert answer.headers["cache-control"] == "no-store"
    head = check_head(answer.text, MODEL, NONCE, SIGNING_KEY.public)
    assert (head.version, head.digest) == ("v0", repo.get(f"{BASES}/v0")["digest"])
    assert head.taken_back == []
    for nonce in ("x", "0" * 65, '"'):
        refused = repo.client().get(f"/v1/models/{MODEL}/head", params={"nonce": nonce})
        assert refused.status_code == 422


def test_a_head_tells_every_time_that_it_was_taken_back(repo: Repository) -> None:
    grow(repo, 1)
    move_back(repo, "harm")
    signed = signing.signed_head(repo.ctx, MODEL, NONCE, None)
    (told,) = check_head(signed, MODEL, NONCE, SIGNING_KEY.public).taken_back
    assert (told.from_version, told.to_version, told.reason) == ("v1", "v0", "harm")


def test_what_is_private_is_not_signed_for_visitors(repo: Repository) -> None:
    repo.model("demo/private", public=False)
    for path in ("head", "bases/v0/signature"):
        answer = repo.client().get(f"/v1/models/demo/private/{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "model_not_found")
    with pytest.raises(ModelNotFound):
        signing.signed_head(repo.ctx, "demo/private", "", None)


# The key.


def test_the_key_is_made_once_and_kept_to_its_owner(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    ids: list[str] = []

    def start() -> None:
        context = open_context(settings)
        ids.append(context.signing_key.public.id)
        context.close()

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    start()
    assert len(ids) == 9 and len(set(ids)) == 1
    file = tmp_path / "data" / "signing-key.pem"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list((tmp_path / "data").glob("signing-key*")) == [file]


@pytest.mark.parametrize("content", ["", "text", SIGNING_KEY.public.pem.decode()])
def test_a_broken_key_is_said_and_never_made_anew(content: str, tmp_path: Path) -> None:
    file = tmp_path / "signing-key.pem"
    file.write_text(content)
    with pytest.raises(BadKey, match=str(file)) as caught:
        open_context(Settings(data_dir=tmp_path))
    assert "copy" in (caught.value.hint or "")
    assert file.read_text() == content


def test_a_key_of_ones_own_is_used_and_has_to_be_there(tmp_path: Path) -> None:
    file = tmp_path / "own.pem"
    settings = Settings(data_dir=tmp_path / "data", signing_key_file=file)
    with pytest.raises(BadKey, match="own.pem"):
        open_context(settings)
    file.write_bytes(SIGNING_KEY.pem)
    context = open_context(settings)
    assert context.signing_key.public.id == SIGNING_KEY.public.id
    context.close()
    assert not (tmp_path / "data" / "signing-key.pem").exists()


def test_processes_without_a_folder_in_common_need_a_key_in_common(tmp_path: Path) -> None:
    elsewhere: dict[str, Any] = {
        "data_dir": tmp_path / "data", "database_url": f"sqlite:///{tmp_path / 'd'}",
        "secret": "s" * 16, "s3_bucket": "bucket",
    }  # fmt: skip
    with pytest.raises(ConfigurationError, match="no key") as caught:
        open_context(Settings(**elsewhere))
    assert "signing_secret" in (caught.value.hint or "")
    assert not (tmp_path / "data").exists()
    text = {"signing_secret": "a signing secret of the tests' own"}
    context = open_context(Settings(data_dir=tmp_path / "data", **text))  # type: ignore[arg-type]
    assert context.signing_key.public.id == SIGNING_KEY.public.id
    context.close()
    both = Settings(data_dir=tmp_path, signing_key_file=tmp_path / "k", **text)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="both"):
        open_context(both)


def test_the_doctor_notices_a_key_that_was_lost(repo: Repository) -> None:
    (look,) = [one for one in examine(repo.ctx) if one.subject == "key"]
    assert look.ok and SIGNING_KEY.public.id in look.message
    object.__setattr__(repo.ctx, "signing_key", SigningKey.new())
    (look,) = [one for one in examine(repo.ctx) if one.subject == "key"]
    assert not look.ok and "--sign-again" in (look.hint or "")
    grow(repo, 1)  # The newest base is signed with the new key, and the others still are not.
    (look,) = [one for one in examine(repo.ctx) if one.subject == "key"]
    assert (
        not look.ok and f"1 bases are signed with another one, such as {MODEL} v0" in look.message
    )
    signing.sign_again(repo.ctx)
    assert all(one.ok for one in examine(repo.ctx) if one.subject == "key")
    unsign(repo)
    (look,) = [one for one in examine(repo.ctx) if one.subject == "key"]
    assert not look.ok and "not signed" in look.message


def test_a_key_that_is_lost_is_not_replaced_without_a_word(repo: Repository) -> None:
    file = repo.folder / "signing-key.pem"
    file.unlink(missing_ok=True)
    with pytest.raises(BadKey, match="is gone") as caught:
        open_context(repo.settings)
    assert "copy" in (caught.value.hint or "") and "--sign-again" in (caught.value.hint or "")
    assert not file.exists()
    unsign(repo)
    open_context(repo.settings).close()
    assert file.exists()


# The real client.


class Told(Silent):
    """A reporter that remembers warnings."""

    def __init__(self) -> None:
        self.warned: list[str] = []

    def warn(self, text: str) -> None:
        self.warned.append(text)


@pytest.fixture
def source(repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Source]:
    """The client, with the real application in place of the network."""
    monkeypatch.setenv("COLDFUSION_CONFIG", str(tmp_path / "config"))
    client = repo.client()

    def handle(request: httpx.Request) -> httpx.Response:
        answer = client.request(
            request.method, str(request.url), headers=dict(request.headers), follow_redirects=False
        )
        return httpx.Response(
            answer.status_code, headers=dict(answer.headers), content=answer.content
        )

    transport = httpx.MockTransport(handle)
    connection = Connection(str(client.base_url), transport=transport, patience=Patience(tries=1))
    yield Source(Api(connection), Cache(tmp_path / "cache"), Told())
    connection.close()


def move_back(repo: Repository, reason: str | None) -> None:
    """Move the head to v0; without a reason, as by a backup that was brought back."""
    with repo.ctx.database.write() as session:
        model = session.scalars(select(ModelRow)).one()
        if reason is None:
            model.current = 0
        else:
            now, kind = repo.ctx.now(), head_moves.ROLLBACK
            head_moves.move_head(session, now, model, 0, kind, reason=reason)


def test_the_client_verifies_what_the_server_signs(
    repo: Repository, source: Source, tmp_path: Path
) -> None:
    grow(repo, 1)
    pulled = pull(source, MODEL, "latest", tmp_path / "out")
    assert pulled.version == "v1"
    found = verify(tmp_path / "out", None, source.api.server)
    assert (found.version, found.digest) == ("v1", pulled.digest)
    assert found.key == SIGNING_KEY.public.id


@both_databases
def test_a_manifest_that_was_changed_in_the_database_is_refused(
    repo: Repository, source: Source, tmp_path: Path
) -> None:
    with repo.ctx.database.write() as session:
        row = session.scalars(select(BaseRow)).one()
        forged = manifest_of(row).model_copy(update={"software": "something else"})
        row.manifest, row.digest = forged.canonical().decode(), forged.digest()
    with pytest.raises(BadSignature, match="another base"):
        pull(source, MODEL, "v0", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_signatures_that_were_exchanged_are_refused(
    repo: Repository, source: Source, tmp_path: Path
) -> None:
    grow(repo, 1)
    with repo.ctx.database.write() as session:
        first, second = session.scalars(select(BaseRow).order_by(BaseRow.number))
        first.signature, second.signature = second.signature, first.signature
    for version in ("v0", "v1"):
        with pytest.raises(BadSignature, match="another base"):
            pull(source, MODEL, version, tmp_path / "out")


def test_a_server_with_another_key_is_refused(
    repo: Repository, source: Source, tmp_path: Path
) -> None:
    pull(source, MODEL, "latest", tmp_path / "out")
    other = SigningKey.new()
    object.__setattr__(repo.ctx, "signing_key", other)
    with pytest.raises(KeyChanged):
        pull(source, MODEL, "latest", tmp_path / "out")


def test_a_head_that_went_back_is_followed_only_if_that_is_told(
    repo: Repository, source: Source, tmp_path: Path
) -> None:
    grow(repo, 1)
    out = tmp_path / "out"
    pull(source, MODEL, "latest", out)
    move_back(repo, None)
    with pytest.raises(HistoryChanged):
        pull(source, MODEL, "latest", out)
    assert verify(out, None, source.api.server).version == "v1"
    with repo.ctx.database.write() as session:
        session.scalars(select(ModelRow)).one().current = 1
    move_back(repo, "it forgot the grammar")
    assert pull(source, MODEL, "latest", out).version == "v0"
    assert isinstance(source.reporter, Told)
    assert ["it forgot the grammar" in warned for warned in source.reporter.warned] == [True]


def test_a_base_whose_manifest_names_the_proof_is_never_signed(repo: Repository) -> None:
    with repo.ctx.database.read() as session:
        manifest = manifest_of(session.scalars(select(BaseRow)).one())
    file = manifest.files[0].model_copy(update={"path": "model.sig"})
    with pytest.raises(BadSignature):
        signing.sign(repo.ctx, manifest.model_copy(update={"files": [file]}))


def test_a_signature_is_json_that_anybody_can_read(repo: Repository) -> None:
    _, signature = base_of(repo, "v0")
    bundle = json.loads(signature)
    assert set(bundle) == {"mediaType", "verificationMaterial", "dsseEnvelope"}
