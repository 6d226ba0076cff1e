"""A script of real use with mysql-connector-python, first in Python alone and
then with its C extension. What it observes is printed, to be compared with a
direct connection's; the last line is "passed", or it raises."""

import datetime
import decimal
import json
import os
import tempfile
import threading
import warnings

import mysql.connector
from mysql.connector import pooling
from mysql.connector.constants import ClientFlag

SIDE = os.environ["DRIVER_SIDE"]
OPTIONS = dict(
    host="127.0.0.1",
    port=int(os.environ["DRIVER_PORT"]),
    user=os.environ["DRIVER_USER"],
    password=os.environ["DRIVER_PASSWORD"],
    database=os.environ["DRIVER_DATABASE"],
    # Its own default collation is one that MariaDB does not have.
    collation="utf8mb4_general_ci",
    allow_local_infile=True,
    ssl_disabled=os.environ["DRIVER_TLS"] != "1",
)
# Ids of this pass begin here, so that both can use the same tables.
base = 0


def connect(**more):
    return mysql.connector.connect(**{**OPTIONS, **more})


def show(label, *values):
    print(label, *(repr(v) for v in values))


def refused(label, call):
    try:
        call()
    except mysql.connector.Error as e:
        show(label, type(e).__name__, e.errno, e.sqlstate, e.msg)
    else:
        raise AssertionError(f"{label}: no error")


def statements(c):
    cur = c.cursor()
    cur.execute("INSERT INTO items (name, price) VALUES (%s, %s)", ("ä 🦀", "12.50"))
    assert cur.lastrowid > 0
    show("insert", cur.rowcount)
    cur.executemany("INSERT INTO items (name, price) VALUES (%s, %s)", [(f"n{base + i}", i) for i in range(30)])
    show("many", cur.rowcount)
    cur.execute("SELECT name, price, note FROM items WHERE name = %s", (f"n{base + 3}",))
    show("rows", cur.fetchall(), cur.description)
    named = c.cursor(dictionary=True, buffered=True)
    named.execute("SELECT COUNT(*) AS n, SUM(price) AS s FROM items WHERE name LIKE 'n%'")
    show("dictionary", named.fetchall())
    cur.execute("INSERT INTO accounts VALUES (%s, 10) ON DUPLICATE KEY UPDATE balance = balance + 1", (base + 1,))
    cur.execute("INSERT INTO accounts VALUES (%s, 10) ON DUPLICATE KEY UPDATE balance = balance + 1", (base + 1,))
    show("upserted", cur.rowcount)
    c.commit()


def prepared(c):
    when = datetime.datetime(2024, 2, 29, 12, 30, 15, 123456)
    blob = bytes(range(256)) * 1000
    cur = c.cursor(prepared=True)
    insert = "INSERT INTO types (id, tiny, big, dec30, d, day, t, at, s, bin, j) VALUES (%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s)"
    # The C extension binds no more than a signed number, and times wrongly.
    big = 2**64 - 1 if OPTIONS["use_pure"] else 2**63 - 1
    long = datetime.timedelta(hours=30, milliseconds=7) if OPTIONS["use_pure"] else "30:00:00.007"
    rows = [
        (base + 1, -1, big, decimal.Decimal("1.5"), -1.5e10, when.date(), long, when, "日本語 🦀", blob, "[1]"),
        (base + 2, *[None] * 10),
    ]
    for row in rows:
        cur.execute(insert, row)
        show("prepared insert", cur.rowcount)
    c.commit()
    select = "SELECT * FROM types WHERE id > %s AND id < %s ORDER BY id"
    cur.execute(select, (base, base + 10))
    for row in cur.fetchall():
        row = list(row)
        if row[12] is not None:
            assert bytes(row[12]) == blob
            row[12] = len(row[12])
            row[15] = json.loads(row[15])
        show("prepared row", row)
    update = c.cursor(prepared=True)
    for i in range(5):
        update.execute("UPDATE items SET price = price + ? WHERE name = ?", (i, f"n{base + 2}"))
    c.commit()
    cur.execute("SELECT price FROM items WHERE name = %s", (f"n{base + 2}",))
    show("prepared updates", cur.fetchall())
    cur.close()
    update.close()


def procedures(c):
    cur = c.cursor()
    show("outs", cur.callproc(f"{SIDE}.outs", (3, 0, 10)))
    cur.callproc(f"{SIDE}.two_sets", (7,))
    for result in cur.stored_results():
        show("set", result.fetchall())
    cur.execute("SELECT 1; SELECT 'zwei', NULL")
    show("multi", cur.fetchall())
    while cur.nextset():
        show("multi next", cur.fetchall())
    c.commit()


def errors(c):
    cur = c.cursor()
    refused("duplicate", lambda: cur.execute(f"INSERT INTO types (id) VALUES ({base + 1})"))
    refused("syntax", lambda: cur.execute("SELEC"))
    refused("no table", lambda: cur.execute("SELECT * FROM nothing_here"))
    c.rollback()
    c.get_warnings = True
    cur.execute("SET sql_mode = ''")
    cur.execute(f"INSERT INTO items (id, name, price) VALUES ({base + 900}, 'w', 1.239)")
    show("warnings", cur.warning_count, cur.warnings)
    c.get_warnings = False
    c.commit()
    refused("password", lambda: connect(password="wrong"))
    refused("database", lambda: connect(database="nowhere"))


def modes(c):
    for flag in (ClientFlag.FOUND_ROWS, -ClientFlag.FOUND_ROWS):
        with connect(client_flags=[flag], autocommit=True) as own:
            cur = own.cursor()
            cur.execute(f"UPDATE accounts SET balance = balance WHERE id = {base + 1}")
            show("found rows", flag > 0, cur.rowcount)
    c.start_transaction(isolation_level="SERIALIZABLE")
    cur = c.cursor()
    cur.execute(f"INSERT INTO accounts VALUES ({base + 2}, 1)")
    show("in transaction", c.in_transaction)
    c.rollback()
    # start_transaction(readonly=True) takes MariaDB for a MySQL 5.5.
    cur.execute("START TRANSACTION READ ONLY")
    refused("read only", lambda: cur.execute(f"INSERT INTO accounts VALUES ({base + 2}, 1)"))
    c.rollback()
    cur.execute("SET @kept = 5")
    c.cmd_reset_connection()
    cur.execute("SELECT @kept, DATABASE() = %s", (OPTIONS["database"],))
    show("reset", cur.fetchall())
    c.cmd_change_user(OPTIONS["user"], OPTIONS["password"], SIDE)
    cur.execute("SELECT DATABASE() = %s", (SIDE,))
    show("changed user", cur.fetchall())
    c.database = OPTIONS["database"]
    c.ping()
    c.set_charset_collation("latin1")
    cur.execute("SELECT @@character_set_client, @@character_set_results, 'grün'")
    show("latin1", cur.fetchall())
    c.rollback()


def load(c):
    with tempfile.NamedTemporaryFile("w", suffix=".csv") as f:
        f.writelines(f"{base + i},name {i},{i / 4}\n" for i in range(500))
        f.flush()
        cur = c.cursor()
        cur.execute(f"LOAD DATA LOCAL INFILE '{f.name}' INTO TABLE {SIDE}.loaded FIELDS TERMINATED BY ','")
        show("loaded", cur.rowcount)
    c.commit()


def pool():
    """A pool resets each connection that is given back."""
    own = pooling.MySQLConnectionPool(pool_name=f"p{base}", pool_size=3, **OPTIONS)
    failures = []

    def work(n):
        try:
            for i in range(6):
                # A pool of three for three threads.
                c = own.get_connection()
                cur = c.cursor()
                cur.execute("SELECT @mine")
                assert cur.fetchall() == [(None,)]
                cur.execute("SET @mine = 1")
                cur.execute("INSERT INTO items (name, price) VALUES (%s, %s)", (f"p{base}-{n}-{i}", i))
                cur.execute("UPDATE items SET price = price + 1 WHERE id = %s", (cur.lastrowid,))
                c.commit() if i % 2 else c.rollback()
                cur.close()
                c.close()
        except Exception as e:
            failures.append(e)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not failures, failures
    with connect() as c:
        cur = c.cursor()
        cur.execute("SELECT COUNT(*), SUM(price) FROM items WHERE name LIKE %s", (f"p{base}-%",))
        show("pool", cur.fetchall())


def main():
    global base
    warnings.simplefilter("ignore")
    for pure in (True, False):
        OPTIONS["use_pure"] = pure
        c = connect()
        for part in (statements, prepared, procedures, errors, modes):
            part(c)
        c.close()
        c = connect()
        load(c)
        c.close()
        pool()
        base += 10000
    print("passed")


main()
