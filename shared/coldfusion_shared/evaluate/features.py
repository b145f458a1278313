"""Features of texts: the mean of a frozen body's last hidden states."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from coldfusion_shared.finetune.batches import scoring_batch
from coldfusion_shared.finetune.failures import out_of_memory
from coldfusion_shared.tasks.labelled import cut
from coldfusion_shared.tasks.pretrained import load_model, load_tokenizer, longest_input
from coldfusion_shared.tasks.tokenized import tokenized

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from coldfusion_shared.data.dataset import Split

    # Indices of texts, and their features (n, hidden).
    _Pooled = tuple[list[int], npt.NDArray[np.float32]]


Precision = Literal["fp32", "bf16"]


def quick_precision() -> Precision:
    """Return what this machine multiplies features with: bf16 where finetuning takes it."""
    from coldfusion_shared.finetune.precision import choose_precision

    return "bf16" if choose_precision("auto") == "bf16" else "fp32"


class Encoder:
    """A frozen model and its tokenizer, loaded once for all splits and data sets."""

    def __init__(self, folder: Path, max_length: int, precision: Precision = "fp32") -> None:
        """
        Load the transformers folder `folder`; longer texts are cut to `max_length` tokens.

        Args:
            folder: of the base.
            max_length: tokens of a text, or of a pair of texts.
            precision: that matrices are multiplied in; all else, and the features, are float32.

        Raises:
            BadModel: it is none, or lacks tensors.
        """
        from coldfusion_shared.finetune.precision import device_kind

        self.device = device_kind()
        self.tokenizer = load_tokenizer(folder)
        # Padding before a text would move its positions, by as much as the longest has more.
        self.tokenizer.padding_side = "right"
        model = load_model("AutoModel", folder)
        # What an encoder-decoder makes of a text is in its encoder; its decoder needs another one.
        encoder = model.get_encoder() if model.config.is_encoder_decoder else model
        self.model = encoder.to(self.device).eval()
        self.precision = precision
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
        room = scoring_batch(self.max_length)
        batches = _cut(order, room)
        result = None
        # Closed at once: an interruption must not wait for all the other batches.
        with closing(self._computed(encoded, batches)) as computed:
            for indices, pooled in computed:
                if result is None:
                    result = np.empty((len(split), pooled.shape[1]), np.float32)
                result[indices] = pooled
                progress(len(indices))
        assert result is not None, "a split has examples"
        return result

    def _computed(self, encoded: Any, batches: list[list[int]]) -> Generator[_Pooled]:
        """Yield each batch's indices and features, some in smaller batches if need be."""
        import torch

        self.room = len(batches[0])
        threads = torch.get_num_threads() if self.device == "cpu" else 1
        if threads == 1:
            for batch in batches:
                yield from self._fitting(encoded, batch)
            return
        # Several batches at once, one thread each: several threads on one batch wait for each
        # other at every layer.
        with ThreadPoolExecutor(threads, initializer=lambda: torch.set_num_threads(1)) as pool:
            try:
                futures = [pool.submit(self._fitting, encoded, batch) for batch in batches]
                for future in as_completed(futures):
                    yield from future.result()
            finally:
                pool.shutdown(cancel_futures=True)
                torch.set_num_threads(threads)

    def _fitting(self, encoded: Any, indices: list[int]) -> list[_Pooled]:
        """Return features in pieces that the memory suffices for, each with its indices."""
        pending, done = _cut(indices, self.room), []
        while pending:
            batch = {name: [values[i] for i in pending[0]] for name, values in encoded.items()}
            pooled = self._tried(batch)
            if pooled is None:
                self.room = min(self.room, len(pending[0]) // 2)
                pending = [piece for part in pending for piece in _cut(part, self.room)]
            else:
                done.append((pending.pop(0), pooled))
        return done

    def _tried(self, batch: dict[str, Any]) -> npt.NDArray[np.float32] | None:
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
        halved = torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16")
        with torch.inference_mode(), halved:
            hidden = self.model(**padded).last_hidden_state.float()  # (batch, tokens, hidden)
        mask = padded["attention_mask"].unsqueeze(-1).float()  # (batch, tokens, 1)
        means: npt.NDArray[np.float32] = ((hidden * mask).sum(1) / mask.sum(1)).cpu().numpy()
        return means


def _cut(indices: list[int], room: int) -> list[list[int]]:
    return [indices[start : start + room] for start in range(0, len(indices), room)]
