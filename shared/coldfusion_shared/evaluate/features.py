"""Features of texts: the mean of a frozen body's last hidden states."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coldfusion_shared.finetune.batches import scoring_batch
from coldfusion_shared.finetune.failures import out_of_memory
from coldfusion_shared.tasks.labelled import cut
from coldfusion_shared.tasks.pretrained import load_model, load_tokenizer, longest_input
from coldfusion_shared.tasks.tokenized import tokenized

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from coldfusion_shared.data.dataset import Split


class Encoder:
    """A frozen model and its tokenizer, loaded once for all splits and data sets."""

    def __init__(self, folder: Path, max_length: int) -> None:
        """
        Load the transformers folder `folder`; longer texts are cut to `max_length` tokens.

        Raises:
            BadModel: it is none, or lacks tensors.
        """
        from coldfusion_shared.finetune.precision import device_kind

        self.device = device_kind()
        self.tokenizer = load_tokenizer(folder)
        model = load_model("AutoModel", folder)
        # What an encoder-decoder makes of a text is in its encoder; its decoder needs another one.
        encoder = model.get_encoder() if model.config.is_encoder_decoder else model
        self.model = encoder.to(self.device).eval()
        self.max_length = longest_input(self.tokenizer, self.model, max_length)

    def features(
        self, split: Split, progress: Callable[[int], None] = lambda _: None
    ) -> npt.NDArray[np.float32]:
        """
        Return the features of a split, (n, hidden), float32, in its order.

        Args:
            split: the texts, or pairs of texts.
            progress: called with the number of examples of each batch.
        """
        import numpy as np

        texts = [split["text"], split.get("text_pair")]
        encoded = tokenized(
            self.tokenizer,
            *(cut(column, self.max_length) for column in texts if column is not None),
            truncation=True,
            max_length=self.max_length,
        )
        # Texts of one length share a batch, so that hardly anything is computed for padding.
        order = sorted(range(len(split)), key=lambda i: len(encoded["input_ids"][i]))
        result = None
        start, room = 0, scoring_batch(self.max_length)
        while start < len(order):
            indices = order[start : start + room]
            batch = {name: [values[i] for i in indices] for name, values in encoded.items()}
            pooled = self._fitting(batch)
            if pooled is None:
                room = len(indices) // 2
                continue
            start += len(indices)
            if result is None:
                result = np.empty((len(split), pooled.shape[1]), np.float32)
            result[indices] = pooled
            progress(len(indices))
        assert result is not None, "a split has examples"
        return result

    def _fitting(self, batch: dict[str, Any]) -> npt.NDArray[np.float32] | None:
        """Return the means; null if the memory does not suffice for so many at once."""
        try:
            return self._pooled(batch)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error) or len(batch["input_ids"]) == 1:
                raise
        # Here and not above: the error holds what did not fit.
        from coldfusion_shared.finetune.trainer import free_memory

        free_memory()
        return None

    def _pooled(self, batch: dict[str, Any]) -> npt.NDArray[np.float32]:
        """Return the means over the tokens that are no padding, (batch, hidden)."""
        import torch

        padded = self.tokenizer.pad(batch, return_tensors="pt").to(self.device)
        with torch.inference_mode():
            hidden = self.model(**padded).last_hidden_state  # (batch, tokens, hidden)
        mask = padded["attention_mask"].unsqueeze(-1).float()  # (batch, tokens, 1)
        means: npt.NDArray[np.float32] = ((hidden * mask).sum(1) / mask.sum(1)).cpu().numpy()
        return means
