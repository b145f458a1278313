"""Files sent by hf_xet alone, each in an upload of its own, as the hub's client has it."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import hf_xet

MODEL, *FILES = sys.argv[1:]
HEADERS = {"authorization": f"Bearer {os.environ['HF_TOKEN']}"}
ADDRESS = f"{os.environ['HF_ENDPOINT']}/api/models/{MODEL}/xet-write-token/None?create_pr=1"


def send(session: Any, file: str) -> str:
    upload = session.new_upload_commit(
        token_refresh_url=ADDRESS,
        token_refresh_headers=HEADERS,
        custom_headers={},
        progress_callback=None,
    )
    with upload as commit:
        handle = commit.start_upload_file(file, sha256=hf_xet.COMPUTE_SHA256)
    return str(handle.result().xet_info.sha256)


def main() -> None:
    session: Any = hf_xet.XetSession()
    sys.stdout.write(json.dumps([send(session, file) for file in FILES]))


main()
