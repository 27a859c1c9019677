"""The built-in exchanges: five venues that speak their own dialects on one loopback port, for rehearsal and for proof.

They import nothing from `app.exchanges`: what a venue says is written here a second time, from the venue's
documentation, so that a mistake in a decoder is not repeated by the exchange it is tested with.

    cli        the command `collector exchange-server`
    server     one port: WebSockets, REST answers, /control
    control    stop, start, count, and let things go wrong
    connection one client: its outbox, the loop that sends and records
    floor      which market runs, who subscribed to what, stop and start
    dialect    the words all venues share: frame, event, topic, session, venue
    binance, coinbase, upbit, okx, bybit   one dialect each, and with `_rest` what it answers over REST
    instruments, market, tape, figures   a random market, its trades so far, its numbers as text (pure)
    faults, rules, spoiled   what may go wrong, when it strikes, and the bytes of it (pure)
    mischief   faults strike frames; in `weather` markets and clocks, in `gate` requests
    tricks, detour   what is then done to a connection
    replay     recorded frames instead of generated ones
    sent       the record of every event handed to a socket
"""
