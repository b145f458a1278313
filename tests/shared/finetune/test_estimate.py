from __future__ import annotations

from pathlib import Path

from coldfusion_shared.finetune import FinetuneSettings
from coldfusion_shared.finetune.estimate import MEASURED_STEPS, estimate
from tests.tiny_models import tiny_bert
from tests.toy_data import toy_dataset


def test_a_few_real_steps_tell_the_rest_and_leave_nothing(tmp_path: Path) -> None:
    base = tiny_bert(tmp_path / "base")
    before = {path.name: path.read_bytes() for path in base.iterdir()}
    settings = FinetuneSettings(epochs=3, batch_size=4, gradient_accumulation=2, max_length=24)
    told = estimate(base, toy_dataset(train=160), settings)
    assert (told.metric, told.steps, told.step_examples) == ("accuracy", 60, 8)
    assert told.steps > MEASURED_STEPS
    # The process alone, with torch in it, has hundreds of megabytes.
    assert 50e6 < told.memory < 50e9
    assert told.seconds > told.steps * told.step_seconds > 0
    assert {path.name: path.read_bytes() for path in base.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["base"]
