"""The verbs: stream, flush, archive, supervise. Each introduces the nouns to each other."""
