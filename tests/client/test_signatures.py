"""Bases that are not proven to be the server's own go nowhere; what is pulled can be verified."""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from coldfusion_client import trust
from coldfusion_client.api import Api
from coldfusion_client.bases import find_base
from coldfusion_client.client import Client
from coldfusion_client.pull import pull
from coldfusion_client.source import Source
from coldfusion_client.verifying import verify
from coldfusion_shared import errors
from coldfusion_shared.schemas.bases import Base
from coldfusion_shared.signing.heads import TakenBack
from coldfusion_shared.signing.keys import SigningKey
from coldfusion_shared.signing.model_signature import sign_base
from tests.client.helpers import SERVER, Notes, model_files
from tests.client.repository import KEY, MODEL, NOW, Repository, once

OTHER = SigningKey.from_secret(b"somebody else's secret, as it were")
Change = Callable[[Repository], None]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "model"


@pytest.fixture
def met(source: Source) -> Source:
    """A source whose key is known."""
    find_base(source, MODEL, "latest")
    return source


def key_file(tmp_path: Path, key: SigningKey = KEY) -> Path:
    file = tmp_path / "key.pub"
    file.write_bytes(key.public.pem)
    return file


def answering(pattern: str, **answer: Any) -> Change:
    def change(repository: Repository) -> None:
        repository.faults.append(
            lambda request: (
                httpx.Response(200, **answer) if request.url.path.endswith(pattern) else None
            )
        )

    return change


def other_key(repository: Repository) -> None:
    repository.key = OTHER


def signed_by(key: SigningKey, base: Base) -> str:
    return sign_base(base.manifest, key)


def no_signature(repository: Repository) -> None:
    repository.key = None


def signature_of_another_base(repository: Repository) -> None:
    other = repository.newest.manifest.model_copy(update={"version": "v7"})
    answering("/signature", text=sign_base(other, KEY))(repository)


def other_files(repository: Repository) -> None:
    """Another manifest, with a digest that fits, under the old signature."""
    signature = signed_by(KEY, repository.newest)
    (base, _), files = repository.bases[0], model_files(1)
    repository.bases.clear()
    repository.publish(files)
    assert repository.newest.digest != base.digest
    answering("/signature", text=signature)(repository)


def old_head(repository: Repository) -> None:
    request = httpx.Request("GET", f"{SERVER}/v1/models/{MODEL}/head?nonce={'0' * 32}")
    answering("/head", content=repository.handle(request).content)(repository)


REFUSED: dict[str, tuple[Change, type[errors.Untrusted]]] = {
    "another key": (other_key, errors.KeyChanged),
    "no signatures any more": (no_signature, errors.BadSignature),
    "nonsense": (answering("/signature", text="nonsense"), errors.BadSignature),
    "of another base": (signature_of_another_base, errors.BadSignature),
    "of other files": (other_files, errors.BadSignature),
    "an old head": (old_head, errors.BadSignature),
    "a head that is none": (answering("/head", text="{}"), errors.BadSignature),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_the_servers_own_is_refused(
    case: str, met: Source, repository: Repository, out: Path
) -> None:
    change, error = REFUSED[case]
    repository.publish(model_files(2))
    change(repository)
    with pytest.raises(error) as caught:
        pull(met, MODEL, "latest", out)
    assert caught.value.hint
    assert not out.exists()
    assert not repository.seen("GET", "/files/")


def test_a_folder_stays_as_it_is_when_the_next_base_is_refused(
    source: Source, repository: Repository, out: Path
) -> None:
    pull(source, MODEL, "latest", out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    repository.publish(model_files(1))
    other_key(repository)
    with pytest.raises(errors.KeyChanged):
        pull(source, MODEL, "latest", out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_what_is_brought_for_other_ends_is_checked_as_well(
    met: Source, repository: Repository
) -> None:
    repository.publish(model_files(1))
    other_key(repository)
    for version in ("latest", "v1"):
        with pytest.raises(errors.KeyChanged):
            find_base(met, MODEL, version)


def test_the_first_key_is_kept_for_its_owner(source: Source, notes: Notes, out: Path) -> None:
    pull(source, MODEL, "latest", out)
    assert any(KEY.public.id[:16] in said for said in notes.said)
    assert stat.S_IMODE(trust.trust_file().stat().st_mode) == 0o600
    known = trust.known_key(SERVER)
    assert known is not None and known.id == KEY.public.id
    notes.said.clear()
    pull(source, MODEL, "latest", out)
    assert not notes.said


def test_a_given_key_counts_from_the_first_time_on(
    source: Source, repository: Repository, out: Path, tmp_path: Path
) -> None:
    wrong = replace(source, key=key_file(tmp_path, OTHER))
    with pytest.raises(errors.KeyChanged):
        pull(wrong, MODEL, "latest", out)
    assert not repository.seen("GET", "/signing-key")
    assert trust.known_key(SERVER) is None
    assert pull(replace(source, key=key_file(tmp_path)), MODEL, "latest", out).updated
    assert trust.known_key(SERVER) is not None
    assert not pull(source, MODEL, "latest", out).updated
    assert not repository.seen("GET", "/signing-key")


@pytest.mark.parametrize("good", [True, False])
def test_a_given_key_never_replaces_the_one_that_is_known(
    met: Source, repository: Repository, out: Path, tmp_path: Path, good: bool
) -> None:
    given = replace(met, key=key_file(tmp_path, OTHER))
    if good:
        other_key(repository)
        assert pull(given, MODEL, "latest", out).updated
    else:
        with pytest.raises(errors.KeyChanged) as caught:
            pull(given, MODEL, "latest", out)
        assert f"coldfusion-client key --key FILE --server {SERVER}" in (caught.value.hint or "")
    known = trust.known_key(SERVER)
    assert known is not None and known.id == KEY.public.id


def test_the_environment_gives_a_key(
    source: Source, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLDFUSION_KEY", str(key_file(tmp_path, OTHER)))
    with pytest.raises(errors.KeyChanged):
        pull(source, MODEL, "latest", out)


@pytest.mark.parametrize("content", [None, b"", KEY.pem])
def test_a_file_that_holds_no_key_is_said(
    content: bytes | None, source: Source, out: Path, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(errors.BadKey, match=str(file)):
        pull(replace(source, key=file), MODEL, "latest", out)


def test_a_server_from_before_signatures_is_taken_with_a_warning(
    source: Source, repository: Repository, notes: Notes, out: Path, tmp_path: Path
) -> None:
    repository.key = None
    assert pull(source, MODEL, "latest", out).updated
    assert any("signs nothing" in warned for warned in notes.warned)
    assert not (out / "model.sig").exists()
    with pytest.raises(errors.BadSignature):
        pull(replace(source, key=key_file(tmp_path)), MODEL, "latest", out)


def test_a_signature_of_a_key_from_before_is_asked_for_again(
    met: Source, repository: Repository, out: Path, tmp_path: Path
) -> None:
    pull(met, MODEL, "latest", out)
    other_key(repository)
    changed = replace(met, key=key_file(tmp_path, OTHER))
    assert not pull(changed, MODEL, "latest", out).updated
    assert verify(out, key_file(tmp_path, OTHER)).key == OTHER.public.id


def test_python_is_given_a_key_as_well(url: str, out: Path, tmp_path: Path) -> None:
    with Client(url, key=key_file(tmp_path, OTHER)) as client, pytest.raises(errors.KeyChanged):
        client.pull(MODEL, out=out)
    with Client(url, key=str(key_file(tmp_path))) as client:
        assert client.pull(MODEL, out=out) == out
    assert verify(out, None, url).key == KEY.public.id


def test_a_damaged_file_of_keys_is_said(source: Source, out: Path) -> None:
    trust.trust_file().parent.mkdir(parents=True)
    trust.trust_file().write_text("{")
    with pytest.raises(errors.ConfigurationError, match="damaged"):
        pull(source, MODEL, "latest", out)


def test_where_nothing_can_be_kept_it_is_said(
    source: Source, notes: Notes, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COLDFUSION_CONFIG", str(tmp_path / "file" / "config"))
    monkeypatch.setattr(trust, "load_trust", trust.Trust)
    assert pull(source, MODEL, "latest", out).updated
    assert any("COLDFUSION_KEY" in warned for warned in notes.warned)


def test_many_at_once_keep_all_that_they_have_seen(
    connect: Callable[..., Api], source: Source
) -> None:
    servers = [f"http://{number}.test" for number in range(8)]
    threads = [threading.Thread(target=trust.give, args=(one, KEY.public)) for one in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(trust.load_trust().servers) == set(servers)


# History.


def back(repository: Repository, to: int, **said: Any) -> None:
    """Let the head go back to an older base; `said` is how that is told."""
    if said:
        before = repository.newest.version
        values = {"reason": None, "at": NOW, "from_version": before, "to_version": f"v{to}"}
        repository.taken_back.append(TakenBack(**{**values, **said}))
    del repository.bases[to + 1 :]


def test_a_head_that_goes_back_without_a_word_is_refused(
    source: Source, repository: Repository, out: Path
) -> None:
    repository.publish(model_files(1))
    pull(source, MODEL, "latest", out)
    back(repository, 0)
    for _ in range(2):
        with pytest.raises(errors.HistoryChanged, match="v1 and is v0 now") as caught:
            pull(source, MODEL, "latest", out)
        assert "key --forget" in (caught.value.hint or "")
    # Who asks for it by its name gets it: it is the Repository's own.
    assert pull(source, MODEL, "v0", out).version == "v0"
    assert trust.forget(SERVER)
    assert pull(source, MODEL, "latest", out).version == "v0"


def test_an_announced_rollback_is_told_once_and_followed(
    source: Source, repository: Repository, notes: Notes, out: Path
) -> None:
    for shift in (1, 2):
        repository.publish(model_files(shift))
    pull(source, MODEL, "latest", out)
    back(repository, 0, reason="it forgot the grammar")
    assert pull(source, MODEL, "latest", out).version == "v0"
    assert len(notes.warned) == 1 and "it forgot the grammar" in notes.warned[0]
    assert pull(source, MODEL, "latest", out).version == "v0"
    assert len(notes.warned) == 1


def test_an_announcement_is_good_for_what_it_announced_alone(
    source: Source, repository: Repository, out: Path
) -> None:
    for shift in (1, 2, 3):
        repository.publish(model_files(shift))
    pull(source, MODEL, "latest", out)
    back(repository, 0, from_version="v2", to_version="v1")
    with pytest.raises(errors.HistoryChanged):
        pull(source, MODEL, "latest", out)


@pytest.mark.parametrize("version", ["latest", "v1"])
def test_a_base_that_was_replaced_is_refused(
    source: Source, repository: Repository, out: Path, version: str
) -> None:
    repository.publish(model_files(1))
    pull(source, MODEL, "latest", out)
    repository.bases.pop()
    repository.publish(model_files(2))
    with pytest.raises(errors.HistoryChanged, match="v1 was another base before"):
        pull(source, MODEL, version, out)


def test_what_was_seen_once_is_the_same_for_ever(
    source: Source, repository: Repository, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for shift in (1, 2):
        repository.publish(model_files(shift))
    for version in ("v0", "latest", "v1"):
        find_base(source, MODEL, version)
    later = repository.bases[2:]
    del repository.bases[1:]
    repository.publish(model_files(5))
    repository.bases += later
    # Neither is the newest that was seen.
    assert find_base(source, MODEL, "v0").version == "v0"
    with pytest.raises(errors.HistoryChanged, match="v1 was another base before"):
        pull(source, MODEL, "v1", out)
    monkeypatch.setattr(trust, "MOST_VERSIONS", 2)
    repository.publish(model_files(6))
    find_base(source, MODEL, "latest")
    assert list(trust.load_trust().servers[SERVER].digests[MODEL]) == ["v1", "v3"]


def test_a_base_without_a_signature_is_refused_with_what_the_server_says(
    source: Source, repository: Repository, out: Path
) -> None:
    said = {"code": "not_found", "title": "", "type": "", "status": 404, "instance": ""}
    told = {**said, "detail": "It is not signed.", "hint": "coldfusion-server key --sign-again"}
    repository.faults.append(once("GET", "/signature", httpx.Response(404, json=told)))
    with pytest.raises(errors.BadSignature, match="has no signature of demo/") as caught:
        pull(source, MODEL, "v0", out)
    assert caught.value.hint == "coldfusion-server key --sign-again"
    assert not out.exists()


def test_a_newest_base_that_the_head_does_not_name_is_refused(
    met: Source, repository: Repository, out: Path
) -> None:
    other = Repository(model_files(5)).newest
    body = other.model_dump(mode="json")
    repository.faults.append(once("GET", "/bases/v0", httpx.Response(200, json=body)))
    with pytest.raises(errors.BadSignature, match="another base"):
        pull(met, MODEL, "latest", out)


# Folders.


def test_a_pulled_folder_is_verified_without_the_server(
    source: Source, repository: Repository, out: Path
) -> None:
    pulled = pull(source, MODEL, "latest", out)
    repository.requests.clear()
    found = verify(out, None, SERVER)
    assert (found.model, found.version, found.digest) == (MODEL, "v0", pulled.digest)
    assert (found.key, found.files, found.server) == (KEY.public.id, 3, SERVER)
    assert found.as_json()["server"] == SERVER
    assert not repository.requests
    trust.forget(SERVER)
    with pytest.raises(errors.BadKey, match=f"No key of {SERVER} is known"):
        verify(out, None, SERVER)


def test_a_folder_does_not_say_whom_to_believe(
    source: Source, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pull(source, MODEL, "latest", out)
    with pytest.raises(errors.BadKey, match="not your default server") as caught:
        verify(out, None)
    assert "--key" in (caught.value.hint or "") and "--server" in (caught.value.hint or "")
    monkeypatch.setenv("COLDFUSION_SERVER", "http://evil.test")
    trust.give("http://evil.test", OTHER.public)
    with pytest.raises(errors.BadKey, match="not your default server"):
        verify(out, None)
    monkeypatch.setenv("COLDFUSION_SERVER", SERVER)
    assert verify(out, None).server == SERVER
    assert verify(out, key_file(tmp_path)).server is None
    (out / "coldfusion.json").unlink()
    with pytest.raises(errors.BadKey, match="does not say"):
        verify(out, None)


def _remove(folder: Path) -> None:
    (folder / "config.json").unlink()


def _change(folder: Path) -> None:
    raw = bytearray((folder / "model.safetensors").read_bytes())
    raw[-1] ^= 1
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").write_bytes(raw)


def _add(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")


def _other_manifest(folder: Path) -> None:
    said = json.loads((folder / "manifest.json").read_bytes())
    (folder / "manifest.json").write_text(json.dumps({**said, "version": "v9"}))


def _link_a_file(folder: Path) -> None:
    kept = folder.with_name("elsewhere.json")
    (folder / "config.json").rename(kept)
    (folder / "config.json").symlink_to(kept)


def _link_a_folder(folder: Path) -> None:
    other = folder.with_name("other")
    other.mkdir()
    (other / "adapter_config.json").write_text("{}")
    (folder / "adapter").symlink_to(other, target_is_directory=True)


def _no_signature(folder: Path) -> None:
    (folder / "model.sig").unlink()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_remove, "missing: config.json"),
        (_change, "changed: model.safetensors"),
        (_add, "not signed: adapter_config.json"),
        (_other_manifest, "changed: manifest.json"),
        (_link_a_file, "links: config.json"),
        (_link_a_folder, "links: adapter"),
        (_no_signature, "has no model.sig"),
    ],
)
def test_a_folder_that_is_not_what_was_signed_is_refused(
    source: Source, out: Path, change: Callable[[Path], None], said: str
) -> None:
    pull(source, MODEL, "latest", out)
    change(out)
    with pytest.raises(errors.BadSignature, match=said):
        verify(out, None, SERVER)


def test_a_folder_is_verified_by_a_key_that_is_given(
    source: Source, out: Path, tmp_path: Path
) -> None:
    pull(source, MODEL, "latest", out)
    (out / "coldfusion.json").unlink()
    (out / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    assert verify(out, key_file(tmp_path)).version == "v0"
    with pytest.raises(errors.KeyChanged):
        verify(out, key_file(tmp_path, OTHER))


def test_a_folder_that_was_pulled_before_gets_its_proof(source: Source, out: Path) -> None:
    pull(source, MODEL, "latest", out)
    for name in ("model.sig", "manifest.json"):
        (out / name).unlink()
    assert not pull(source, MODEL, "latest", out).updated
    assert verify(out, None, SERVER).version == "v0"


def test_the_proof_follows_the_base(source: Source, repository: Repository, out: Path) -> None:
    pull(source, MODEL, "latest", out)
    repository.publish({**model_files(1), "vocab.txt": b"a"})
    pull(source, MODEL, "latest", out)
    assert verify(out, None, SERVER).version == "v1"
    repository.key = None
    trust.forget(SERVER)
    repository.publish(model_files(2))
    pull(source, MODEL, "latest", out)
    assert not (out / "model.sig").exists()
