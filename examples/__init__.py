"""What to look at first: the demo, its data, a notebook."""
