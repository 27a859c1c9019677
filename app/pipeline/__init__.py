"""The verbs: stream, flush, archive, supervise. Each introduces the nouns (connection, buffer, store, objects) to each other."""
