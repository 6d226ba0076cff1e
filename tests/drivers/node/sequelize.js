// A shop on Sequelize: migrations run by umzug, up, partly down and up again,
// then a small application on a pool. What it observes is printed, to be
// compared with a direct connection's; the last line is "passed", or it exits
// with 1.
'use strict';
const assert = require('node:assert');
const path = require('node:path');
const { createRequire } = require('node:module');
// The modules lie in the cache folder, not beside this file.
const load = createRequire(path.join(process.env.DRIVERS_NODE, 'x.js'));
const { Sequelize, DataTypes, Op, UniqueConstraintError } = load('sequelize');
const { Umzug, SequelizeStorage } = load('umzug');

const tls = process.env.DRIVER_TLS === '1';
const sequelize = new Sequelize(process.env.DRIVER_DATABASE, process.env.DRIVER_USER, process.env.DRIVER_PASSWORD, {
  dialect: 'mysql',
  dialectModule: load('mysql2'),
  host: '127.0.0.1',
  port: Number(process.env.DRIVER_PORT),
  logging: false,
  timezone: '+02:00',
  pool: { max: 4, min: 0, idle: 1000 },
  define: { charset: 'utf8mb4', underscored: true },
  dialectOptions: { ssl: tls ? { rejectUnauthorized: false } : undefined, supportBigNumbers: true, bigNumberStrings: true },
});
const show = (label, ...values) => console.log(label, JSON.stringify(values));

// --- migrations --------------------------------------------------------------

const key = { type: DataTypes.INTEGER, primaryKey: true, autoIncrement: true };
const times = { created_at: { type: DataTypes.DATE(6), allowNull: false }, updated_at: { type: DataTypes.DATE(6), allowNull: false } };

const migrations = [
  {
    name: '01-authors',
    up: ({ context: q }) => q.createTable('authors', { id: key, name: { type: DataTypes.STRING(80), allowNull: false }, ...times }),
    down: ({ context: q }) => q.dropTable('authors'),
  },
  {
    name: '02-books',
    async up({ context: q }) {
      await q.createTable('books', {
        id: key,
        title: { type: DataTypes.STRING(120), allowNull: false },
        price: { type: DataTypes.DECIMAL(9, 2), defaultValue: 0 },
        author_id: { type: DataTypes.INTEGER, references: { model: 'authors', key: 'id' }, onDelete: 'RESTRICT' },
        ...times,
      });
      await q.addIndex('books', ['title'], { name: 'books_title' });
      const now = new Date(Date.UTC(2024, 1, 29));
      await q.bulkInsert('authors', Array.from({ length: 5 }, (_, i) => ({ name: `Autor ${i} 🦀`, created_at: now, updated_at: now })));
    },
    down: ({ context: q }) => q.dropTable('books'),
  },
  {
    name: '03-more',
    async up({ context: q }) {
      await q.addColumn('books', 'isbn', { type: DataTypes.STRING(20), unique: true });
      await q.addColumn('books', 'details', { type: DataTypes.JSON });
      await q.addColumn('books', 'cover', { type: DataTypes.BLOB('long') });
      await q.addColumn('books', 'sold', { type: DataTypes.BIGINT.UNSIGNED, defaultValue: 0, allowNull: false });
      await q.addColumn('books', 'kind', { type: DataTypes.ENUM('paper', 'file'), defaultValue: 'paper' });
      await q.changeColumn('books', 'title', { type: DataTypes.STRING(200), allowNull: false });
      await q.renameColumn('authors', 'name', 'full_name');
      await q.addConstraint('books', { fields: ['price'], type: 'check', name: 'price_positive', where: { price: { [Op.gte]: 0 } } });
    },
    async down({ context: q }) {
      // removeConstraint takes every constraint of MySQL for an index.
      await q.sequelize.query('ALTER TABLE books DROP CONSTRAINT price_positive');
      await q.renameColumn('authors', 'full_name', 'name');
      for (const column of ['kind', 'sold', 'cover', 'details', 'isbn']) await q.removeColumn('books', column);
    },
  },
];

async function migrate() {
  const umzug = new Umzug({
    migrations,
    context: sequelize.getQueryInterface(),
    storage: new SequelizeStorage({ sequelize, tableName: 'migrations' }),
    logger: undefined,
  });
  show('up', (await umzug.up()).map((m) => m.name));
  show('down', (await umzug.down({ to: '03-more' })).map((m) => m.name));
  show('again', (await umzug.up()).map((m) => m.name), (await umzug.pending()).length);
  const described = await sequelize.getQueryInterface().describeTable('books');
  show('books', Object.entries(described).map(([name, c]) => [name, c.type, c.allowNull, c.defaultValue]));
}

// --- the application ---------------------------------------------------------

const Author = sequelize.define('author', { fullName: DataTypes.STRING(80), createdAt: DataTypes.DATE(6), updatedAt: DataTypes.DATE(6) });
const Book = sequelize.define('book', {
  title: { type: DataTypes.STRING(200), allowNull: false },
  price: DataTypes.DECIMAL(9, 2),
  isbn: DataTypes.STRING(20),
  details: DataTypes.JSON,
  cover: DataTypes.BLOB('long'),
  sold: DataTypes.BIGINT.UNSIGNED,
  kind: DataTypes.ENUM('paper', 'file'),
  createdAt: DataTypes.DATE(6),
  updatedAt: DataTypes.DATE(6),
});
Book.belongsTo(Author);
Author.hasMany(Book);

async function shelves() {
  const authors = await Author.findAll({ order: ['id'] });
  show('authors', authors.map((a) => a.fullName));
  const cover = Buffer.alloc(100_000, 7);
  const rows = Array.from({ length: 20 }, (_, i) => ({
    title: `Titel ${i}`, price: i, isbn: `isbn-${i}`, authorId: authors[i % 5].id, details: { größe: i, deep: [null, '🦀'] }, cover,
    sold: '18446744073709551600',
  }));
  await Book.bulkCreate(rows, { validate: true });
  const [one, made] = await Book.findOrCreate({ where: { isbn: 'neu' }, defaults: { title: 'Neu', price: 3, sold: 0 } });
  show('found or created', made, one.title, (await Book.findOrCreate({ where: { isbn: 'neu' }, defaults: { title: 'x' } }))[1]);
  await one.update({ price: '4.50', kind: 'file' });
  await one.increment({ sold: 3 });
  await one.reload();
  show('reloaded', one.price, one.kind, String(one.sold));
  const [changed] = await Book.update({ price: sequelize.literal('price + 1') }, { where: { isbn: { [Op.in]: ['isbn-1', 'isbn-2'] } } });
  show('changed', changed);
  const read = await Book.findAll({ where: { price: { [Op.lt]: 4 } }, include: Author, order: [['title', 'ASC']] });
  show('read', read.map((b) => [b.title, b.price, b.author?.fullName, b.details, b.cover?.length, String(b.sold)]));
  const grouped = await Book.findAll({
    attributes: ['authorId', [sequelize.fn('COUNT', sequelize.col('id')), 'n'], [sequelize.fn('SUM', sequelize.col('price')), 's']],
    group: 'authorId', order: ['authorId'], raw: true,
  });
  show('grouped', grouped.map((g) => [Number(g.n), g.s]));
  await Book.destroy({ where: { isbn: 'isbn-19' } });
  show('count', await Book.count(), await Book.sum('price'));
}

async function refusals() {
  await assert.rejects(Book.create({ title: 'twice', isbn: 'neu' }), UniqueConstraintError);
  await Book.update({ price: -1 }, { where: { isbn: 'neu' } }).then(
    () => assert.fail('no check'),
    (e) => show('check', e.name, e.parent.errno),
  );
  await assert.rejects(
    sequelize.transaction(async (transaction) => {
      await Author.create({ fullName: 'gone' }, { transaction });
      throw new Error('given up');
    }),
  );
  await sequelize.transaction(async (outer) => {
    await Author.create({ fullName: 'kept' }, { transaction: outer });
    const inner = await sequelize.transaction({ transaction: outer });
    await Author.create({ fullName: 'inner' }, { transaction: inner });
    await inner.rollback();
  });
  const kept = await Author.findAll({ where: { fullName: { [Op.in]: ['gone', 'kept', 'inner'] } } });
  show('kept', kept.map((a) => a.fullName));
}

// Thirty buyers at once over four connections. Two of them may lock the same
// two rows by different indexes: whom the server stops tries again.
async function sales() {
  const again = (run) => run().catch((e) => (e.parent && e.parent.errno === 1213 ? again(run) : Promise.reject(e)));
  const buy = (i) => again(() => sequelize.transaction(async (transaction) => {
      const names = [`isbn-${i % 7}`, `isbn-${7 + (i % 7)}`];
      const books = await Book.findAll({ where: { isbn: names }, order: ['id'], lock: transaction.LOCK.UPDATE, transaction });
      for (const book of books) await book.decrement('sold', { by: 1 + (i % 3), transaction });
      if (i % 5 === 0) throw new Error('changed mind');
    })).then(() => 1, (e) => (e.message === 'changed mind' ? 0 : Promise.reject(e)));
  const done = await Promise.all(Array.from({ length: 30 }, (_, i) => buy(i)));
  show('sales', done.reduce((a, b) => a + b));
  const sold = await Book.findAll({ attributes: ['isbn', 'sold'], order: ['isbn'], raw: true });
  show('sold', sold.map((b) => [b.isbn, b.sold]));
}

async function main() {
  await sequelize.authenticate();
  await migrate();
  for (const part of [shelves, refusals, sales]) await part();
  await sequelize.close();
  console.log('passed');
}

main().catch((e) => {
  console.error(e);
  process.exit(1);
});
