#!/usr/bin/env python3
"""A TCP fault proxy between a client and a server, both on 127.0.0.1.

    proxy.py LISTEN_PORT TARGET_PORT CONTROL_PORT

It prints `ready` once it listens. Commands to the control port, one on a line, each answered by `ok`:
latency MS (each way, without a cap on bandwidth), reset (RST to every open connection), refuse / accept (new
connections), blackhole / open (bytes are held back, nothing is closed).
"""

import asyncio
import contextlib
import socket
import struct
import sys

LISTEN, TARGET, CONTROL = map(int, sys.argv[1:4])
HOST = "127.0.0.1"
CHUNK = 65536
# chunks in flight per direction; a full queue stops reading, so a slow reader is felt by the sender
IN_FLIGHT = 256


class Faults:
    """What is wrong with the network at the moment."""

    def __init__(self):
        self.latency = 0.0
        self.refuse = False
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.connections = set()


def reset(writer):
    """Closes by RST: that is what closing does when SO_LINGER is zero."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def pump(faults, reader, writer):
    """Carries bytes one way through a delay line."""
    queue = asyncio.Queue(IN_FLIGHT)
    loop = asyncio.get_running_loop()

    async def deliver():
        while (item := await queue.get()) is not None:
            due, data = item
            await asyncio.sleep(max(0, due - loop.time()))
            await faults.flowing.wait()
            writer.write(data)
            await writer.drain()
        writer.close()

    delivery = asyncio.create_task(deliver())
    try:
        while data := await reader.read(CHUNK):
            await queue.put((loop.time() + faults.latency, data))
        await queue.put(None)
        await delivery
    except OSError:
        writer.transport.abort()
    finally:
        delivery.cancel()


async def serve_client(faults, reader, writer):
    if faults.refuse:
        reset(writer)
        return
    try:
        to_reader, to_writer = await asyncio.open_connection(HOST, TARGET)
    except OSError:
        reset(writer)
        return
    pair = (writer, to_writer)
    faults.connections.add(pair)
    await asyncio.gather(
        pump(faults, reader, to_writer), pump(faults, to_reader, writer), return_exceptions=True
    )
    faults.connections.discard(pair)


async def serve_control(faults, reader, writer):
    while words := (await reader.readline()).decode().split():
        match words:
            case ["latency", ms]:
                faults.latency = float(ms) / 1000
            case ["reset"]:
                for pair in list(faults.connections):
                    for end in pair:
                        reset(end)
            case ["refuse"] | ["accept"]:
                faults.refuse = words[0] == "refuse"
            case ["blackhole"]:
                faults.flowing.clear()
            case ["open"]:
                faults.flowing.set()
            case _:
                writer.write(b"unknown command\n")
                continue
        writer.write(f"ok {len(faults.connections)} connections\n".encode())
    writer.close()


async def main():
    faults = Faults()
    await asyncio.start_server(lambda r, w: serve_client(faults, r, w), HOST, LISTEN)
    await asyncio.start_server(lambda r, w: serve_control(faults, r, w), HOST, CONTROL)
    print("ready", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
