#!/usr/bin/python3
"""A scriptable receiver of webhooks: what it does is in the path.

	http_peer.py PORT_FILE LOG_FILE [CERT KEY]

Listens on 127.0.0.1 at a port of its own choice, writes it to PORT_FILE, and
appends one JSON line per request to LOG_FILE before it answers.
"""
import asyncio
import base64
import json
import os
import ssl
import struct
import socket
import sys

port_file, log_file = sys.argv[1:3]
log = open(log_file, "a", buffering=1)


def reset(writer):
    """End a connection with RST."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def reply(writer, status, headers=(), body=b""):
    """Write a whole answer."""
    lines = ["HTTP/1.1 %d Status" % status, "Content-Length: %d" % len(body)] + list(headers)
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + body)


async def answer(writer, what, rest):
    """Do what the path asks for; False ends the connection."""
    if what == "status":
        reply(writer, int(rest))
    elif what == "hang":
        await asyncio.sleep(3600)
    elif what == "slow":
        await asyncio.sleep(float(rest))
        reply(writer, 204)
    elif what == "drip":
        writer.write(b"HTTP/1.1 200 OK\r\n")
        for _ in range(3600):
            writer.write(b"X")
            await writer.drain()
            await asyncio.sleep(1)
    elif what == "reset":
        reset(writer)
        return False
    elif what == "close":
        return False
    elif what == "redirect":
        reply(writer, 302, ["Location: http://" + rest])
    elif what == "flood":
        writer.write(b"HTTP/1.1 %d Status\r\nTransfer-Encoding: chunked\r\n\r\n" % int(rest))
        for _ in range(20000):
            writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            await writer.drain()
    elif what == "headers":
        writer.write(b"HTTP/1.1 200 OK\r\n")
        for i in range(1000000):
            writer.write(b"X-Flood-%d: " % i + b"x" * 1000 + b"\r\n")
            await writer.drain()
    elif what == "retry_after":
        reply(writer, 429, ["Retry-After: " + rest])
    elif what == "binary":
        reply(writer, 500, [], b"\x00\xff\xfe\x00")
    else:
        reply(writer, 204)
    await writer.drain()
    return True


async def serve(reader, writer):
    """Serve one connection."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            path = lines[0].split(" ")[1]
            headers = dict((line.split(": ", 1) + [""])[:2] for line in lines[1:] if line)
            headers = {name.lower().rstrip(":"): value for name, value in headers.items()}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            log.write(json.dumps({"path": path, "headers": headers, "body": base64.b64encode(body).decode()}) + "\n")
            parts = path.lstrip("/").split("/", 1)
            if not await answer(writer, parts[0], parts[1] if len(parts) > 1 else ""):
                break
    except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
        pass
    finally:
        writer.close()


async def main():
    """Listen and tell where."""
    context = None
    if len(sys.argv) > 3:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[3], sys.argv[4])
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context, backlog=512, limit=1 << 20)
    with open(port_file + ".tmp", "w") as out:
        out.write("%d\n" % server.sockets[0].getsockname()[1])
    os.rename(port_file + ".tmp", port_file)
    async with server:
        await server.serve_forever()


asyncio.run(main())
