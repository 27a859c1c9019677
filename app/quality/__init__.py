"""What the records say about the record: pure judgements, given what was read elsewhere."""
