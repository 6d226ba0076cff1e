// A service on mysql2's pools: promise pool, callback pool and pool cluster, as
// web servers use them. What it observes is printed, to be compared with a
// direct connection's; the last line is "passed", or it exits with 1.
'use strict';
const assert = require('node:assert');
const path = require('node:path');
const { createRequire } = require('node:module');
// The modules lie in the cache folder, not beside this file.
const load = createRequire(path.join(process.env.DRIVERS_NODE, 'x.js'));
const mysql = load('mysql2/promise');
const callbacks = load('mysql2');

const side = process.env.DRIVER_SIDE;
const options = {
  host: '127.0.0.1',
  port: Number(process.env.DRIVER_PORT),
  user: process.env.DRIVER_USER,
  password: process.env.DRIVER_PASSWORD,
  database: process.env.DRIVER_DATABASE,
  charset: 'utf8mb4',
  supportBigNumbers: true,
  bigNumberStrings: true,
  dateStrings: true,
  connectionLimit: 4,
  ssl: process.env.DRIVER_TLS === '1' ? { rejectUnauthorized: false } : undefined,
};
const show = (label, ...values) => console.log(label, JSON.stringify(values));
const refused = (label, promise) =>
  promise.then(
    () => assert.fail(`${label}: no error`),
    (e) => show(label, e.errno, e.code, e.sqlState, e.sqlMessage),
  );

async function transaction(pool, work) {
  const c = await pool.getConnection();
  try {
    await c.beginTransaction();
    const result = await work(c);
    await c.commit();
    return result;
  } catch (e) {
    await c.rollback();
    throw e;
  } finally {
    c.release();
  }
}

// Forty transfers at once over four connections; every fourth is given up.
async function transfers(pool) {
  const rows = Array.from({ length: 8 }, (_, i) => [i + 1, 100]);
  await pool.query('INSERT INTO accounts (id, balance) VALUES ?', [rows]);
  const one = (i) =>
    transaction(pool, async (c) => {
      const [from, to] = [1 + (i % 8), 1 + ((i + 3) % 8)];
      const [first, second] = from < to ? [from, to] : [to, from];
      await c.execute('SELECT balance FROM accounts WHERE id IN (?, ?) ORDER BY id FOR UPDATE', [first, second]);
      await c.execute('UPDATE accounts SET balance = balance - 5 WHERE id = ?', [from]);
      if (i % 4 === 0) throw new Error('given up');
      await c.execute('UPDATE accounts SET balance = balance + 5 WHERE id = ?', [to]);
    });
  const done = await Promise.allSettled(Array.from({ length: 40 }, (_, i) => one(i)));
  const failed = done.filter((d) => d.status === 'rejected').map((d) => d.reason.message);
  show('transfers', failed.length, [...new Set(failed)]);
  const [[sum]] = await pool.query('SELECT SUM(balance) AS s, COUNT(*) AS n FROM accounts');
  show('sum', sum);
}

async function prepared(pool) {
  const blob = Buffer.alloc(1 << 20, 0xab);
  const row = [1, -128, '18446744073709551615', '12345678901234567890.0123456789', -1.5e10, '2024-02-29', '-100:00:00.007',
    '2024-02-29 12:30:15.123456', '2024-02-29 12:30:15.5', 2155, "日本語 🦀 '\\ \0", 'x'.repeat(70000), blob, 'big',
    JSON.stringify({ k: [1, 'ü', null] })];
  const columns = 'id, tiny, big, dec30, d, day, t, at, ts, y, s, txt, bin, e, j';
  const sql = `INSERT INTO types (${columns}) VALUES (${row.map(() => '?').join(', ')})`;
  await pool.execute(sql, row);
  await pool.execute(sql, [2, ...Array(row.length - 1).fill(null)]);
  const [rows, fields] = await pool.execute(`SELECT ${columns} FROM types WHERE id > ? ORDER BY id`, [0]);
  assert.ok(blob.equals(rows[0].bin));
  Object.assign(rows[0], { bin: rows[0].bin.length, txt: rows[0].txt.length });
  rows[0].j = typeof rows[0].j === 'string' ? JSON.parse(rows[0].j) : rows[0].j;
  show('types', rows, fields.map((f) => [f.name, f.columnType, f.flags]));
  // The same text on every connection of the pool, several times each.
  const insert = (i) => pool.execute('INSERT INTO items (name, price) VALUES (?, ?)', [`p${i}`, i]);
  const answers = await Promise.all(Array.from({ length: 40 }, (_, i) => insert(i)));
  const ids = new Set(answers.map(([a]) => a.insertId));
  show('inserts', ids.size, answers.every(([a]) => a.affectedRows === 1));
  const [[again]] = await pool.execute('SELECT COUNT(*) AS n, SUM(price) AS s FROM items WHERE name LIKE ?', ['p%']);
  show('inserted', again);
  const c = await pool.getConnection();
  c.unprepare('SELECT COUNT(*) AS n, SUM(price) AS s FROM items WHERE name LIKE ?');
  c.release();
}

async function several(pool) {
  const c = await mysql.createConnection({ ...options, multipleStatements: true, flags: ['-FOUND_ROWS'] });
  const [sets] = await c.query(`SELECT 1 AS a; UPDATE items SET price = price WHERE name = 'p1'; CALL ${side}.two_sets(7)`);
  show('sets', sets);
  const [called] = await c.execute(`CALL ${side}.two_sets(?)`, [3]);
  show('called', called);
  await c.query('SET @b = 0, @c = 4');
  await c.query(`CALL ${side}.outs(2, @b, @c)`);
  show('outs', (await c.query('SELECT @b, @c'))[0]);
  // Without found rows, which this driver asks for unless told otherwise.
  show('changed', (await c.query("UPDATE items SET price = price WHERE name = 'p1'"))[0].affectedRows);
  show('found', (await pool.query("UPDATE items SET price = price WHERE name = 'p1'"))[0].affectedRows);
  await c.changeUser({ user: options.user, password: options.password, database: side, charset: 'latin1' });
  show('changed user', (await c.query('SELECT DATABASE() = ? AS d, @b, @@character_set_client AS cs', [side]))[0]);
  await c.end();
}

async function streams(pool) {
  const plain = callbacks.createPool({ ...options, waitForConnections: true, queueLimit: 0 });
  const rows = plain.query('SELECT a.name FROM items a, items b ORDER BY a.id, b.id').stream({ highWaterMark: 5 });
  let count = 0;
  for await (const row of rows) count += row.name.length > 0 ? 1 : 0;
  show('streamed', count);
  const csv = Array.from({ length: 3000 }, (_, i) => `${i},name ${i},${i / 4}\n`).join('');
  const sql = `LOAD DATA LOCAL INFILE 'x.csv' INTO TABLE ${side}.loaded FIELDS TERMINATED BY ','`;
  const { Readable } = require('node:stream');
  const infileStreamFactory = () => Readable.from([csv.slice(0, 1000), csv.slice(1000)].map((s) => Buffer.from(s)));
  const [loaded] = await pool.query({ sql, infileStreamFactory });
  show('loaded', loaded.affectedRows, loaded.info);
  await new Promise((done) => plain.end(done));
}

async function errors(pool) {
  await refused('duplicate', pool.execute('INSERT INTO types (id) VALUES (?)', [1]));
  await refused('syntax', pool.query('SELEC'));
  await refused('prepare', pool.execute('SELECT nothing FROM items'));
  await refused('password', mysql.createConnection({ ...options, password: 'wrong' }));
  await refused('database', mysql.createConnection({ ...options, database: 'nowhere' }));
  // The driver stops waiting; the connection is of use again after the answer.
  await pool.query({ sql: 'SELECT SLEEP(1)', timeout: 150 }).then(
    () => assert.fail('no timeout'),
    (e) => show('timeout', e.code),
  );
  const [a, b] = [await pool.getConnection(), await pool.getConnection()];
  const asleep = a.query('SELECT SLEEP(20) AS s').then(([r]) => r, (e) => e.errno);
  await new Promise((go) => setTimeout(go, 200));
  await b.query(`KILL QUERY ${a.threadId}`);
  show('killed', await asleep, (await a.query('SELECT 1 AS one'))[0]);
  // A killed connection is replaced by the pool.
  await b.query(`KILL ${a.threadId}`).catch(() => {});
  await a.query('SELECT 1').then(() => a.query('SELECT 2')).catch((e) => assert.ok(e.fatal ?? true, e));
  a.destroy();
  b.release();
  show('after', (await pool.query('SELECT COUNT(*) AS n FROM types'))[0]);
}

async function cluster() {
  const nodes = callbacks.createPoolCluster({ restoreNodeTimeout: 100 });
  nodes.add('ONE', options);
  nodes.add('TWO', options);
  const of = nodes.of('*', 'RR');
  const write = (i) =>
    new Promise((done, failed) => {
      of.query('INSERT INTO items (name, price) VALUES (?, ?)', [`c${i}`, i], (e) => (e ? failed(e) : done()));
    });
  for (let i = 0; i < 10; i++) await write(i);
  await new Promise((done) => nodes.end(done));
}

async function main() {
  const pool = mysql.createPool({ ...options, maxIdle: 2, idleTimeout: 200, enableKeepAlive: true });
  for (const part of [transfers, prepared, several, streams, errors]) await part(pool);
  await cluster();
  // Idle connections beyond two are closed by the pool meanwhile.
  await new Promise((go) => setTimeout(go, 400));
  const [[n]] = await pool.query("SELECT COUNT(*) AS n FROM items WHERE name LIKE 'c%'");
  show('cluster', n);
  await pool.end();
  console.log('passed');
}

main().catch((e) => {
  console.error(e);
  process.exit(1);
});
