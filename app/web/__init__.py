"""What the web process answers."""
