"""A contributor's private data set: read, checked and split; it never leaves the machine."""

from coldfusion_shared.data.dataset import Split, TextDataset
from coldfusion_shared.data.readers import load_dataset

__all__ = ["Split", "TextDataset", "load_dataset"]
