"""Where received events wait: Redis lists, leases, and the local spool for when Redis does not answer.

Keys (all begin with `[redis] prefix`):

    <prefix>:buffer:<stream>      list    batches of one stream, oldest first
    <prefix>:buffer-bytes         hash    stream -> bytes in its list
    <prefix>:buffer-events        hash    stream -> events in its list
    <prefix>:lease:<name>         string  token of the holder, with a TTL
    <prefix>:dispatched:<stream>  string  a stream task is on its way, with a TTL
    <prefix>:state:<stream>       string  JSON: what the stream says of itself, with a TTL
    <prefix>:beat                 string  UTC second of the last supervision, with a TTL
"""
