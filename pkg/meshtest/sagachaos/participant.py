# A participant without the library, with the barrier that docs/saga.md shows.
#
#   python3 participant.py LISTEN DIRECTOR SERVICE DATABASE
import contextlib
import http.client
import json
import os
import signal
import socket
import sqlite3
import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

listen, director, service, database = sys.argv[1:]


def connect():
    db = sqlite3.connect(database, timeout=10, isolation_level=None)
    db.execute("PRAGMA journal_mode = wal")
    db.execute("PRAGMA synchronous = off")
    return db


def tell(path, value):
    try:
        c = http.client.HTTPConnection(director, timeout=60)
        c.request("POST", path, json.dumps(value), {"Content-Type": "application/json"})
        answer = json.loads(c.getresponse().read())
        c.close()
        return answer
    except (OSError, ValueError, http.client.HTTPException):
        return {"fault": ""}  # at the end


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def act(key, body, order):
    """Does what a call asks for, once, and returns what is answered."""
    said = json.loads(body)
    step, _, what = key.rpartition("/")
    insert = "INSERT INTO saga_barrier (step, what, by_what) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
    with contextlib.closing(connect()) as db:
        db.execute("BEGIN IMMEDIATE")
        null = what == "compensate" and db.execute(insert, (step, "action", "compensate")).rowcount
        if not db.execute(insert, (step, what, what)).rowcount:
            by, answer = db.execute("SELECT by_what, answer FROM saga_barrier WHERE step = ? AND what = ?", (step, what)).fetchone()
            db.execute("ROLLBACK")
            return (200, answer or "") if by == what else (409, '{"error": "undone before"}')
        if null:
            db.execute("COMMIT")
            return 200, ""
        if order["fault"] == "refuses":
            db.execute("ROLLBACK")
            return 409, '{"error": "not this one"}'
        answer = {"id": uuid.uuid4().hex}
        effect = (said["saga"], said["step"], what, answer["id"], said.get("given", ""), time.monotonic_ns())
        db.execute("INSERT INTO effects VALUES (?, ?, ?, ?, ?, ?)", effect)
        if order["fault"] == "dies, undecided":
            die()
        db.execute("UPDATE saga_barrier SET answer = ? WHERE step = ? AND what = ?", (json.dumps(answer), step, what))
        db.execute("COMMIT")
        return 200, json.dumps(answer)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 5  # of a connection that nothing comes on, in seconds

    def log_message(self, *_):
        pass

    def end_connection(self):
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def answer(self, status, body="", more=0):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body) + more))
        self.end_headers()
        self.wfile.write(body.encode())

    def do_POST(self):
        with contextlib.suppress(OSError):
            self.serve()

    def serve(self):
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        if len(body) < length:
            return self.end_connection()  # its coordinator ended in the middle of the call
        body = body.decode()
        key = self.headers["Idempotency-Key"]
        call = {
            "service": service, "process": os.getpid(), "key": key,
            "attempt": int(self.headers["Saga-Attempt"]), "fence": int(self.headers["Saga-Fence"]), "path": self.path, "body": body,
        }
        order = tell("/received", call)
        fault, wait = order["fault"], order.get("delay", 0) / 1000
        try:
            self.obey(fault, wait, order, call)
        finally:
            if order.get("over"):
                tell("/over", order["over"])

    def obey(self, fault, wait, order, call):
        key, body = call["key"], call["body"]
        if fault == "dies, received":
            die()
        if fault in ("fails", "later", "behind"):
            self.answer(order["status"], "")
            if fault == "behind":
                self.wfile.flush()
                time.sleep(wait)
                act(key, body, order)
            return
        if fault == "breaks":
            return self.end_connection()
        if fault == "late":
            time.sleep(wait)
        status, text = act(key, body, order)
        if fault == "dies, committed":
            die()
        if fault == "tells":
            tell("/committed", call)
        if fault == "slow":
            time.sleep(wait)
        if fault == "fails behind":
            return self.answer(order["status"], "")
        if fault == "breaks behind":
            return self.end_connection()
        if fault == "halfway":
            self.answer(status, text[: len(text) // 2], len(text) - len(text) // 2 + 1)
            return self.end_connection()
        self.answer(status, text)


class Server(ThreadingHTTPServer):
    daemon_threads = False  # calls whose caller is gone are done all the same
    request_queue_size = 128

    def handle_error(self, *_):
        if not isinstance(sys.exc_info()[1], OSError):  # as of a connection that was reset
            super().handle_error(*_)


host, port = listen.rsplit(":", 1)
server = Server((host, int(port)), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
print("listens", flush=True)
server.serve_forever()
server.server_close()
