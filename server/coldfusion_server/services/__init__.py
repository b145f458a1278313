"""The rules, one transaction each, no web inside; the only writers of state."""
