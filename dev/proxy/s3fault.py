#!/usr/bin/env python3
"""An HTTP fault proxy between S3 clients and an S3 server, both on 127.0.0.1: it sees requests, not only bytes.

    s3fault.py LISTEN_PORT TARGET_PORT CONTROL_PORT

It prints `ready` once it listens. Commands to the control port, one on a line, each answered by one line:

    fault KIND METHOD TEXT WHEN   from now on, requests of METHOD (PUT, GET .., CREATE: a PUT with If-None-Match, or *)
                                  whose path holds TEXT (or *) suffer KIND: with a chance from 0 to 1, or, where WHEN is
                                  `first`, each path once
    seed N                        begins the chances anew
    clear                         no faults any more
    counts                        how often each kind struck, as JSON

    lose-reply     the server does what it was asked, and the client never hears of it (RST)
    lose-request   the client is cut off (RST) before the server hears of the request
    refuse         as lose-request, and new connections are cut off at once
    slow-down      503 SlowDown, without asking the server
    stall          the request waits for STALL_S seconds, then goes on
    cut-reply      half of the reply's body, then RST
    cut-request    the server gets half of the request's body, then both ends are cut off
    unconditional  If-None-Match is taken away and the request is signed again (AWS_SECRET_ACCESS_KEY), so that the
                   server behaves as one that does not know create-if-absent

Environment: STALL_S (10).
"""

import asyncio
import collections
import contextlib
import hashlib
import hmac
import json
import os
import random
import socket
import struct
import sys

LISTEN, TARGET, CONTROL = map(int, sys.argv[1:4])
HOST = "127.0.0.1"
STALL_S = float(os.environ.get("STALL_S", "10"))
LIMIT = 1 << 20
KINDS = set("lose-reply lose-request refuse slow-down stall cut-reply cut-request unconditional".split())
SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"

Rule = collections.namedtuple("Rule", "kind method text when")


class Faults:
    """The rules, and what became of them."""

    def __init__(self):
        self.rules = []
        self.struck = collections.Counter()
        self.seen = set()
        self.random = random.Random(0)

    def strike(self, request):
        """The kind of fault that `request` suffers, or None."""
        for rule in self.rules:
            if rule.method not in ("*", request.method) and not (rule.method == "CREATE" and request.creates):
                continue
            if rule.text != "*" and rule.text not in request.path:
                continue
            if rule.when == "first":
                mark = (rule.kind, request.method, request.path)
                if mark in self.seen:
                    continue
                self.seen.add(mark)
            elif self.random.random() >= float(rule.when):
                continue
            self.struck[rule.kind] += 1
            return rule.kind
        return None

    def refuses(self):
        refuses = any(rule.kind == "refuse" for rule in self.rules)
        self.struck["refuse"] += refuses
        return refuses


class Message:
    """A request or a reply: its first line, its headers in order, its body as it was sent."""

    def __init__(self, head, body):
        self.line, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        self.headers = [line.split(":", 1) for line in lines]
        self.body = body

    @property
    def method(self):
        return self.line.split(" ")[0]

    @property
    def path(self):
        return self.line.split(" ")[1].partition("?")[0]

    @property
    def creates(self):
        return self.method == "PUT" and self.header("if-none-match") is not None

    def header(self, name):
        return next((value.strip() for key, value in self.headers if key.lower() == name), None)

    def head(self):
        lines = [self.line, *(f"{key}:{value}" for key, value in self.headers)]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def read(reader, bodiless=False):
    """Reads one message; None at the end of the stream."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    message = Message(head, b"")
    if bodiless or message.line.split(" ")[1] in ("204", "304"):
        return message
    if (message.header("transfer-encoding") or "").lower() == "chunked":
        chunks = []
        while True:
            chunks.append(await reader.readuntil(b"\r\n"))
            size = int(chunks[-1].split(b";")[0], 16)
            chunks.append(await reader.readexactly(size + 2))
            if size == 0:
                break
        message.body = b"".join(chunks)
    else:
        message.body = await reader.readexactly(int(message.header("content-length") or 0))
    return message


def sign_again(request):
    """Takes If-None-Match away and makes the signature (SigV4) right again."""
    request.headers = [pair for pair in request.headers if pair[0].lower() != "if-none-match"]
    scheme, rest = request.header("authorization").split(" ", 1)
    parts = dict(part.strip().split("=", 1) for part in rest.split(","))
    signed = [name for name in parts["SignedHeaders"].split(";") if name != "if-none-match"]
    path, _, query = request.line.split(" ")[1].partition("?")
    query = "&".join(sorted(pair if "=" in pair else pair + "=" for pair in query.split("&") if pair))
    headers = "".join(f"{name}:{' '.join((request.header(name) or '').split())}\n" for name in signed)
    asked = "\n".join(
        [request.method, path, query, headers, ";".join(signed), request.header("x-amz-content-sha256")]
    )
    scope = parts["Credential"].split("/", 1)[1]
    text = "\n".join([scheme, request.header("x-amz-date"), scope, hashlib.sha256(asked.encode()).hexdigest()])
    key = b"AWS4" + os.environ["AWS_SECRET_ACCESS_KEY"].encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.new(key, text.encode(), "sha256").hexdigest()
    authorization = (
        f" {scheme} Credential={parts['Credential']}, SignedHeaders={';'.join(signed)}, Signature={signature}"
    )
    for pair in request.headers:
        if pair[0].lower() == "authorization":
            pair[1] = authorization


def reset(writer):
    """Closes by RST: that is what closing does when SO_LINGER is zero."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def exchange(faults, request, server, client):
    """Carries one request and its reply; False when the connections are done for."""
    reader, writer = server
    kind = faults.strike(request)
    if kind in ("lose-request", "refuse"):
        return False
    if kind == "slow-down":
        head = f"HTTP/1.1 503 Slow Down\r\ncontent-type: application/xml\r\ncontent-length: {len(SLOW_DOWN)}\r\n\r\n"
        client.write(head.encode() + (b"" if request.method == "HEAD" else SLOW_DOWN))
        await client.drain()
        return True
    if kind == "stall":
        await asyncio.sleep(STALL_S)
    if kind == "unconditional" and request.creates:
        sign_again(request)
    writer.write(request.head())
    if kind == "cut-request":
        writer.write(request.body[: len(request.body) // 2])
        await writer.drain()
        reset(writer)
        return False
    writer.write(request.body)
    await writer.drain()
    reply = await read(reader, bodiless=request.method == "HEAD")
    if reply is None or kind == "lose-reply":
        return False
    client.write(reply.head())
    if kind == "cut-reply":
        client.write(reply.body[: len(reply.body) // 2])
        await client.drain()
        # what was written must leave before the RST overtakes it
        await asyncio.sleep(0.02)
        return False
    client.write(reply.body)
    await client.drain()
    return (reply.header("connection") or "").lower() != "close"


async def serve_client(faults, reader, writer):
    server = None
    try:
        if faults.refuses():
            return
        server = await asyncio.open_connection(HOST, TARGET, limit=LIMIT)
        while request := await read(reader):
            if not await exchange(faults, request, server, writer):
                break
        else:
            writer.close()
            return
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        if server is not None:
            server[1].close()
        if not writer.is_closing():
            reset(writer)


async def serve_control(faults, reader, writer):
    while words := (await reader.readline()).decode().split():
        answer = "ok"
        match words:
            case ["fault", kind, method, text, when] if kind in KINDS:
                faults.rules.append(Rule(kind, method, text, when))
            case ["seed", number]:
                faults.random = random.Random(int(number))
            case ["clear"]:
                faults.rules.clear()
            case ["counts"]:
                answer = json.dumps(faults.struck)
            case _:
                answer = "unknown command"
        writer.write(f"{answer}\n".encode())
    writer.close()


async def main():
    faults = Faults()
    await asyncio.start_server(lambda r, w: serve_client(faults, r, w), HOST, LISTEN, limit=LIMIT)
    await asyncio.start_server(lambda r, w: serve_control(faults, r, w), HOST, CONTROL)
    print("ready", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
