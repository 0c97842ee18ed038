"""An HTTP/1.1 server that tells what it was asked: ``webserver.py PORT``, at all addresses."""

from __future__ import annotations

import http.server
import json
import socket
import sys
from collections.abc import Iterator


class Echo(http.server.BaseHTTPRequestHandler):
    """Tells what it was asked; ``/big`` is 32 MiB; after ``/close`` the connection is over."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        if self.headers.get("upgrade"):
            self.connection.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
            )
            while data := self.connection.recv(4096):
                self.connection.sendall(data.upper())
            self.close_connection = True
            return
        if self.command == "CONNECT":
            self.connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            while data := self.connection.recv(4096):
                self.connection.sendall(data.upper())
            self.close_connection = True
            return
        size, body = 0, self._body()
        for part in body:
            size += len(part)
        told = {
            "method": self.command,
            "path": self.path,
            "headers": self.headers.items(),
            "client": self.client_address[:2],
            "size": size,
        }
        content = json.dumps(told).encode() if self.path != "/big" else bytes(32 << 20)
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Case", "Kept")
        if self.path.endswith("/close"):
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _body(self) -> Iterator[bytes]:
        if self.headers.get("transfer-encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return
        left = int(self.headers.get("content-length", 0))
        while left:
            part = self.rfile.read(min(left, 1 << 16))
            left -= len(part)
            yield part

    do_GET = do_POST = do_PUT = do_HEAD = do_OPTIONS = do_CONNECT = do_PURGE = answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    request_queue_size = 128
    daemon_threads = True


if __name__ == "__main__":
    Server(("::", int(sys.argv[1])), Echo).serve_forever()
