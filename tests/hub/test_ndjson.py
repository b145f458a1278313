"""The parser of commits: whatever comes is a commit or is refused, and never anything else."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldfusion_server.hub.ndjson import MAX_LINES, MAX_SUMMARY, UNTITLED, read_commit
from coldfusion_shared.errors import InvalidRequest
from coldfusion_shared.letters import clean, harmless
from tests.hub.pusher import lines

SHA = "a" * 64
paths = st.text(min_size=1, max_size=30).filter(lambda text: text.isprintable())
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=200)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
keys = st.sampled_from(["header", "file", "lfsFile", "deletedFile", "deletedFolder", "other"])


@given(
    texts, texts, st.dictionaries(paths, st.integers(0, 2**50), max_size=5), st.binary(max_size=99)
)
def test_what_clients_write_is_read_as_they_mean_it(
    summary: str, description: str, sent: dict[str, int], content: bytes
) -> None:
    body = lines(
        ("header", {"summary": summary, "description": description, "parentCommit": "f" * 40}),
        *(
            ("lfsFile", {"path": path, "algo": "sha256", "oid": SHA, "size": size})
            for path, size in sent.items()
        ),
        (
            "file",
            {"path": "/", "content": base64.b64encode(content).decode(), "encoding": "base64"},
        ),
        ("deletedFile", {"path": "old"}),
    )
    if "/" in sent:
        return
    read = read_commit(body)
    assert read.header.summary == (clean(summary) or UNTITLED)
    assert read.header.description == harmless(description)
    assert read.header.parent == "f" * 40
    assert {file.path: file.size for file in read.sent} == sent
    assert read.inline == {"/": content} and read.removed == ("old",)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    try:
        read_commit(body)
    except InvalidRequest as error:
        error.message.encode()


@given(st.lists(st.tuples(keys, anything), max_size=4), st.integers(0, 400))
def test_any_json_is_read_or_refused(entries: list[tuple[str, Any]], cut: int) -> None:
    raw = b"\n".join(json.dumps({"key": k, "value": v}).encode() for k, v in entries)
    for body in (raw, raw[:cut], raw + b"\n" + raw):
        try:
            read = read_commit(body)
        except InvalidRequest as error:
            error.message.encode()
        else:
            read.header.summary.encode()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"null", "Line 1"),
        (b"[]\n", "Line 1"),
        (b'{"key":"header"}', "Line 1"),
        (b'{"key":"header","value":{"summary":3}}', "summary"),
        (b"\n" + lines(("tag", {})), "Line 1 of the commit is of an unknown kind"),
        (lines(("lfsFile", {"path": "a", "oid": "A" * 64, "size": 1})), "oid"),
        (lines(("lfsFile", {"path": "a", "oid": SHA, "size": -1})), "size"),
        (lines(("lfsFile", {"path": "a", "oid": SHA, "size": 1e99})), "size"),
        (lines(("lfsFile", {"path": "a", "oid": SHA, "algo": "md5"})), "algo"),
        (lines(("lfsFile", {"path": "", "oid": SHA})), "path"),
        (lines(("lfsFile", {"path": "a" * 1001, "oid": SHA})), "path"),
        (lines(*[("lfsFile", {"path": "a", "oid": SHA, "size": 1})] * 2), "Line 2"),
        (lines(("file", {"path": "a", "content": "#", "encoding": "base64"})), "no base64"),
        (lines(("file", {"path": "a", "content": "", "encoding": "rot13"})), "encoding"),
        (b'{"key":"header","value":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "Line 1"),
        (b'{"key":"header","value":{"summary":' + b"9" * 5000 + b"}}", "Line 1"),
        (b"1\n" * (MAX_LINES + 1), "are the most"),
    ],
)
def test_what_is_no_commit_is_named(body: bytes, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        read_commit(body)


def test_what_is_said_is_cut_to_what_is_kept() -> None:
    read = read_commit(lines(("header", {"summary": "a\0" * 999, "description": "\ud800"})))
    assert read.header.summary == "a" * MAX_SUMMARY
    assert read.header.description == ""
