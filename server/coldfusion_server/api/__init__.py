"""The HTTP face of the Repository: parse, call a service, answer."""
