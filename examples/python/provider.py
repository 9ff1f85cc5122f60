#!/usr/bin/python3
"""A Keepout provider without any library: it denies files whose SHA-256 is in deny.txt.

Everything here follows docs/protocol.md. The content folder holds deny.txt: one SHA-256 a line, then an
optional name. One thread is enough for an example; a real engine would hash in several.
"""

import hashlib
import os
import select
import socket
import sys
import time

MAX_PACKET, MAX_TEXT = 65536, 256
OPEN, EXEC = 1, 2
ALLOW, DENY, ABSTAIN = 1, 2, 3
DESCRIPTOR, DIGEST = 2, 3
LOADING, READY, DEGRADED = 1, 2, 3
WELCOME, EVENT, RELOAD, DRAIN, REFUSED = 1, 3, 5, 6, 7  # bodies of ToProvider
HELLO, SUBSCRIBE, VOTE, HEARTBEAT = 1, 2, 3, 5  # bodies of FromProvider


def varint(n):
    """Encodes a number in groups of seven bits, lowest first."""
    n &= (1 << 64) - 1  # negative numbers are sent as 64-bit two's complement
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes(out) + bytes([n])


def read_varint(data, at):
    """Returns the number at a position, and the position after it."""
    n = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("number goes beyond the packet")
        n |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            if n >> 64:
                raise ValueError("number over 64 bits")
            return n, at
    raise ValueError("number of more than ten bytes")


def field(number, value):
    """Encodes one field; zero and empty are the defaults, which are not sent."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value) if value else b""
    return message(number, value) if value else b""


def message(number, value):
    """Encodes bytes, a text or an encoded message, sent even when it is empty."""
    if isinstance(value, str):
        value = value.encode()
    return varint(number << 3 | 2) + varint(len(value)) + value


def decode(data):
    """Returns {field number: [values in order]}; what the fields mean is the caller's to know."""
    fields, at = {}, 0
    while at < len(data):
        tag, at = read_varint(data, at)
        number, kind = tag >> 3, tag & 7
        if number == 0 or number >= 1 << 29:
            raise ValueError(f"field number {number}")
        if kind == 0:
            value, at = read_varint(data, at)
        elif kind in (1, 2, 5):
            size, at = read_varint(data, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
            if size > len(data) - at:
                raise ValueError("field goes beyond the packet")
            value, at = data[at:at + size], at + size
        else:
            raise ValueError(f"wire type {kind}")
        fields.setdefault(number, []).append(value)
    return fields


def get(fields, number, default):
    """Returns the last value of a field, or the default."""
    return fields.get(number, [default])[-1]


def clip(text):
    """Makes a text fit for a rule, a detail or a version."""
    printable = "".join(c if c.isprintable() else "?" for c in text)
    return printable.encode(errors="replace")[:MAX_TEXT].decode(errors="ignore")


class Provider:
    def __init__(self, auth, control):
        self.auth, self.control = auth, control
        self.deny, self.version = {}, ""
        self.state, self.detail = LOADING, ""
        self.processed, self.interval, self.next_beat = 0, 1.0, 0.0

    def beat(self, now=False):
        """Sends a heartbeat when it is due; also called from within long work."""
        if now or time.monotonic() >= self.next_beat:
            self.next_beat = time.monotonic() + self.interval
            self.control.send(message(HEARTBEAT, field(1, self.processed) + field(2, self.state)
                                      + field(3, clip(self.detail)) + field(4, self.version)))

    def handshake(self):
        self.control.send(message(HELLO, message(1, varint(1)) + field(3, "python example 1.0")))
        body = {}
        while WELCOME not in body:
            packet = self.control.recv(MAX_PACKET)
            body = decode(packet)
            if not packet or REFUSED in body:
                raise ValueError(f"no welcome: {packet!r}")
        welcome = decode(body[WELCOME][-1])
        self.access = DIGEST if get(welcome, 2, 0) >= 1 else DESCRIPTOR  # of platforms before digests
        if get(welcome, 1, 0) != 1:
            raise ValueError(f"the platform chose version {get(welcome, 1, 0)}, this speaks 1")
        self.content = get(welcome, 4, b"").decode()
        self.interval = max(get(welcome, 7, 1000), 10) / 1000
        self.beat(now=True)
        self.load()
        self.control.send(message(SUBSCRIBE, field(1, 1) + message(2, varint(OPEN) + varint(EXEC))
                                  + field(8, self.access)))
        self.state = READY

    def load(self):
        with open(os.path.join(self.content, "deny.txt"), "rb") as file:
            text = file.read()
        deny = {}
        for line in text.decode().splitlines():
            digest, _, name = line.partition("#")[0].strip().partition(" ")
            if digest:
                if len(digest) != 64:
                    raise ValueError(f"not a SHA-256: {line!r}")
                deny[bytes.fromhex(digest)] = name.strip() or digest
        self.deny, self.version = deny, hashlib.sha256(text).hexdigest()[:12]

    def reload(self):
        try:
            self.load()
            self.state, self.detail = READY, ""
        except (OSError, ValueError) as problem:  # keep what we have, and say so
            self.state, self.detail = DEGRADED, f"reload: {problem}"
        self.beat(now=True)

    def digest(self, fd, deadline):
        """Hashes the object by position, because all holders of the descriptor share its file offset."""
        total, at = hashlib.sha256(), 0
        try:
            while chunk := os.pread(fd, 1 << 20, at):
                total.update(chunk)
                at += len(chunk)
                self.beat()
                if time.monotonic() > deadline:
                    return None
        except OSError:  # unreadable: no opinion
            return None
        return total.digest()

    def judge(self, event, fd, deadline):
        if get(event, 4, 0) not in (OPEN, EXEC):
            return ABSTAIN, ""
        digest = get(decode(get(event, 8, b"")), 10, b"")
        if not digest and fd >= 0:
            digest = self.digest(fd, deadline)
        if not digest:
            return ABSTAIN, ""
        return (DENY, self.deny[digest]) if digest in self.deny else (ALLOW, "")

    def answer(self):
        """Takes one packet from the auth socket; returns False at its end."""
        packet, fds, _, _ = socket.recv_fds(self.auth, MAX_PACKET, 1)
        received = time.monotonic()
        try:
            body = decode(packet)
            if EVENT in body:
                event = decode(body[EVENT][-1])
                action, rule = self.judge(event, fds[0] if fds else -1, received + get(event, 5, 0) / 1e9)
                self.processed += 1
                self.auth.send(message(VOTE, field(1, get(event, 1, 0)) + field(2, action) + field(3, 100)
                                       + field(4, clip(rule)) + field(5, self.version)))
        finally:
            for fd in fds:
                os.close(fd)
        return bool(packet)

    def run(self):
        self.handshake()
        while True:
            self.beat()
            wait = max(0.0, self.next_beat - time.monotonic())
            ready, _, _ = select.select([self.auth, self.control], [], [], wait)
            if self.auth in ready and not self.answer():
                return
            if self.control in ready:
                packet = self.control.recv(MAX_PACKET)
                if not packet:
                    return
                body = decode(packet)
                if RELOAD in body:
                    self.reload()
                if DRAIN in body:  # everything delivered before it is in the socket already
                    while select.select([self.auth], [], [], 0)[0] and self.answer():
                        pass
                    return


if __name__ == "__main__":
    try:
        Provider(socket.socket(fileno=3), socket.socket(fileno=4)).run()
    except (OSError, ValueError) as problem:
        sys.exit(f"provider: {problem}")
