"""What travels between client and server, one file per resource."""
