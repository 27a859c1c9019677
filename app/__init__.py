"""Collector: exchange --ws--> Redis list -> SQLite segment -> Parquet object -> store, proved at every step.

Follow one trade by opening these in order:

    tasks/streams.py            which connection, under which lease
    app/pipeline/stream.py      connections one after another, and the sender thread
    app/pipeline/connection.py  one connection, from the handshake to its end on record
    app/pipeline/link.py        one connection at work
    app/connection/socket.py    bytes off the wire
    app/connection/session.py   bytes -> numbered events
    app/exchanges/binance.py    what the venue's words mean
    app/pipeline/outbox.py      the bounded queue
    app/pipeline/sender.py      to Redis, or to the spool
    app/buffer/events.py        the list
    app/pipeline/flush.py       claim, insert, commit, acknowledge
    app/store/insert.py         rows, duplicates, ranges
    app/pipeline/archive.py     segment -> object -> proof
    app/pipeline/removal.py     and only then the segment goes
"""

__version__ = "0.1.0"
