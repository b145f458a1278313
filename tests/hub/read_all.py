"""All that a hub client reads of a model, with whichever version of it is found first."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import HfApi, HfFileSystem, ModelCard, hf_hub_download, snapshot_download

MODEL, PRIVATE = sys.argv[1:3]
COMMIT = HfApi().model_info(MODEL).sha
WEIGHTS, NAME = "model.safetensors", "config.json"


def digests(folder: str) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in Path(folder).iterdir()
        if path.is_file()
    }


def failure(call: Callable[[], Any]) -> str:
    try:
        call()
    except Exception as error:
        return type(error).__name__
    return "none"


def main() -> None:
    api: Any = HfApi()
    files: Any = HfFileSystem()
    info = api.model_info(MODEL, files_metadata=True)
    refs = api.list_repo_refs(MODEL, include_pull_requests=True)
    by_main = snapshot_download(MODEL)
    card = ModelCard.load(MODEL)
    found = {
        "version": huggingface_hub.__version__,
        "commit": COMMIT,
        "siblings": {item.rfilename: item.lfs.sha256 for item in info.siblings},
        "card": info.card_data.to_dict(),
        "tree": {item.path: item.lfs.sha256 for item in api.list_repo_tree(MODEL, recursive=True)},
        "branches": {item.name: item.target_commit for item in refs.branches},
        "tags": {item.name: item.target_commit for item in refs.tags},
        "pulls": refs.pull_requests,
        "commits": [item.commit_id for item in api.list_repo_commits(MODEL)],
        "titles": [item.title for item in api.list_repo_commits(MODEL)],
        "paths": [item.path for item in api.get_paths_info(MODEL, [WEIGHTS, "no", NAME])],
        "exists": [api.file_exists(MODEL, NAME), api.file_exists(MODEL, "pytorch.bin")],
        "revisions": [api.revision_exists(MODEL, name) for name in ("v0", "v1", "v99", COMMIT)],
        "private": [api.model_info(PRIVATE).private, Path(hf_hub_download(PRIVATE, NAME)).name],
        "who": api.whoami()["name"],
        "may_read": api.auth_check(MODEL),
        "listed": [item.id for item in api.list_models(search="TIN", author="demo")],
        "by_main": digests(by_main),
        "by_tag": digests(snapshot_download(MODEL, revision="v0")),
        "by_commit": digests(snapshot_download(MODEL, revision=COMMIT)),
        "offline": digests(snapshot_download(MODEL, local_files_only=True)),
        "snapshot": Path(by_main).name,
        "blobs": sorted(path.name for path in (Path(by_main).parents[1] / "blobs").iterdir()),
        "tensors": sorted(api.get_safetensors_metadata(MODEL).weight_map),
        "folder": sorted(Path(item).name for item in files.ls(MODEL, detail=False)),
        "piece": files.read_bytes(f"{MODEL}@v0/{WEIGHTS}", start=8, end=40).hex(),
        "base_model": card.data.base_model,
        "license": card.data.license,
        "failures": {
            "model": failure(lambda: api.model_info("demo/nothing")),
            "word": failure(lambda: api.model_info("bert-base-uncased")),
            "private": failure(lambda: HfApi(token=False).model_info(PRIVATE)),
            "revision": failure(lambda: hf_hub_download(MODEL, NAME, revision="v99")),
            "file": failure(lambda: hf_hub_download(MODEL, "pytorch_model.bin")),
            "folder": failure(lambda: list(api.list_repo_tree(MODEL, "additional_chat_templates"))),
            "token": failure(lambda: HfApi(token="hf_wrong").model_info(MODEL)),
            "branch": failure(lambda: api.create_branch(MODEL, branch="mine")),
        },
    }
    sys.stdout.write(json.dumps(found))


main()
