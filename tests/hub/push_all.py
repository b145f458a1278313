"""All that a hub client pushes, with whichever version of it is found first."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import CommitOperationAdd, HfApi

MODEL = sys.argv[1]
FOLDERS = [Path(name) for name in sys.argv[2:]]
WEIGHTS = "model.safetensors"


def failure(call: Callable[[], Any]) -> str:
    try:
        call()
    except Exception as error:
        cause = error.__cause__ or error
        return f"{type(error).__name__}: {error} {cause}"
    return "none"


def main() -> None:
    api: Any = HfApi()
    first, second, pickled = FOLDERS
    tokenizer = first / "tokenizer.json"
    api.create_repo(MODEL, exist_ok=True)
    folder = api.upload_folder(
        repo_id=MODEL, folder_path=first, create_pr=True, commit_message="A folder"
    )
    base = api.model_info(MODEL, revision="v0").sha
    commit = api.create_commit(
        MODEL,
        [CommitOperationAdd(WEIGHTS, str(second / WEIGHTS))],
        commit_message="A file",
        commit_description="Made by hand",
        create_pr=True,
        parent_commit=base,
    )
    failures = {
        "main": failure(
            lambda: api.upload_file(
                path_or_fileobj=second / WEIGHTS, path_in_repo=WEIGHTS, repo_id=MODEL
            )
        ),
        "pickle": failure(
            lambda: api.upload_folder(repo_id=MODEL, folder_path=pickled, create_pr=True)
        ),
        "no weights": failure(
            lambda: api.upload_file(
                path_or_fileobj=tokenizer,
                path_in_repo=tokenizer.name,
                repo_id=MODEL,
                create_pr=True,
            )
        ),
        "again": failure(
            lambda: api.upload_file(
                path_or_fileobj=(first / WEIGHTS).read_bytes(),
                path_in_repo=WEIGHTS,
                repo_id=MODEL,
                create_pr=True,
            )
        ),
        "new": failure(lambda: api.create_repo("demo/other")),
        "token": failure(
            lambda: HfApi(token="cf_" + "0" * 16 + "_" + "a" * 43).upload_file(
                path_or_fileobj=second / WEIGHTS,
                path_in_repo=WEIGHTS,
                repo_id=MODEL,
                create_pr=True,
            )
        ),
        "comment": failure(lambda: api.comment_discussion(MODEL, folder.pr_num, "Please")),
        "merge": failure(lambda: api.merge_pull_request(MODEL, folder.pr_num)),
    }
    details = api.get_discussion_details(MODEL, commit.pr_num)
    found = {
        "version": huggingface_hub.__version__,
        "revisions": [folder.pr_revision, commit.pr_revision],
        "urls": [folder.pr_url, commit.pr_url],
        "listed": [[item.num, item.title] for item in api.get_repo_discussions(MODEL)],
        "status": details.status,
        "said": [event.content for event in details.events],
        "diff": details.diff,
        "failures": failures,
    }
    sys.stdout.write(json.dumps(found))


main()
