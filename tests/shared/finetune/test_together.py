from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.tiny_models import tiny_bert


def test_two_processes_share_a_training_and_one_writes(tmp_path: Path) -> None:
    base = tiny_bert(tmp_path / "base")
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *("-m", "tests.shared.finetune.together", str(base), str(tmp_path)),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    # 64 examples, 8 a step, 4 of them in each process; each step is told once.
    steps = re.findall(r"^step (\d+)$", done.stdout, re.MULTILINE)
    assert steps == [str(step) for step in range(1, 25)]
    results = re.findall(r"^rank (\d): (.+)$", done.stdout, re.MULTILINE)
    assert sorted(rank for rank, _ in results) == ["0", "1"]
    assert len({result for _, result in results}) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "out-0"]
    # A thread of the group that is there when the interpreter ends may abort the process.
    left = re.findall(r"^left by rank \d: (.+)$", done.stdout, re.MULTILINE)
    assert left == ["[]"] * 2
