#!/usr/bin/python3
"""A scriptable mail relay on aiosmtpd: what it does is in the recipient.

	smtp_peer.py PORT_FILE LOG_FILE [--tls CERT KEY] [--implicit] [--login USER PASSWORD]

Listens on 127.0.0.1 at a port of its own choice, writes it to PORT_FILE, and
appends one JSON line per accepted mail to LOG_FILE before it answers.
Local parts: rcpt450, rcpt550, data450, data550, drop (accepted, but the answer
never comes), hang, mail... ; anything else is accepted.
"""
import argparse
import asyncio
import base64
import json
import os
import ssl

from aiosmtpd.smtp import SMTP, AuthResult

parser = argparse.ArgumentParser()
parser.add_argument("port_file")
parser.add_argument("log_file")
parser.add_argument("--tls", nargs=2)
parser.add_argument("--implicit", action="store_true")
parser.add_argument("--login", nargs=2)
options = parser.parse_args()
log = open(options.log_file, "a", buffering=1)


class Handler:
    """Takes mails, or not."""

    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):
        """Answer RCPT TO."""
        local = address.split("@")[0]
        if local.startswith("rcpt"):
            return local[4:7] + " as asked"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        """Answer the end of a mail."""
        local = envelope.rcpt_tos[0].split("@")[0]
        if local.startswith("hang"):
            await asyncio.sleep(3600)
        if local.startswith("data"):
            return local[4:7] + " as asked"
        log.write(json.dumps({
            "from": envelope.mail_from, "to": envelope.rcpt_tos,
            "tls": session.ssl is not None or options.implicit,
            "user": session.auth_data if isinstance(session.auth_data, str) else None,
            "mail": base64.b64encode(envelope.original_content).decode()}) + "\n")
        if local.startswith("drop"):
            server.transport.abort()
        return "250 taken"


def authenticate(server, session, envelope, mechanism, data):
    """Check a login."""
    good = data.login.decode() == options.login[0] and data.password.decode() == options.login[1]
    return AuthResult(success=good, handled=good, auth_data=data.login.decode())


async def main():
    """Listen and tell where."""
    context = None
    if options.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*options.tls)
    settings = {"hostname": "peer.example", "ident": "peer", "data_size_limit": 10000000}
    if options.login:
        settings.update(authenticator=authenticate, auth_required=True, auth_require_tls=not options.implicit)
    if context and not options.implicit:
        settings.update(tls_context=context)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(Handler(), loop=loop, **settings), "127.0.0.1", 0,
                                      ssl=context if options.implicit else None, backlog=512)
    with open(options.port_file + ".tmp", "w") as out:
        out.write("%d\n" % server.sockets[0].getsockname()[1])
    os.rename(options.port_file + ".tmp", options.port_file)
    await server.serve_forever()


asyncio.run(main())
