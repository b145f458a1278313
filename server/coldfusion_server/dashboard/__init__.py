"""What maintainers and contributors watch."""
