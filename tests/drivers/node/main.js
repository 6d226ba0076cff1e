// A script of real use with node mysql2. Everything it needs to know is in the
// environment; it prints "passed" and exits 0, or throws.
'use strict';
const assert = require('node:assert');
const path = require('node:path');
const { createRequire } = require('node:module');
// The modules lie in the cache folder, not beside this file.
const load = createRequire(path.join(process.env.DRIVERS_NODE, 'x.js'));
const mysql = load('mysql2/promise');

const tls = process.env.DRIVER_TLS === '1';
const options = {
  host: '127.0.0.1',
  port: Number(process.env.DRIVER_PORT),
  user: process.env.DRIVER_USER,
  password: process.env.DRIVER_PASSWORD,
  database: 'shop',
  charset: 'utf8mb4',
  supportBigNumbers: true,
  bigNumberStrings: true,
  ssl: tls ? { rejectUnauthorized: false } : undefined,
};

async function statements(c) {
  if (tls) {
    const [rows] = await c.query("SHOW STATUS LIKE 'Ssl_cipher'");
    assert.ok(rows.length === 1);
  }
  const [insert] = await c.query('INSERT INTO node_items (name, price) VALUES (?, ?)', ['ä 🦀', '12.50']);
  assert.strictEqual(insert.affectedRows, 1);
  assert.ok(insert.insertId > 0);
  const [many] = await c.query('INSERT INTO node_items (name, price) VALUES ?', [[['b', 1], ['c', 2], ['d', 3]]]);
  assert.strictEqual(many.affectedRows, 3);
  assert.match(many.info, /Records: 3/);
  const [read] = await c.query('SELECT * FROM node_items WHERE id = ?', [insert.insertId]);
  assert.strictEqual(read[0].name, 'ä 🦀');
  assert.strictEqual(read[0].price, '12.50');
  const [update] = await c.query('UPDATE node_items SET price = price + 1 WHERE id = ?', [insert.insertId]);
  assert.strictEqual(update.affectedRows, 1);
  assert.strictEqual(update.changedRows, 1);
  const [remove] = await c.query("DELETE FROM node_items WHERE name = 'd'");
  assert.strictEqual(remove.affectedRows, 1);
}

async function prepared(c) {
  const when = new Date(Date.UTC(2024, 1, 29, 12, 30, 15));
  const blob = Buffer.alloc(3 << 20, 0xab);
  const sql = 'INSERT INTO node_types (id, big, d, at, bin, j) VALUES (?, ?, ?, ?, ?, ?)';
  await c.execute(sql, [1, '18446744073709551615', -1.5e10, when, blob, JSON.stringify({ k: [1, 'ü', null] })]);
  await c.execute(sql, [2, null, null, null, null, null]);
  const [rows, fields] = await c.execute('SELECT * FROM node_types WHERE id > ? ORDER BY id', [0]);
  assert.strictEqual(rows.length, 2);
  assert.strictEqual(fields.length, 6);
  assert.strictEqual(String(rows[0].big), '18446744073709551615');
  assert.ok(blob.equals(rows[0].bin));
  assert.strictEqual(rows[0].at.getTime(), when.getTime());
  assert.strictEqual(rows[1].bin, null);
  for (let i = 0; i < 20; i++) {
    await c.execute('INSERT INTO node_items (name, price) VALUES (?, ?)', [`p${i}`, i]);
  }
  const [counted] = await c.execute("SELECT COUNT(*) AS n FROM node_items WHERE name LIKE 'p%'");
  assert.strictEqual(Number(counted[0].n), 20);
  const statement = await c.prepare('UPDATE node_items SET price = ? WHERE name = ?');
  const [changed] = await statement.execute([99, 'p1']);
  assert.strictEqual(changed.affectedRows, 1);
  await statement.close();
}

async function transactions(c) {
  await c.beginTransaction();
  await c.query("INSERT INTO node_items (name, price) VALUES ('gone', 1)");
  await c.rollback();
  await c.beginTransaction();
  await c.query("INSERT INTO node_items (name, price) VALUES ('kept', 1)");
  await c.query('SAVEPOINT s');
  await c.query("UPDATE node_items SET price = 0 WHERE name = 'kept'");
  await c.query('ROLLBACK TO s');
  await c.commit();
  const [rows] = await c.query("SELECT name, price FROM node_items WHERE name IN ('gone', 'kept')");
  assert.deepStrictEqual(rows.map((r) => [r.name, r.price]), [['kept', '1.00']]);
}

async function errors(c) {
  await assert.rejects(c.query('INSERT INTO node_types (id) VALUES (1)'), { errno: 1062, sqlState: '23000' });
  await assert.rejects(c.query('SELEC'), { errno: 1064, sqlState: '42000' });
  await assert.rejects(c.execute('SELECT * FROM node_nowhere'), { errno: 1146 });
  await assert.rejects(mysql.createConnection({ ...options, password: 'wrong' }), { errno: 1045 });
  const [rows] = await c.query('SELECT 1 AS one');
  assert.strictEqual(Number(rows[0].one), 1);
  await c.ping();
}

async function pool() {
  const p = mysql.createPool({ ...options, connectionLimit: 4 });
  const work = Array.from({ length: 40 }, async (_, i) => {
    const c = await p.getConnection();
    try {
      await c.beginTransaction();
      await c.execute('INSERT INTO node_items (name, price) VALUES (?, ?)', [`w${i}`, i]);
      await c.query('UPDATE node_items SET price = price + 1 WHERE name = ?', [`w${i}`]);
      await (i % 4 ? c.commit() : c.rollback());
    } finally {
      c.release();
    }
  });
  await Promise.all(work);
  const [rows] = await p.query("SELECT COUNT(*) AS n FROM node_items WHERE name LIKE 'w%'");
  assert.strictEqual(Number(rows[0].n), 30);
  const c = await p.getConnection();
  if (c.changeUser) await c.changeUser({ user: options.user, password: options.password, database: 'shop' });
  const [again] = await c.query('SELECT DATABASE() AS d');
  assert.strictEqual(again[0].d, 'shop');
  c.release();
  await p.end();
}

async function main() {
  const c = await mysql.createConnection(options);
  for (const part of [statements, prepared, transactions, errors]) await part(c);
  await c.end();
  await pool();
  console.log('passed');
}

main().catch((e) => {
  console.error(e);
  process.exit(1);
});
