"""Continuity, identity, protocols: see base."""
