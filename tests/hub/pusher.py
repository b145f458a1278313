"""Somebody who pushes, by the requests that the hub's clients make, without one of them."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpx

from tests.server.repository import MODEL, Repository, body_file

WEIGHTS = "model.safetensors"
TRANSFERS = ("basic", "multipart")
Json = Any
Files = Mapping[str, bytes]


def digest(raw: bytes) -> str:
    """Return the SHA-256 of some bytes."""
    return hashlib.sha256(raw).hexdigest()


def weights(seed: int = 1) -> dict[str, bytes]:
    """Return the files of a contribution of full weights."""
    return {WEIGHTS: body_file(seed)}


def lines(*entries: tuple[str, Mapping[str, Any]]) -> bytes:
    """Return the body of a commit."""
    return b"".join(
        json.dumps({"key": key, "value": value}).encode() + b"\n" for key, value in entries
    )


class Pusher:
    """One contributor with one token."""

    def __init__(self, repo: Repository, name: str = "ann", model: str = MODEL) -> None:
        self.repo, self.name, self.model = repo, name, model
        self.client = repo.client(repo.token(name))

    def post(self, path: str, **how: Any) -> Any:
        """Post something and return the response."""
        return self.client.post(path, **how)

    def preupload(
        self, files: Files, rev: str = "main", query: str = "?create_pr=1", **sizes: int
    ) -> Any:
        """Ask what becomes of files."""
        asked = [
            {
                "path": path,
                "sample": base64.b64encode(raw[:512]).decode(),
                "size": len(raw),
            }
            for path, raw in files.items()
        ]
        address = f"/api/models/{self.model}/preupload/{quote(rev, safe='')}{query}"
        return self.post(address, json={"files": asked})

    def batch(self, *raws: bytes, transfers: Sequence[str] = TRANSFERS) -> Any:
        """Ask where bytes go, and return the response."""
        objects = [{"oid": digest(raw), "size": len(raw)} for raw in raws]
        body = {"operation": "upload", "transfers": list(transfers), "objects": objects}
        return self.post(f"/{self.model}.git/info/lfs/objects/batch", json=body)

    def send(self, *raws: bytes, transfers: Sequence[str] = TRANSFERS) -> None:
        """Send bytes as git-lfs has it."""
        answer = self.batch(*raws, transfers=transfers)
        assert answer.status_code == 200, answer.text
        for raw, told in zip(raws, answer.json()["objects"], strict=True):
            assert "error" not in told, told
            if "actions" in told:
                self.put(told, raw)

    def put(self, told: Json, raw: bytes) -> None:
        """Put the parts of one object, complete and verify it; without a token where that goes."""
        upload, anonymous = told["actions"]["upload"], self.repo.client()
        header = upload.get("header", {})
        size = int(header.get("chunk_size", max(1, len(raw))))
        hrefs = {int(key): url for key, url in header.items() if key.isdigit()} or {
            1: upload["href"]
        }
        etags = {}
        for number, url in hrefs.items():
            ours = url.startswith(str(anonymous.base_url))
            piece = raw[(number - 1) * size : number * size]
            answer = (anonymous.put if ours else httpx.put)(url, content=piece)
            assert answer.status_code == 200, answer.text
            etags[number] = answer.headers["etag"]
        if header:
            listed = [{"partNumber": number, "etag": etags[number]} for number in sorted(etags)]
            done = anonymous.post(upload["href"], json={"oid": told["oid"], "parts": listed})
            assert done.status_code == 200, done.text
        sent = {"oid": told["oid"], "size": told["size"]}
        assert self.post(told["actions"]["verify"]["href"], json=sent).status_code == 200

    def commit(
        self,
        files: Files,
        rev: str = "main",
        query: str = "?create_pr=1",
        inline: Files | None = None,
        **header: Any,
    ) -> Any:
        """Commit files whose bytes were sent, and return the response."""
        entries = [("header", {"summary": "Mine", "description": "", **header})]
        entries += [
            ("lfsFile", {"path": path, "algo": "sha256", "oid": digest(raw), "size": len(raw)})
            for path, raw in files.items()
        ]
        entries += [
            (
                "file",
                {"path": path, "content": base64.b64encode(raw).decode(), "encoding": "base64"},
            )
            for path, raw in (inline or {}).items()
        ]
        address = f"/api/models/{self.model}/commit/{quote(rev, safe='')}{query}"
        return self.post(address, content=lines(*entries))

    def push(self, files: Files, **how: Any) -> int:
        """Send and commit; return the pull request's number."""
        self.send(*files.values())
        answer = self.commit(files, **how)
        assert answer.status_code == 200, answer.text
        return int(answer.json()["pullRequestUrl"].rsplit("/", 1)[1])

    def details(self, number: int) -> Json:
        """Return a pull request as the hub's clients see it."""
        return self.repo.get(f"/api/models/{self.model}/discussions/{number}?diff=1")

    def contributions(self) -> list[Json]:
        """Return the contributor's contributions, newest first."""
        path = f"/v1/models/{self.model}/contributions?contributor={self.name}"
        return list(self.client.get(path).json()["items"])

    def verdict(self, number: int) -> str:
        """Return what the Repository says of a pull request."""
        return str(self.details(number)["events"][-1]["data"]["latest"]["raw"])
