"""One evaluation by linear probing, by us or by a straightforward script; prints a line of JSON."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coldfusion_shared.data import Split
    from coldfusion_shared.evaluate.suite import LoadedSuite

    Scores = dict[str, list[float]]

STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)
BATCH = 32


def ours(base: Path, loaded: LoadedSuite, seeds: int, kept: Path) -> Scores:
    """Evaluate as `coldfusion-client evaluate` does."""
    from coldfusion_shared.evaluate.runner import evaluate_base

    found = evaluate_base(base, loaded, "frozen", range(seeds), kept)
    return {result.name: list(result.by_seed) for result in found.results}


def exact(base: Path, loaded: LoadedSuite, seeds: int, kept: Path) -> Scores:
    """Evaluate with float32 as the script does, whatever this machine is quicker with."""
    from coldfusion_shared.evaluate.protocols import frozen, protocol_named

    protocol_named("frozen")
    setattr(frozen, "quick_precision", lambda: "fp32")  # noqa: B010
    return ours(base, loaded, seeds, kept)


def plain(base: Path, loaded: LoadedSuite, seeds: int, kept: Path) -> Scores:
    """
    Evaluate as one would in a notebook: the texts in their order, in batches of one size.

    Validation and test are the same for all seeds, so their features are computed once, too.
    """
    import numpy as np
    import torch
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler
    from transformers import AutoModel, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(base)
    model: Any = AutoModel.from_pretrained(base).eval()

    def features(split: Split) -> Any:
        rows = []
        pairs = split.get("text_pair")
        for start in range(0, len(split), BATCH):
            stop = start + BATCH
            batch = tokenizer(
                list(split["text"][start:stop]),
                list(pairs[start:stop]) if pairs else None,
                truncation=True,
                max_length=loaded.suite.max_length,
                padding=True,
                return_tensors="pt",
            )
            with torch.no_grad():
                hidden = model(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1).float()
            rows.append(((hidden * mask).sum(1) / mask.sum(1)).numpy())
        return np.concatenate(rows)

    scores: Scores = {}
    for data in loaded.datasets:
        held_back = [features(data.dataset.validation), features(data.dataset.test)]
        y_validation = np.array(data.dataset.validation["label"])
        y_test = np.array(data.dataset.test["label"])
        scores[data.entry.name] = []
        for seed in range(seeds):
            train = data.draw(seed).train
            x_train = features(train)
            scaler = StandardScaler().fit(x_train)
            x_validation, x_test = map(scaler.transform, held_back)
            fitted = [
                LogisticRegression(C=strength, max_iter=2000).fit(
                    scaler.transform(x_train), train["label"]
                )
                for strength in STRENGTHS
            ]
            best = max(fitted, key=lambda one: one.score(x_validation, y_validation))
            scores[data.entry.name].append(100 * float(best.score(x_test, y_test)))
    return scores


PROGRAMS = {"ours": ours, "exact": exact, "plain": plain}


def main() -> None:
    """Run the program `argv[1]` with the base, the suite, the seeds and the folder that follow."""
    from coldfusion_shared.evaluate.suite import read_suite

    program, base, suite, seeds, kept = sys.argv[1:]
    begun = time.monotonic()
    loaded = read_suite(Path(suite))
    read = time.monotonic()
    scores = PROGRAMS[program](Path(base), loaded, int(seeds), Path(kept))
    measured = {"scores": scores, "reading": read - begun, "measuring": time.monotonic() - read}
    sys.stdout.write(json.dumps(measured) + "\n")


if __name__ == "__main__":
    main()
