"""Running the whole collector on one machine: find or start Redis, start every process, watch them, stop them in order."""
