"""One WebSocket connection: the pure session, the blocking socket, the wait between two attempts."""
