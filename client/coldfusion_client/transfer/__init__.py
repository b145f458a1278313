"""Model files over unreliable networks: resumed, verified, in parallel where that helps."""
