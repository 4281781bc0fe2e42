"""Sends mails over one connection with TLS and pipelining, as swaks would: the yardstick of a measurement.

Usage: drain.py PORT AUTHORITY COUNT BODY-FILE; prints the seconds between login and the last answer.
"""

import base64
import socket
import ssl
import sys
import time

port, authority, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
body = open(sys.argv[4], "rb").read()
stream = socket.create_connection(("127.0.0.1", port))
stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
stream = ssl.create_default_context(cafile=authority).wrap_socket(stream, server_hostname="localhost")
replies = stream.makefile("rb")


def reply(expected):
    while True:
        line = replies.readline()
        if line[3:4] == b" ":
            assert line.startswith(expected), line
            return


reply(b"220")
stream.sendall(b"EHLO yardstick\r\n")
reply(b"250")
stream.sendall(b"AUTH PLAIN " + base64.b64encode(b"\0alice\0secret") + b"\r\n")
reply(b"235")
begun = time.monotonic()
for _ in range(count):
    stream.sendall(b"MAIL FROM:<alice@example.test>\r\nRCPT TO:<alice@example.test>\r\nDATA\r\n")
    for expected in (b"250", b"250", b"354"):
        reply(expected)
    stream.sendall(body + b".\r\n")
    reply(b"250")
print(time.monotonic() - begun)
