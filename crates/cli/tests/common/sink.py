"""A server that takes mail and writes one line for each: the address it came from, its Message-ID, and when.

Usage: sink.py HOST PORT LOG. A file LOG.mode says how it behaves: accept, refuse (550), later (451), mute, which accepts and
closes without a word, silent, which accepts and says nothing for a minute, or slow, which says a second and a half later that it accepted. Where there is a file LOG.token, only
who logs in by it (XOAUTH2) may send. It speaks enough of SMTP for one client, and knows nothing of TLS.
"""

import base64
import datetime
import os
import socket
import sys
import threading
import time

HOST, PORT, LOG = sys.argv[1], int(sys.argv[2]), sys.argv[3]
LOCK = threading.Lock()


def mode():
    try:
        with open(LOG + ".mode") as file:
            return file.read().strip()
    except FileNotFoundError:
        return "accept"


def token():
    try:
        with open(LOG + ".token") as file:
            return file.read().strip()
    except FileNotFoundError:
        return None


def is_token(proof):
    try:
        return f"auth=Bearer {token()}\x01".encode() in base64.b64decode(proof)
    except ValueError:
        return False


def record(peer, message):
    identity = "?"
    for line in message.split(b"\r\n"):
        if line.lower().startswith(b"message-id:"):
            identity = line.split(b":", 1)[1].strip().decode()
            break
    with LOCK, open(LOG, "a") as file:
        now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None).isoformat()
        file.write(f"{peer} {identity} {now}Z\n")
        file.flush()
        os.fsync(file.fileno())


def serve(connection, peer):
    stream = connection.makefile("rwb")

    def say(text):
        stream.write(text.encode() + b"\r\n")
        stream.flush()

    say("220 sink")
    allowed = token() is None
    while True:
        line = stream.readline()
        if not line:
            return
        verb = line[:4].upper()
        if verb == b"EHLO":
            login = b"" if allowed else b"250-AUTH XOAUTH2\r\n"
            stream.write(b"250-sink\r\n250-PIPELINING\r\n" + login + b"250-8BITMIME\r\n250 SIZE 0\r\n")
            stream.flush()
        elif verb == b"AUTH":
            words = line.split()
            if len(words) < 3:
                say("334 ")
                words.append(stream.readline())
            allowed = is_token(words[2])
            say("235 2.7.0 in" if allowed else "535 5.7.8 not by this token")
        elif verb == b"MAIL" and not allowed:
            say("530 5.7.0 log in first")
        elif verb == b"DATA":
            if mode() == "later":
                say("451 4.3.0 not now")
                continue
            say("354 go on")
            message = b""
            while True:
                line = stream.readline()
                if not line:
                    return
                if line == b".\r\n":
                    break
                message += line
            how = mode()
            if how == "refuse":
                say("550 5.7.1 never")
                continue
            record(peer, message)
            if how == "mute":
                connection.close()
                return
            if how == "silent":
                time.sleep(60)
                return
            if how == "slow":
                time.sleep(1.5)
            say("250 2.0.0 taken")
        elif verb == b"QUIT":
            say("221 bye")
            return
        else:
            say("250 fine")


def guarded(connection, peer):
    try:
        serve(connection, peer)
    except OSError:
        pass
    finally:
        connection.close()


listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind((HOST, PORT))
listener.listen(64)
while True:
    accepted, address = listener.accept()
    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=guarded, args=(accepted, address[0]), daemon=True).start()
