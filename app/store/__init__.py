"""SQLite through SQLAlchemy: segments (the rows) and the ledger (how far each segment has got)."""
