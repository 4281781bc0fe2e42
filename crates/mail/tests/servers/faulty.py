"""An aiosmtpd server with STARTTLS and AUTH that fails as the header X-Fault of a mail says.

Usage: faulty.py PORT DIRECTORY, where DIRECTORY holds cert.pem and key.pem.
Prints "up", then one line for each mail that it has taken: its Message-ID and recipients.
"""

import asyncio
import signal
import ssl
import sys

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult


class Handler:
    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("nobody@"):
            return "550 5.1.1 nobody of that name"
        if address.startswith("full@"):
            return "452 4.2.2 mailbox full"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(self, server, session, envelope):
        fields = dict(line.split(b": ", 1) for line in envelope.content.split(b"\r\n\r\n")[0].split(b"\r\n") if b": " in line)
        fault = fields.get(b"X-Fault", b"").decode()
        if fault[:3].isdigit():
            return fault
        print("taken", fields.get(b"Message-ID", b"").decode(), *envelope.rcpt_tos, flush=True)
        if fault == "drop":
            # Accepted, and the reply never comes: the window of RFC 1047.
            server.transport.abort()
        if fault == "slow":
            await asyncio.sleep(3)
        if fault == "never":
            await asyncio.sleep(3600)
        return "250 2.0.0 queued"


def authenticate(server, session, envelope, mechanism, data):
    return AuthResult(success=data.login == b"alice" and data.password == b"secret")


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2] + "/cert.pem", sys.argv[2] + "/key.pem")
controller = Controller(
    Handler(),
    hostname="127.0.0.1",
    port=int(sys.argv[1]),
    tls_context=context,
    require_starttls=True,
    authenticator=authenticate,
    auth_required=True,
)
controller.start()
print("up", flush=True)
signal.pause()
