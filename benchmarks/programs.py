"""The programs that are measured: the limit, ours, and what others merge with."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.measure import python
from benchmarks.models import WEIGHTS
from coldfusion_shared.weights.checkpoint import Checkpoint

LIMIT = "limit: read all, write one"
START = "start-up of ours: Python and all imports"
IMPORTS = (
    "import benchmarks.fuse_once; from coldfusion_shared.fusion import methods, optimizers; "
    "methods.discover(); optimizers.discover()"
)

MERGEKIT, FLWR = "mergekit 0.1.5", "flwr 1.41.0"
PACKAGES = {MERGEKIT: "mergekit", FLWR: "flwr"}
PEER_IMPORTS = {MERGEKIT: "mergekit.scripts.run_yaml", FLWR: "flwr.server.strategy.aggregate"}
MERGEKIT_METHODS = ("linear", "model_stock", "ties")
FLWR_RULES = ("mean", "median", "trimmed_mean", "krum")
# As ours has it by default.
DENSITY = 0.2

# Values of the largest tensor by which two programs' results are compared.
SAMPLE = 2**20

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Program:
    """
    A whole process to measure.

    Attributes:
        command: what is run; null where it is not installed.
        output: the file or folder that it must write; null where it writes none of interest.
        is_peer: whether it is somebody else's, and may take minutes.
    """

    command: Sequence[str] | None
    output: Path | None = None
    is_peer: bool = False


@dataclass(frozen=True)
class Inputs:
    """What all programs fuse, and a folder for what they write."""

    base: Path
    models: Sequence[Path]
    folder: Path


def limit(inputs: Inputs) -> Program:
    """Return `cat` of all models and a synced copy of one of them."""
    files = [str(model / WEIGHTS) for model in inputs.models]
    out = inputs.folder / "copy"
    copy = f"cat {' '.join(files)} > /dev/null && dd if={files[0]} of={out} bs=1M conv=fsync"
    return Program(["sh", "-c", copy])


def start_up() -> Program:
    """Return a process that imports what a fuse imports, and nothing else."""
    return Program([sys.executable, "-c", IMPORTS])


def ours(inputs: Inputs, method: str, threads: int, *, gram: bool = False) -> Program:
    """Return a fuse of ours by `method` with its default parameters."""
    out = inputs.folder / f"ours-{method}.safetensors"
    recipe = json.dumps({"method": method})
    fuse = [recipe, "gram" if gram else "plain", str(threads), str(out), str(inputs.base)]
    return Program(python("benchmarks.fuse_once", *fuse, *map(str, inputs.models)), out)


def peers(inputs: Inputs, interpreter: str) -> dict[str, Program]:
    """Return what others merge with, run by `interpreter`, by their names in the table."""
    found: dict[str, Program] = {}
    for name, imported in PEER_IMPORTS.items():
        found[f"{name}: start-up"] = Program(
            [interpreter, "-c", f"import {imported}"], is_peer=True
        )
    found |= {
        f"{MERGEKIT}: {name}": _mergekit(inputs, interpreter, name) for name in MERGEKIT_METHODS
    }
    found |= {f"{FLWR}: {name}": _flwr(inputs, interpreter, name) for name in FLWR_RULES}
    missing = [name for name, package in PACKAGES.items() if not _has(interpreter, package)]
    return {
        name: Program(None, is_peer=True) if name.split(":")[0] in missing else program
        for name, program in found.items()
    }


def sample(program: Program, base: Path) -> Floats | None:
    """
    Return some values that `program` has written; null where it writes none of interest.

    Raises:
        RuntimeError: the output has not the base's tensors. mergekit, for one, leaves out without
            an error what it does not find.
    """
    if program.output is None:
        return None
    opened = Checkpoint.from_folder if program.output.is_dir() else Checkpoint.from_file
    with opened(program.output) as written, Checkpoint.from_folder(base) as wanted:
        ours = {name: (span.dtype, span.shape) for name, span in wanted.spans().items()}
        theirs = {name: (span.dtype, span.shape) for name, span in written.spans().items()}
        if ours != theirs:
            raise RuntimeError(f"{program.output} has not the tensors of {base}.")
        return largest_tensor(written)


def largest_tensor(checkpoint: Checkpoint) -> Floats:
    """Return the first values of the largest tensor, (SAMPLE,) or fewer."""
    largest = max(checkpoint.tensors.values(), key=lambda tensor: tensor.span.elements)
    values: Floats = largest.values(0, min(SAMPLE, largest.span.elements))
    return values


def _mergekit(inputs: Inputs, interpreter: str, method: str) -> Program:
    """Return mergekit's own program on a configuration; the tokenizer and the card are left out."""
    parameters: dict[str, float] = {"weight": 1.0}
    if method == "ties":
        parameters["density"] = DENSITY
    config = {
        "merge_method": method,
        "models": [{"model": str(m.resolve()), "parameters": parameters} for m in inputs.models],
        "dtype": "float32",
    }
    if method != "linear":
        config["base_model"] = str(inputs.base.resolve())
    # JSON is YAML.
    file = inputs.folder / f"mergekit-{method}.yml"
    file.write_text(json.dumps(config))
    out = inputs.folder / f"mergekit-{method}"
    options = ["--no-copy-tokenizer", "--no-write-model-card", "--quiet"]
    command = python(PEER_IMPORTS[MERGEKIT], str(file), str(out), *options, interpreter=interpreter)
    return Program(command, out, is_peer=True)


def _flwr(inputs: Inputs, interpreter: str, rule: str) -> Program:
    out = inputs.folder / f"flwr-{rule}.safetensors"
    arguments = [rule, str(out), *map(str, inputs.models)]
    command = python("benchmarks.flwr_once", *arguments, interpreter=interpreter)
    return Program(command, out, is_peer=True)


def _has(interpreter: str, package: str) -> bool:
    look = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"
    return subprocess.run([interpreter, "-c", look], check=False).returncode == 0
