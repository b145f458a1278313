"""Signing: what lets a client know that a base, or a head, is the Repository's own."""
