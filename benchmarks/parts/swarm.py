"""Many workers' connections in one process: they speak the protocol, and compute nothing.

Started as a process of its own, so that its CPU time is not the scheduler's. The order comes on
stdin as JSON, because the secret of a run must not stand on a command line.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import contextmanager

from em_blocks.runtime.protocol.wire import decode, encode, new_secret, proof

AT_ONCE = 200


class Peer(asyncio.Protocol):
    """A worker that is always done at once."""

    def __init__(self, secret: str, number: int, works: bool):
        self._secret, self._works = secret, works
        self._name = f"host{number // 8}-{number}-beef"
        self._hello = {"worker": self._name, "host": f"host{number // 8}", "pid": number,
                       "device": "cpu", "slot": f"{number}.1"}
        self._rest = b""
        self.done = self.pongs = 0
        self.joined = asyncio.get_running_loop().create_future()

    def connection_made(self, transport) -> None:
        self._transport = transport

    def connection_lost(self, error) -> None:
        if not self.joined.done():
            self.joined.set_exception(error or ConnectionError("refused"))

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._hear(decode(line))

    def ping(self) -> None:
        self._transport.write(b'{"ping":1}\n')

    def _hear(self, message: dict) -> None:
        if "block" in message:
            self.done += 1
            self._transport.write(encode({"done": [message["block"]]}) + encode({"want": 1}))
        elif "pong" in message:
            self.pongs += 1
        elif "proof" in message:
            self.joined.set_result(None)
            if self._works:
                self._transport.write(encode({"want": 1}))
        elif message.get("em_blocks"):
            shown = proof(self._secret, "worker", message["nonce"], self._name)
            self._transport.write(encode({**self._hello, "nonce": new_secret(), "proof": shown}))


async def _join(order: dict) -> list[Peer]:
    loop, peers = asyncio.get_running_loop(), []
    while len(peers) < order["n"]:
        made = await asyncio.gather(*(
            loop.create_connection(
                lambda n=n: Peer(order["secret"], n, order["works"]), *order["address"]
            )
            for n in range(len(peers), min(len(peers) + AT_ONCE, order["n"]))
        ))
        new = [peer for _, peer in made]
        await asyncio.gather(*(peer.joined for peer in new))
        peers += new
    return peers


async def _ping(peers: list[Peer], period_s: float) -> None:
    """Every peer pings once per period, evenly spread."""
    loop = asyncio.get_running_loop()
    start, sent = loop.time(), 0
    while True:
        while sent < (loop.time() - start) / period_s * len(peers):
            peers[sent % len(peers)].ping()
            sent += 1
        await asyncio.sleep(0.002)


async def _swarm(order: dict) -> None:
    peers = await _join(order)
    print("joined", flush=True)
    pinging = asyncio.create_task(_ping(peers, order["ping_s"])) if order["ping_s"] else None
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):  # a line asks, the end ends
        counts = {"done": sum(p.done for p in peers), "pongs": sum(p.pongs for p in peers)}
        print(json.dumps(counts), flush=True)
    if pinging is not None:
        pinging.cancel()


@contextmanager
def swarm(address, secret: str, n: int, *, works: bool = False, ping_s: float | None = None):
    """`n` workers; yields a function that returns how many blocks and pongs they had.

    Parameters
    ----------
    works : bool
        Whether they take blocks.
    ping_s : float, optional
        Period of each one's pings.
    """
    order = {"address": list(address), "secret": secret, "n": n, "works": works, "ping_s": ping_s}
    process = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        print(json.dumps(order), file=process.stdin, flush=True)
        if process.stdout.readline().strip() != "joined":
            raise RuntimeError("the swarm could not join")

        def counts() -> dict:
            print("counts", file=process.stdin, flush=True)
            return json.loads(process.stdout.readline())

        yield counts
    finally:
        process.stdin.close()
        process.wait(60)


if __name__ == "__main__":
    asyncio.run(_swarm(json.loads(sys.stdin.readline())))
