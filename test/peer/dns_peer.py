#!/usr/bin/python3
"""A scriptable name server: what it answers is in the first label of the name.

	dns_peer.py PORT_FILE LOG_FILE [ADDRESS [PORT]]

Listens for UDP on PORT (53; 0 is one of its own choice) of ADDRESS
(127.0.0.1), writes the port to PORT_FILE once it does, and appends one JSON
line per question to LOG_FILE.
Labels: hang... is never answered, slow... after a second and a half, none...
does not exist, inside... is 10.1.2.3 and 127.0.0.1 in turn; all else is
127.0.0.1. There are no other records than A.
"""
import asyncio
import itertools
import json
import os
import socket
import struct
import sys

port_file, log_file = sys.argv[1:3]
log = open(log_file, "a", buffering=1)
turn = itertools.count()


def question(packet):
    """The name asked for, its type, and the bytes of the question."""
    labels, at = [], 12
    while packet[at]:
        labels.append(packet[at + 1:at + 1 + packet[at]].decode("latin-1").lower())
        at += 1 + packet[at]
    kind, = struct.unpack_from("!H", packet, at + 1)
    return labels, kind, packet[12:at + 5]


def answer(packet, labels, kind, asked):
    """A whole answer."""
    code, addresses = 0, ["127.0.0.1"]
    if labels[0].startswith("none"):
        code, addresses = 3, []
    elif labels[0].startswith("inside"):
        addresses = [("10.1.2.3", "127.0.0.1")[next(turn) % 2]]
    if kind != 1:
        addresses = []
    head = packet[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, len(addresses), 0, 0)
    return head + asked + b"".join(b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 0, 4) + socket.inet_aton(a) for a in addresses)


class Names(asyncio.DatagramProtocol):
    """Answers, or not."""

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, packet, address):
        labels, kind, asked = question(packet)
        log.write(json.dumps({"name": ".".join(labels), "type": kind}) + "\n")
        if labels[0].startswith("hang"):
            return
        delay = 1.5 if labels[0].startswith("slow") else 0
        asyncio.get_running_loop().call_later(delay, self.transport.sendto, answer(packet, labels, kind, asked), address)


async def main():
    """Listen and tell so."""
    address, port = (sys.argv[3:] + ["127.0.0.1", "53"][len(sys.argv) - 3:])[:2]
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Names, local_addr=(address, int(port)))
    with open(port_file + ".tmp", "w") as out:
        out.write("%d\n" % transport.get_extra_info("sockname")[1])
    os.rename(port_file + ".tmp", port_file)
    await asyncio.Event().wait()


asyncio.run(main())
