#!/usr/bin/env python3
"""A service that takes part in sagas, written with nothing but Python's standard library.

It sells the seats of a concert: POST /reserve with {"seats": 2} takes two of the 100, POST /reserve/undo gives them back, and GET /seats
says how many are left. Each call of a saga has its effect once, however often it comes, and in whatever order: once() is how.

    python3 saga-participant.py FILE-OF-THE-DATABASE [PORT]
"""

import json
import re
import sqlite3
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SCHEMA = """
CREATE TABLE IF NOT EXISTS saga_barrier (
    step    VARCHAR(300) NOT NULL,  -- SAGA/STEP
    what    VARCHAR(10)  NOT NULL,  -- action or compensate
    by_what VARCHAR(10)  NOT NULL,  -- who made this row: a compensation makes that of an action that has not come, too
    answer  TEXT,                   -- what was answered, JSON
    PRIMARY KEY (step, what));
CREATE TABLE IF NOT EXISTS concert (seats_left INTEGER NOT NULL);
INSERT INTO concert SELECT 100 WHERE NOT EXISTS (SELECT * FROM concert);
CREATE TABLE IF NOT EXISTS reservation (step VARCHAR(300) NOT NULL, seats INTEGER NOT NULL);
"""

KEY = re.compile(r"([\x21-\x2e\x30-\x7e]+/[\x21-\x2e\x30-\x7e]+)/(action|compensate)")


class Refused(Exception):
    """The call was not done, and will not be. The saga is undone."""


def claim(db, step, what, by_what):
    """Makes the row of a call, and says whether it is new."""
    return db.execute("INSERT INTO saga_barrier (step, what, by_what) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (step, what, by_what)).rowcount == 1


def once(db, key, effect):
    """Calls effect(db, step) once for a key, in the transaction of the barrier's rows, and returns what it has returned, each time."""
    match = KEY.fullmatch(key)
    if not match:
        raise Refused("the Idempotency-Key is not SAGA/STEP/action or SAGA/STEP/compensate")
    step, what = match.groups()
    db.execute("BEGIN IMMEDIATE")  # else a transaction that has read may find that it cannot write any more
    try:
        null = what == "compensate" and claim(db, step, "action", "compensate")
        if claim(db, step, what, what):
            answer = None if null else effect(db, step)
            db.execute("UPDATE saga_barrier SET answer = ? WHERE step = ? AND what = ?", (json.dumps(answer), step, what))
        else:
            by_what, stored = db.execute("SELECT by_what, answer FROM saga_barrier WHERE step = ? AND what = ?", (step, what)).fetchone()
            if by_what != what:
                raise Refused("the step was compensated before its action came")
            answer = json.loads(stored)
        db.execute("COMMIT")
        return answer
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def reserve(db, step, body):
    seats = body["seats"]
    if db.execute("UPDATE concert SET seats_left = seats_left - ? WHERE seats_left >= ?", (seats, seats)).rowcount == 0:
        raise Refused(f"there are no {seats} seats left")
    return {"reservation": db.execute("INSERT INTO reservation (step, seats) VALUES (?, ?)", (step, seats)).lastrowid}


def release(db, step, body):
    # It finds the reservation by the step: the saga does not know its number if the answer was lost.
    db.execute("UPDATE concert SET seats_left = seats_left + (SELECT seats FROM reservation WHERE step = ?)", (step,))
    db.execute("DELETE FROM reservation WHERE step = ?", (step,))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    file = ""
    effects = {"/reserve": reserve, "/reserve/undo": release}

    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        if len(body) < length:  # its caller died in the middle of it: it is no call
            self.close_connection = True
            return
        effect = self.effects.get(self.path)
        if not effect:
            return self.answer(404, {"error": "there is no " + self.path})
        db = sqlite3.connect(self.file, timeout=10, isolation_level=None)
        try:
            answer = once(db, self.headers.get("Idempotency-Key", ""), lambda db, step: effect(db, step, json.loads(body or b"{}")))
        except Refused as e:
            self.answer(409, {"error": str(e)})
        except Exception as e:  # nothing has happened, or nobody knows: it may come again
            self.answer(500, {"error": repr(e)})
        else:
            self.answer(200, answer)
        finally:
            db.close()

    def do_GET(self):
        db = sqlite3.connect(self.file, timeout=10)
        left, reservations = db.execute("SELECT seats_left, (SELECT COUNT(*) FROM reservation) FROM concert").fetchone()
        db.close()
        self.answer(200, {"seats_left": left, "reservations": reservations})

    def answer(self, status, value):
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def main():
    Handler.file = sys.argv[1]
    db = sqlite3.connect(Handler.file)
    db.executescript(SCHEMA)
    db.close()
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2]) if len(sys.argv) > 2 else 0), Handler)
    print(f"listens on {server.server_address[0]}:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
