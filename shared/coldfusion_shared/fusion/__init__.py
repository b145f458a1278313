"""Fusing: from a base and the updates of its contributions to the next base."""
