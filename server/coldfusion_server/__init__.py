"""The Repository: keeps bases and contributions, fuses them, publishes the result."""
