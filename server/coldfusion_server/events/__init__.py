"""What happened: written with the change that it tells of, sent on to whoever watches."""
