"""What the Repository and its contributors must agree on, to the bit."""

__version__ = "0.1.0"
