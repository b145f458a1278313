"""A pretrained model to begin with: a folder, or a repository of the model hub."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from coldfusion_shared.errors import BadModel
from coldfusion_shared.weights.layout import INDEX_FILE, SIDE_FILES


@contextmanager
def fetched(source: str) -> Iterator[tuple[Path, str]]:
    """
    Yield the folder of the model and the text that says where it came from.

    Args:
        source: a folder, or a model id of the hub, which is downloaded to a temporary folder.

    Raises:
        BadModel: there is no such folder, and the hub does not have it either.
    """
    folder = Path(source)
    with suppress(RuntimeError):  # Nobody has that name: then it is no folder either.
        folder = folder.expanduser()
    if folder.is_dir():
        # The folder's name alone: where it lies on the operator's disk is nobody's business.
        yield folder, f"folder {folder.resolve().name}"
        return
    with tempfile.TemporaryDirectory(prefix="coldfusion-") as temporary:
        yield _download(source, temporary), source


def _download(source: str, temporary: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    # Its card names the licence.
    patterns = [*SIDE_FILES, INDEX_FILE, "*.safetensors", "README.md"]
    try:
        return Path(snapshot_download(source, local_dir=temporary, allow_patterns=patterns))
    except HFValidationError:
        raise BadModel(
            f"{source!r} is neither a folder nor a model id.",
            hint="Give a transformers folder, or an id like owner/name.",
        ) from None
    except (HfHubHTTPError, OSError, RuntimeError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise BadModel(
            f"There is no folder {source!r}, and the hub did not give a model of that id: "
            f"{lines[0]}",
            hint="Check the name and the network, or download the model and give its folder.",
        ) from None
