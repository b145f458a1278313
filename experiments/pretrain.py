"""
An encoder of our own: random weights, then hidden words of the train parts' texts.

The base that is at hand has mostly seen tasks like ours; this one has seen nothing but text.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from coldfusion_shared.data import Split, TextDataset
from coldfusion_shared.finetune import FinetuneSettings, finetune
from coldfusion_shared.fusion.folders import check_out
from coldfusion_shared.fusion.new_folder import new_folder
from coldfusion_shared.weights.layout import CONFIG_FILE, SIDE_FILES
from experiments.cache import MODEL
from experiments.lab import Lab, Model

TASK = "masked-language-modelling"
SEED = 13
# Texts that its progress is told by; nothing is chosen by them.
HELD_BACK = 200
# A config knows these by names of its own.
SHARED = ("vocab_size", "pad_token_id")


def pretrained(lab: Lab, kind: str | None = None) -> Model:
    """
    Return the encoder of the run's settings; of another kind where one is given.

    The tokenizer is that of the run's base.
    """
    chosen = lab.settings.pretraining
    kind = kind or chosen.kind
    texts = _texts(lab)
    inputs = {
        "base": lab.pretrained.digest,
        "kind": kind,
        "pretraining": chosen.model_dump(mode="json"),
        "texts": texts.digest,
        "max_length": lab.settings.learning.max_length,
        "machine": lab.machine,
    }

    def build(folder: Path) -> dict[str, Any]:
        fresh = folder / "fresh"
        fresh_model(lab.pretrained.folder(), fresh, kind, chosen.sizes)
        settings = FinetuneSettings(
            epochs=chosen.epochs, lr=chosen.lr, batch_size=chosen.batch_size, seed=SEED,
            max_length=lab.settings.learning.max_length, early_stopping=False,
        )  # fmt: skip
        result = finetune(fresh, texts, settings, folder / MODEL)
        shutil.rmtree(fresh)
        return {"metric": result.metric, "test": result.test, "texts": len(texts.train)}

    what = f"a {kind} on {len(texts.train)} texts"
    return lab.make_model("pretrain", what, inputs, len(texts.train) * chosen.epochs, build)


def fresh_model(base: Path, out: Path, kind: str, sizes: dict[str, int]) -> None:
    """
    Write a model with random weights, and the base's tokenizer.

    Args:
        base: whose tokenizer it has, and whose config where it is of the same kind.
        out: a new folder.
        kind: type of the model.
        sizes: config values that differ.
    """
    import torch
    from transformers import AutoConfig, AutoModelForMaskedLM

    from coldfusion_shared.quiet import quiet_transformers

    quiet_transformers()
    configs: Any = AutoConfig
    ours = configs.from_pretrained(base, local_files_only=True)
    same = ours.model_type == kind
    kept = ours.to_dict() if same else {name: getattr(ours, name) for name in SHARED}
    kept.pop("model_type", None)
    config = configs.for_model(kind, **{**kept, **sizes})
    models: Any = AutoModelForMaskedLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = models.from_config(config)
    out.mkdir(parents=True)
    for name in SIDE_FILES:
        if name != CONFIG_FILE and (base / name).is_file():
            shutil.copyfile(base / name, out / name)
    model.float().save_pretrained(out)


def _texts(lab: Lab) -> TextDataset:
    """Return the texts of all train parts; of a pair, both."""
    texts: list[str] = []
    for name in lab.data.names:
        train = lab.data.part(name, lab.settings.pretraining.texts, SEED).train
        columns = [column for role in ("text", "text_pair") if (column := train.get(role))]
        texts += [" ".join(row) for row in zip(*columns, strict=True)]
    texts = list(dict.fromkeys(texts))
    held = max(1, min(HELD_BACK, len(texts) // 10))
    parts = (texts[held:], texts[:held], texts[:held])
    train, validation, test = (Split({"text": tuple(part)}) for part in parts)
    return TextDataset("texts", TASK, (), train, validation, test)


def write_pretrained(lab: Lab, out: Path) -> None:
    """
    Write the encoder of the run's settings into the folder `out`.

    Raises:
        InvalidRequest: `out` is there already.
    """
    check_out(out)
    with lab.clock.running(), new_folder(out.resolve()) as folder:
        for entry in pretrained(lab).folder().iterdir():
            shutil.copy2(entry, folder / entry.name)
