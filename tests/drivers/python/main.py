"""A script of real use with PyMySQL. Everything it needs to know is in the
environment; it prints "passed" and exits 0, or raises."""

import datetime
import decimal
import json
import os
import threading

import pymysql
import pymysql.cursors

TLS = os.environ["DRIVER_TLS"] == "1"
OPTIONS = dict(
    host="127.0.0.1",
    port=int(os.environ["DRIVER_PORT"]),
    user=os.environ["DRIVER_USER"],
    password=os.environ["DRIVER_PASSWORD"],
    database="shop",
    charset="utf8mb4",
)
if TLS:
    OPTIONS["ssl"] = {"check_hostname": False, "verify_mode": "none"}


def connect(**more):
    return pymysql.connect(**{**OPTIONS, **more})


def refused(code, call):
    try:
        call()
    except pymysql.MySQLError as e:
        assert e.args[0] == code, e
        return
    raise AssertionError(f"no error {code}")


def statements(c):
    with c.cursor() as cur:
        cur.execute("INSERT INTO python_items (name, price) VALUES (%s, %s)", ("ä 🦀", "12.50"))
        assert cur.rowcount == 1 and cur.lastrowid > 0
        first = cur.lastrowid
        cur.executemany("INSERT INTO python_items (name, price) VALUES (%s, %s)", [("b", 1), ("c", 2), ("d", 3)])
        assert cur.rowcount == 3
        cur.execute("SELECT name, price FROM python_items WHERE id = %s", (first,))
        assert cur.fetchall() == (("ä 🦀", decimal.Decimal("12.50")),)
        assert [d[0] for d in cur.description] == ["name", "price"]
        cur.execute("UPDATE python_items SET price = price WHERE id = %s", (first,))
        # Changed rows: PyMySQL does not ask for matched ones.
        assert cur.rowcount == 0, cur.rowcount
        cur.execute("DELETE FROM python_items WHERE name = 'd'")
        assert cur.rowcount == 1
    c.commit()


def types(c):
    blob = os.urandom(1 << 20) * 3
    when = datetime.datetime(2024, 2, 29, 12, 30, 15, 123456)
    values = (1, 2**64 - 1, -1.5e10, when, blob, json.dumps({"k": [1, "ü", None]}))
    with c.cursor(pymysql.cursors.DictCursor) as cur:
        sql = "INSERT INTO python_types (id, big, d, at, bin, j) VALUES (%s, %s, %s, %s, _binary %s, %s)"
        cur.execute(sql, values)
        cur.execute("INSERT INTO python_types (id) VALUES (2)")
        c.commit()
        cur.execute("SELECT * FROM python_types ORDER BY id")
        one, two = cur.fetchall()
        assert one["big"] == 2**64 - 1 and one["d"] == -1.5e10 and one["at"] == when
        assert one["bin"] == blob and json.loads(one["j"]) == {"k": [1, "ü", None]}
        assert all(two[k] is None for k in ("big", "d", "at", "bin", "j"))
    # Rows fetched as they come.
    with c.cursor(pymysql.cursors.SSCursor) as cur:
        cur.execute("SELECT a.id, b.id FROM python_items a, python_items b, python_items d")
        assert sum(1 for _ in cur) == 27


def transactions(c):
    with c.cursor() as cur:
        cur.execute("INSERT INTO python_items (name, price) VALUES ('gone', 1)")
        c.rollback()
        c.begin()
        cur.execute("INSERT INTO python_items (name, price) VALUES ('kept', 1)")
        cur.execute("SAVEPOINT s")
        cur.execute("UPDATE python_items SET price = 0 WHERE name = 'kept'")
        cur.execute("ROLLBACK TO s")
        c.commit()
        cur.execute("SELECT name, price FROM python_items WHERE name IN ('gone', 'kept')")
        assert cur.fetchall() == (("kept", decimal.Decimal("1.00")),)


def errors(c):
    with c.cursor() as cur:
        refused(1062, lambda: cur.execute("INSERT INTO python_types (id) VALUES (1)"))
        refused(1064, lambda: cur.execute("SELEC"))
        refused(1146, lambda: cur.execute("SELECT * FROM python_nowhere"))
        refused(1045, lambda: connect(password="wrong"))
        refused(1044, lambda: connect(database="mysql")) if os.environ["DRIVER_SOURCE"] == "mariadb" else None
        # What the proxy cannot read makes it leave the transaction's rest to
        # the follower.
        c.rollback()
        cur.execute("SET sql_mode = ''")
        cur.execute("INSERT INTO python_items (name, price) VALUES ('w', 1.239)")
        cur.execute("SHOW WARNINGS")
        assert cur.fetchall()[0][1] == 1265
        c.commit()
    c.ping(reconnect=False)
    # The id in the greeting is what KILL takes.
    killer = connect(autocommit=True)
    killed = threading.Timer(0.3, lambda: killer.query(f"KILL QUERY {c.thread_id()}"))
    killed.start()
    with c.cursor() as cur:
        try:
            cur.execute("SELECT SLEEP(10)")
            assert cur.fetchone() == (1,)
        except pymysql.MySQLError as e:
            assert e.args[0] in (1317, 1969), e
        killed.join()
        cur.execute("SELECT 1")
        assert cur.fetchone() == (1,)
    killer.close()
    c.rollback()


def several():
    failures = []

    def work(n):
        try:
            with connect() as c, c.cursor() as cur:
                for i in range(10):
                    cur.execute("INSERT INTO python_items (name, price) VALUES (%s, %s)", (f"w{n}-{i}", i))
                    cur.execute("UPDATE python_items SET price = price + 1 WHERE id = %s", (cur.lastrowid,))
                    c.commit() if i % 2 else c.rollback()
        except Exception as e:
            failures.append(e)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not failures, failures
    with connect() as c, c.cursor() as cur:
        cur.execute("SELECT COUNT(*) FROM python_items WHERE name LIKE 'w%-%'")
        assert cur.fetchone() == (30,)


def main():
    c = connect()
    for part in (statements, types, transactions, errors):
        part(c)
    c.close()
    several()
    print("passed")


main()
