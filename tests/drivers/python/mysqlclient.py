"""A script of real use with mysqlclient (the C library of MariaDB). What it
observes is printed, to be compared with a direct connection's; the last line
is "passed", or it raises."""

import datetime
import decimal
import json
import os
import tempfile
import threading
import time
import warnings

import MySQLdb
import MySQLdb.cursors
from MySQLdb.constants import CLIENT

SIDE = os.environ["DRIVER_SIDE"]
OPTIONS = dict(
    host="127.0.0.1",
    port=int(os.environ["DRIVER_PORT"]),
    user=os.environ["DRIVER_USER"],
    password=os.environ["DRIVER_PASSWORD"],
    database=os.environ["DRIVER_DATABASE"],
    charset="utf8mb4",
    local_infile=1,
    ssl_mode="REQUIRED" if os.environ["DRIVER_TLS"] == "1" else "DISABLED",
)


def connect(**more):
    return MySQLdb.connect(**{**OPTIONS, **more})


def show(label, *values):
    print(label, *(repr(v) for v in values))


def refused(label, call):
    try:
        call()
    except MySQLdb.Error as e:
        show(label, type(e).__name__, *e.args)
    else:
        raise AssertionError(f"{label}: no error")


def statements(c):
    cur = c.cursor()
    cur.execute("INSERT INTO items (name, price) VALUES (%s, %s)", ("ä 🦀", "12.50"))
    show("insert", cur.rowcount, cur.lastrowid, c.insert_id())
    cur.executemany("INSERT INTO items (name, price) VALUES (%s, %s)", [(f"n{i}", i) for i in range(50)])
    show("many", cur.rowcount, c.info())
    cur.execute("SELECT id, name, price, note FROM items ORDER BY id LIMIT 3")
    show("rows", cur.fetchall(), cur.description)
    cur.execute("UPDATE items SET price = price WHERE id = 1")
    show("unchanged", cur.rowcount, c.info())
    cur.execute("UPDATE items SET note = %s WHERE name IN ('n1', 'n2')", ("ü",))
    show("updated", cur.rowcount, c.info())
    cur.execute("DELETE FROM items WHERE id = 10")
    show("deleted", cur.rowcount)
    cur.execute("REPLACE INTO accounts VALUES (1, 10), (2, 20)")
    cur.execute("REPLACE INTO accounts VALUES (1, 11)")
    show("replaced", cur.rowcount)
    cur.execute("INSERT INTO accounts VALUES (2, 5) ON DUPLICATE KEY UPDATE balance = balance + VALUES(balance)")
    show("upserted", cur.rowcount)
    cur.execute("SELECT * FROM accounts ORDER BY id")
    show("accounts", cur.fetchall())
    c.commit()


def types(c):
    blob = bytes(range(256)) * 4096
    when = datetime.datetime(2024, 2, 29, 12, 30, 15, 123456)
    long = datetime.timedelta(hours=-100, milliseconds=7)
    row = (1, -128, 2**64 - 1, decimal.Decimal("12345678901234567890.0123456789"), -1.5e10, when.date(), long, when,
           when, 2155, "日本語 🦀 '\\ \x00", "x" * 70000, blob, b"\x01\xff", "big", json.dumps({"k": [1, "ü", None]}))
    cur = c.cursor(MySQLdb.cursors.DictCursor)
    cur.execute("SET time_zone = '+02:00'")
    marks = ", ".join(["%s"] * 12 + ["_binary %s"] + ["%s"] * 3)
    cur.execute(f"INSERT INTO types VALUES ({marks})", row)
    cur.execute("INSERT INTO types (id) VALUES (2)")
    c.commit()
    cur.execute("SELECT * FROM types ORDER BY id")
    one, two = cur.fetchall()
    assert one.pop("bin") == blob and len(one.pop("txt")) == 70000
    one["j"] = json.loads(one["j"])
    show("types", one, two)
    streamed = c.cursor(MySQLdb.cursors.SSCursor)
    streamed.execute("SELECT a.id, b.name FROM items a JOIN items b ORDER BY a.id, b.id")
    show("streamed", streamed.fetchmany(3), sum(1 for _ in streamed))
    streamed.close()


def transactions(c):
    cur = c.cursor()
    cur.execute("INSERT INTO accounts VALUES (3, 1)")
    c.rollback()
    c.begin()
    cur.execute("INSERT INTO accounts VALUES (4, 1)")
    cur.execute("SAVEPOINT s")
    cur.execute("UPDATE accounts SET balance = 0 WHERE id = 4")
    cur.execute("ROLLBACK TO s")
    c.commit()
    c.autocommit(True)
    cur.execute("UPDATE accounts SET balance = balance + 1 WHERE id = 4")
    c.autocommit(False)
    cur.execute("SELECT * FROM accounts WHERE id IN (3, 4)")
    show("transactions", cur.fetchall(), c.get_autocommit())
    c.rollback()


def procedures(c):
    cur = c.cursor()
    cur.execute(f"CALL {SIDE}.two_sets(7)")
    show("first", cur.fetchall(), cur.description)
    while cur.nextset():
        show("next", cur.rowcount, cur.fetchall())
    cur.execute(f"SELECT 1; INSERT INTO {SIDE}.loaded VALUES (-5, 'x', 5); SELECT n FROM {SIDE}.loaded WHERE id = -5")
    show("multi", cur.fetchall())
    while cur.nextset():
        show("multi next", cur.rowcount, cur.fetchall())
    cur.close()
    c.commit()


def errors(c):
    cur = c.cursor()
    refused("duplicate", lambda: cur.execute("INSERT INTO types (id) VALUES (1)"))
    refused("syntax", lambda: cur.execute("SELEC"))
    refused("no column", lambda: cur.execute("UPDATE items SET nothing = 1 WHERE id = 1"))
    refused("too long", lambda: cur.execute("INSERT INTO items (name) VALUES (REPEAT('x', 61))"))
    c.rollback()
    cur.execute("SET sql_mode = ''")
    cur.execute("INSERT INTO items (id, name, price) VALUES (900, 'w', 1.239)")
    show("warnings", c.warning_count(), c.show_warnings())
    cur.execute("SHOW COUNT(*) WARNINGS")
    show("count", cur.fetchall())
    c.commit()
    refused("password", lambda: connect(password="wrong"))
    refused("database", lambda: connect(database="nowhere"))


def modes():
    found = connect(client_flag=CLIENT.FOUND_ROWS, autocommit=True)
    cur = found.cursor()
    cur.execute("UPDATE accounts SET balance = balance WHERE id IN (1, 2)")
    show("found rows", cur.rowcount, found.info())
    found.close()
    latin = connect(charset="latin1", autocommit=True)
    cur = latin.cursor()
    cur.execute("INSERT INTO items (id, name) VALUES (901, %s)", ("grün",))
    cur.execute("SELECT name, HEX(name) FROM items WHERE id = 901")
    show("latin1", cur.fetchall(), latin.character_set_name())
    latin.set_character_set("utf8mb4")
    cur.execute("SELECT name, @@character_set_client, @@collation_connection FROM items WHERE id = 901")
    show("switched", cur.fetchall())
    latin.change_user(OPTIONS["user"], OPTIONS["password"], SIDE)
    cur.execute("SELECT DATABASE(), @@autocommit")
    show("changed user", cur.fetchall())
    latin.select_db(OPTIONS["database"])
    latin.ping()
    cur.execute("SELECT COUNT(*) FROM accounts")
    show("database", cur.fetchall())
    latin.close()


def load(c):
    with tempfile.NamedTemporaryFile("w", suffix=".csv") as f:
        f.writelines(f"{i},name {i},{i / 4}\n" for i in range(2000))
        f.flush()
        cur = c.cursor()
        cur.execute(f"LOAD DATA LOCAL INFILE '{f.name}' INTO TABLE {SIDE}.loaded FIELDS TERMINATED BY ','")
        show("loaded", cur.rowcount, c.info())
    c.commit()
    refused("no file", lambda: cur.execute(f"LOAD DATA LOCAL INFILE '/nowhere/x' INTO TABLE {SIDE}.loaded"))
    cur.execute(f"SELECT COUNT(*), SUM(n) FROM {SIDE}.loaded")
    show("after", cur.fetchall())
    c.rollback()


def kill(c):
    killer = connect(autocommit=True)
    timer = threading.Timer(0.2, lambda: killer.query(f"KILL QUERY {c.thread_id()}"))
    timer.start()
    cur = c.cursor()
    started = time.monotonic()
    try:
        cur.execute("SELECT SLEEP(20)")
        show("interrupted", cur.fetchall())
    except MySQLdb.Error as e:
        show("interrupted", *e.args)
    assert time.monotonic() - started < 15
    timer.join()
    cur.execute("SELECT 1")
    show("after kill", cur.fetchall())
    killer.kill(c.thread_id())
    try:
        for _ in range(100):
            cur.execute("SELECT 1")
            time.sleep(0.02)
        raise AssertionError("not killed")
    except MySQLdb.Error as e:
        assert e.args[0] in (1053, 1927, 2006, 2013, 2026, 4031), e
    killer.close()


def several():
    """Transfers between accounts by several threads: the sum stays."""
    c = connect(autocommit=True)
    c.cursor().executemany("INSERT INTO accounts VALUES (%s, 100)", [(i,) for i in range(100, 104)])
    failures = []

    def work(n):
        try:
            own = connect()
            cur = own.cursor()
            for i in range(20):
                first, second = sorted([100 + n, 100 + (n + 1 + i % 3) % 4])
                cur.execute("SELECT balance FROM accounts WHERE id IN (%s, %s) ORDER BY id FOR UPDATE", (first, second))
                cur.fetchall()
                cur.execute("UPDATE accounts SET balance = balance - 1 WHERE id = %s", (first,))
                cur.execute("UPDATE accounts SET balance = balance + 1 WHERE id = %s", (second,))
                own.commit() if i % 4 else own.rollback()
            own.close()
        except Exception as e:
            failures.append(e)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not failures, failures
    cur = c.cursor()
    cur.execute("SELECT SUM(balance) FROM accounts WHERE id >= 100")
    show("sum", cur.fetchall())
    c.close()


def main():
    warnings.simplefilter("ignore")
    c = connect()
    for part in (statements, types, transactions, procedures, errors):
        part(c)
    modes()
    load(c)
    several()
    kill(c)
    print("passed")


main()
