"""What protocols are made of: finetune, fuse, score, and lines of bases."""
