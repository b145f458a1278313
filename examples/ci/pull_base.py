"""
Pull a model's base in CI, and tell the pipeline which one it is.

    python ci/pull_base.py acme/encoder base                      if it is newer than what base/ has
    python ci/pull_base.py acme/encoder base --event event.json   exactly the one that is published

The event is a `base.published` as a webhook brings it: what GitHub keeps in $GITHUB_EVENT_PATH,
what GitLab keeps in $TRIGGER_PAYLOAD, or the event itself. Whoever may start the pipeline may have
written it, so it only says which base to look at: the client checks signature and digests of what
it pulls, and the base's digest has to be the one that the event names.

Written to $GITHUB_OUTPUT, or without it to pull.env: newer=true or newer=false, version=v7,
digest=... Ends as coldfusion-client does (docs/reference/client.md), but with 0 where there is
nothing newer; 13: the base in the folder was taken back, and the newest one is older, which
ACCEPT_ROLLBACK=true takes all the same; 2: the event is not one of this model.

Needs coldfusion-client, and nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

NOTHING_NEWER = 3
NO_SUCH_EVENT = 2
OTHER_BASE = 12


def main() -> int:
    """Pull what is asked for; return the exit status."""
    options = _parser().parse_args()
    words, wanted = ["--if-newer"], None
    if options.event is not None:
        try:
            version, wanted = announced(options.event, options.model)
        except (ValueError, LookupError, TypeError, OSError) as error:
            sys.stderr.write(f"no base.published of {options.model}: {error!r}\n")
            return NO_SUCH_EVENT
        words = ["--version", version]
    elif os.environ.get("ACCEPT_ROLLBACK") == "true":
        words = []
    status, pulled = pull(options.model, options.out, words)
    if pulled is None or status not in (0, NOTHING_NEWER):
        return status
    if wanted not in (None, pulled["digest"]):
        sys.stderr.write(f"{pulled['version']} has another digest than the event says\n")
        return OTHER_BASE
    tell(newer="false" if status else "true", version=pulled["version"], digest=pulled["digest"])
    return 0


def announced(file: Path, model: str) -> tuple[str, str]:
    """
    Return version and digest of the base that an event tells of.

    Raises:
        ValueError, LookupError, TypeError: it is no such event, or one of another model.
    """
    body: Any = json.loads(file.read_text("utf-8"))
    if not isinstance(body, dict):
        raise ValueError("it is no JSON object")
    event = body.get("client_payload", body)
    if event["type"] != "base.published" or event["model"] != model:
        raise ValueError(f"it is a {event['type']!r} of {event['model']!r}")
    version, digest = event["data"]["version"], event["data"]["digest"]
    if not re.fullmatch(r"v[0-9]{1,9}", version) or not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise ValueError("version or digest has another form")
    return version, digest


def pull(model: str, out: Path, words: list[str]) -> tuple[int, Any]:
    """Return the client's exit status, and what it says of the base in the folder, if anything."""
    command = ["coldfusion-client", "pull", model, "--out", str(out), "--no-progress", "--json"]
    ended = subprocess.run([*command, *words], stdout=subprocess.PIPE, text=True, encoding="utf-8")
    return ended.returncode, json.loads(ended.stdout) if ended.stdout.strip() else None


def tell(**outputs: str) -> None:
    """Give the outputs to the steps that follow."""
    github = os.environ.get("GITHUB_OUTPUT")
    with Path(github or "pull.env").open("a" if github else "w", encoding="utf-8") as file:
        file.writelines(f"{name}={value}\n" for name, value in outputs.items())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Pull a model's base in CI.")
    parser.add_argument("model", help="owner/name")
    parser.add_argument("out", type=Path, help="the folder of the base")
    parser.add_argument("--event", type=Path, help="of type base.published, as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
