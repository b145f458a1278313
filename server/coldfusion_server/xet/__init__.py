"""The formats in which hf_xet sends files: pieces in xorbs, and shards that say how they join."""
