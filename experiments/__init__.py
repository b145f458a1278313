"""The paper's experiments and our own, on our own engine: finetune, fuse, score, report."""
