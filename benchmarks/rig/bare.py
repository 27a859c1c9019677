"""The floor of ingest: websocket-client in a loop, one thread a connection, counting and nothing else.

    python benchmarks/bare.py URL CERTIFICATE CONNECTIONS

says once a second how many frames came and how much processor it used.
"""

from __future__ import annotations

import json
import ssl
import sys
import threading
import time

import websocket


def main(url: str, certificate: str, connections: int) -> None:
    counts = [0] * connections

    def read(at: int) -> None:
        ws = websocket.WebSocket(
            sslopt={"context": ssl.create_default_context(cafile=certificate)}, skip_utf8_validation=True
        )
        ws.connect(f"{url}/stream", suppress_origin=True, http_no_proxy=["*"])
        names = [f"c{at}m0usdt@depth20@100ms", f"c{at}m0usdt@trade"]
        ws.send(json.dumps({"method": "SUBSCRIBE", "params": names, "id": "1"}))
        while True:
            ws.recv_data_frame(control_frame=True)
            counts[at] += 1

    for at in range(connections):
        threading.Thread(target=read, args=(at,), daemon=True).start()
    before_s, before_cpu = time.monotonic(), time.process_time()
    while True:
        time.sleep(1)
        now_s, cpu = time.monotonic(), time.process_time()
        told = {"frames": sum(counts), "cpu": round((cpu - before_cpu) / (now_s - before_s), 3)}
        before_s, before_cpu = now_s, cpu
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
