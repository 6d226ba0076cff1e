//! Tables like sysbench's and a small shop, and 16 clients that move their rows.

use super::Size;
use super::dump::Table;
use crate::support::proc::{block_on, runtime};
use crate::support::{Proxy, Server};
use crate::workload::Random;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, OptsBuilder};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

const CLIENTS: u32 = 16;
/// Keys that rows are moved to and from.
const AWAY: u32 = 100_000_000;
const PRODUCTS: u32 = 1_000;
const CUSTOMERS: u32 = 500;
/// Between a client's writes: on two cores shared by servers, proxy and other
/// tests, sixteen clients without a pause leave nothing for a copy.
const PAUSE: Duration = Duration::from_millis(4);

/// Numbers from 1 to `n` as `q.n`. No server recurses deeper than 1,000 unasked.
fn numbers(n: u32) -> String {
    let below = |most: u32| {
        format!(
            "(WITH RECURSIVE s AS (SELECT 0 n UNION ALL SELECT n + 1 FROM s WHERE n < {}) SELECT n FROM s)",
            most.min(1000) - 1
        )
    };
    let (millions, thousands, ones) = (
        below(n.div_ceil(1_000_000)),
        below(n.div_ceil(1000)),
        below(1000),
    );
    format!(
        "(SELECT x.n * 1000000 + y.n * 1000 + z.n + 1 n FROM {millions} x, {thousands} y, {ones} z \
         WHERE x.n * 1000000 + y.n * 1000 + z.n < {n}) q"
    )
}

#[derive(Clone)]
pub struct Tables {
    bench: String,
    big: String,
    customers: String,
    products: String,
    orders: String,
    items: String,
}

impl Tables {
    pub fn new(prefix: &str) -> Tables {
        let name = |name: &str| format!("t.{prefix}{name}");
        Tables {
            bench: name("sbtest1"),
            big: name("big"),
            customers: name("customers"),
            products: name("products"),
            orders: name("orders"),
            items: name("items"),
        }
    }

    /// Parents first.
    pub fn all(&self) -> Vec<Table<'_>> {
        vec![
            (&self.bench, "id"),
            (&self.big, "id"),
            (&self.customers, "id"),
            (&self.products, "id"),
            (&self.orders, "id"),
            (&self.items, "order_id, line"),
        ]
    }

    pub fn drop(&self, server: &Server) {
        for (table, _) in self.all().iter().rev() {
            server.exec(&format!("DROP TABLE IF EXISTS {table}"));
        }
    }

    pub fn create(&self, server: &Server, size: Size) {
        self.drop(server);
        let Tables {
            bench,
            big,
            customers,
            products,
            orders,
            items,
        } = self;
        let definitions = [
            format!(
                "CREATE TABLE {bench} (id INT NOT NULL AUTO_INCREMENT, k INT NOT NULL DEFAULT 0, \
                 c CHAR(120) NOT NULL DEFAULT '', pad CHAR(60) NOT NULL DEFAULT '', \
                 PRIMARY KEY (id), KEY k_1 (k))"
            ),
            format!("CREATE TABLE {big} (id INT PRIMARY KEY, v BIGINT NOT NULL, t VARCHAR(40))"),
            format!(
                "CREATE TABLE {customers} (id INT AUTO_INCREMENT PRIMARY KEY, \
                 email VARCHAR(80) NOT NULL, name VARCHAR(60), seen DATETIME(6), \
                 UNIQUE KEY (email)) DEFAULT CHARSET utf8mb4"
            ),
            format!(
                "CREATE TABLE {products} (id INT AUTO_INCREMENT PRIMARY KEY, \
                 sku VARCHAR(20) NOT NULL, price DECIMAL(12,4) NOT NULL, stock INT NOT NULL, \
                 data JSON, UNIQUE KEY (sku)) DEFAULT CHARSET utf8mb4"
            ),
            format!(
                "CREATE TABLE {orders} (id BIGINT AUTO_INCREMENT PRIMARY KEY, customer_id INT NOT NULL, \
                 total DECIMAL(14,2) NOT NULL, at DATETIME(6) NOT NULL, note TEXT, \
                 KEY (customer_id), FOREIGN KEY (customer_id) REFERENCES {customers} (id)) \
                 DEFAULT CHARSET utf8mb4"
            ),
            format!(
                "CREATE TABLE {items} (order_id BIGINT NOT NULL, line INT NOT NULL, \
                 product_id INT NOT NULL, n INT NOT NULL, price DECIMAL(12,4) NOT NULL, \
                 PRIMARY KEY (order_id, line), KEY (product_id), \
                 FOREIGN KEY (order_id) REFERENCES {orders} (id) ON DELETE CASCADE, \
                 FOREIGN KEY (product_id) REFERENCES {products} (id))"
            ),
        ];
        let Size {
            rows,
            orders: placed,
            ..
        } = size;
        let fills = [
            format!(
                "INSERT INTO {bench} (k, c, pad) SELECT n % 1009, REPEAT(LEFT(SHA2(n, 256), 40), 3), LEFT(SHA2(n * 7, 256), 40) FROM {}",
                numbers(rows)
            ),
            format!(
                "INSERT INTO {customers} (email, name, seen) SELECT CONCAT('c', n, '@example.org'), CONCAT('Zoë 😀 ', n), NOW(6) FROM {}",
                numbers(CUSTOMERS)
            ),
            format!(
                "INSERT INTO {products} (sku, price, stock, data) SELECT CONCAT('sku-', n), n / 7, 1000, \
                 CONCAT('{{\"n\": ', n, ', \"tags\": [\"a\", \"ü\"]}}') FROM {}",
                numbers(PRODUCTS)
            ),
            format!(
                "INSERT INTO {orders} (customer_id, total, at, note) SELECT 1 + n % {CUSTOMERS}, n / 3, \
                 '2026-01-01 00:00:00.000001' + INTERVAL n MICROSECOND, IF(n % 3, NULL, REPEAT('é', n % 200)) FROM {}",
                numbers(placed)
            ),
            format!(
                "INSERT INTO {items} SELECT n, l.line, 1 + (n * 7 + l.line) % {PRODUCTS}, l.line, n / 11 FROM {}, \
                 (SELECT 1 line UNION SELECT 2 UNION SELECT 3) l",
                numbers(placed)
            ),
        ];
        // At once: a statement with a semicolon in it is none of ours.
        for sql in definitions.iter().chain(&fills) {
            // MySQL wants a database for a WITH.
            server.exec(&format!("USE t; {sql}"));
        }
    }
}

/// What the clients did.
#[derive(Default)]
pub struct Done {
    /// Writes, by kind; those that met a deadlock are not in them.
    pub kinds: BTreeMap<&'static str, u64>,
    /// Errors the servers give to any application: deadlocks, lock waits, keys
    /// that somebody else has taken.
    pub refused: u64,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: u64 = self.kinds.values().sum();
        write!(f, "{all} writes {:?}, {} refused", self.kinds, self.refused)
    }
}

pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Done>>,
}

impl Load {
    pub fn start(proxy: &Proxy, tables: &Tables, size: Size) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |number| {
            let client = Client {
                number,
                tables: tables.clone(),
                size,
                random: Random::new(u64::from(number) + 77),
            };
            runtime().spawn(client.run(proxy.opts(Some("t")), Arc::clone(&stop)))
        };
        let clients = (0..CLIENTS).map(client).collect();
        Load { stop, clients }
    }

    pub fn stop(self) -> Done {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Done::default();
        for client in self.clients {
            let done = block_on(client).expect("a client panicked");
            for (kind, n) in done.kinds {
                *all.kinds.entry(kind).or_default() += n;
            }
            all.refused += done.refused;
        }
        all
    }
}

struct Client {
    number: u32,
    tables: Tables,
    size: Size,
    random: Random,
}

impl Client {
    async fn run(mut self, opts: OptsBuilder, stop: Arc<AtomicBool>) -> Done {
        let mut conn = Conn::new(opts).await.expect("a connection");
        let mut done = Done::default();
        while !stop.load(Ordering::Relaxed) {
            let (kind, statements) = match self.number {
                0 => self.big(),
                1..=9 => self.bench(),
                _ => self.shop(),
            };
            match run(&mut conn, &statements).await {
                Ok(()) => *done.kinds.entry(kind).or_default() += 1,
                Err(Error::Server(e)) if matches!(e.code, 1213 | 1205 | 1062 | 1452) => {
                    done.refused += 1;
                    conn.query_drop("ROLLBACK").await.expect("ROLLBACK");
                }
                Err(e) => panic!("{kind}: {e} at {statements:?}"),
            }
            let pause = if kind == "big" { self.size.rest } else { PAUSE };
            let until = Instant::now() + pause;
            while Instant::now() < until && !stop.load(Ordering::Relaxed) {
                tokio::time::sleep(PAUSE).await;
            }
        }
        done
    }

    /// One transaction after another, each of many rows.
    fn big(&mut self) -> (&'static str, Vec<String>) {
        let (big, rows) = (&self.tables.big, self.size.big);
        let first = format!(
            "INSERT INTO {big} SELECT n, 1, LEFT(SHA2(n, 256), 40) FROM {} ON DUPLICATE KEY UPDATE v = v + 1",
            numbers(rows)
        );
        let second = match self.random.below(3) {
            0 => format!("DELETE FROM {big} WHERE id % 3 = {}", self.random.below(3)),
            1 => format!("UPDATE {big} SET t = REVERSE(t) WHERE id % 2 = 0"),
            _ => format!(
                "UPDATE {big} SET id = id + {AWAY} WHERE id BETWEEN {} AND {}",
                rows / 4,
                rows / 2
            ),
        };
        let third = format!("DELETE FROM {big} WHERE id > {AWAY}");
        let all = ["BEGIN", &first, &second, &third, "COMMIT"];
        ("big", all.map(str::to_owned).to_vec())
    }

    fn bench(&mut self) -> (&'static str, Vec<String>) {
        let bench = &self.tables.bench;
        let (id, other) = (
            1 + self.random.below(self.size.rows),
            1 + self.random.below(self.size.rows),
        );
        let k = self.random.below(1009);
        let insert = format!(
            "INSERT INTO {bench} (id, k, c, pad) VALUES ({id}, {k}, REPEAT('n', {}), 'new')",
            k % 120
        );
        match self.random.below(8) {
            0 | 1 => (
                "update",
                vec![format!("UPDATE {bench} SET k = k + 1 WHERE id = {id}")],
            ),
            2 => (
                "update",
                vec![format!(
                    "UPDATE {bench} SET c = REVERSE(c), pad = 'p{k}' WHERE id = {id}"
                )],
            ),
            3 => (
                "delete and insert",
                vec![
                    "BEGIN".to_owned(),
                    format!("DELETE FROM {bench} WHERE id = {id}"),
                    insert,
                    "COMMIT".to_owned(),
                ],
            ),
            4 => (
                "insert",
                vec![format!(
                    "INSERT INTO {bench} (k, c, pad) VALUES ({k}, 'x', 'y'), ({k}, 'z', '')"
                )],
            ),
            5 => (
                "key there",
                vec![format!(
                    "UPDATE {bench} SET id = {} WHERE id = {id}",
                    id + AWAY
                )],
            ),
            6 => (
                "key back",
                vec![format!(
                    "UPDATE {bench} SET id = id - {AWAY} WHERE id > {AWAY} ORDER BY id LIMIT 1"
                )],
            ),
            _ => (
                "rows swap keys",
                vec![
                    "BEGIN".to_owned(),
                    format!("UPDATE {bench} SET id = {} WHERE id = {id}", 2 * AWAY + id),
                    format!("UPDATE {bench} SET id = {id} WHERE id = {other}"),
                    format!(
                        "UPDATE {bench} SET id = {other} WHERE id = {}",
                        2 * AWAY + id
                    ),
                    "COMMIT".to_owned(),
                ],
            ),
        }
    }

    fn shop(&mut self) -> (&'static str, Vec<String>) {
        let Tables {
            customers,
            products,
            orders,
            items,
            ..
        } = &self.tables;
        let (p, q) = (
            1 + self.random.below(PRODUCTS),
            1 + self.random.below(PRODUCTS),
        );
        let customer = 1 + self.random.below(CUSTOMERS);
        let order = 1 + self.random.below(self.size.orders);
        match self.random.below(7) {
            0 | 1 => (
                "order",
                vec![
                    "BEGIN".to_owned(),
                    format!(
                        "INSERT INTO {orders} (customer_id, total, at, note) VALUES ({customer}, 12.34, NOW(6), 'naïve ☃')"
                    ),
                    format!(
                        "INSERT INTO {items} VALUES (LAST_INSERT_ID(), 1, {p}, 2, 1.5), (LAST_INSERT_ID(), 2, {q}, 1, 0.3333)"
                    ),
                    format!("UPDATE {products} SET stock = stock - 2 WHERE id = {p}"),
                    "COMMIT".to_owned(),
                ],
            ),
            2 => (
                "cascade",
                vec![format!("DELETE FROM {orders} WHERE id = {order}")],
            ),
            3 if p != q => {
                // Unique values change places.
                let own = format!("swap-{}", self.number);
                (
                    "unique values swap",
                    vec![
                        "BEGIN".to_owned(),
                        format!("SELECT sku INTO @a FROM {products} WHERE id = {p} FOR UPDATE"),
                        format!("SELECT sku INTO @b FROM {products} WHERE id = {q} FOR UPDATE"),
                        format!("UPDATE {products} SET sku = '{own}' WHERE id = {p}"),
                        format!("UPDATE {products} SET sku = @a WHERE id = {q}"),
                        format!("UPDATE {products} SET sku = @b WHERE id = {p}"),
                        "COMMIT".to_owned(),
                    ],
                )
            }
            4 => (
                "json",
                vec![format!(
                    "UPDATE {products} SET data = JSON_SET(data, '$.n', {q}, '$.at', NOW(6)), price = price * 1.0001 WHERE id = {p}"
                )],
            ),
            5 => (
                "customer",
                vec![format!(
                    "UPDATE {customers} SET seen = NOW(6), email = CONCAT('c', id, '@', {q}, '.example.org') WHERE id = {customer}"
                )],
            ),
            _ => (
                "lines",
                vec![format!(
                    "UPDATE {items} SET n = n + 1, line = line + 10 WHERE order_id = {order} AND line = {}",
                    1 + q % 3
                )],
            ),
        }
    }
}

async fn run(conn: &mut Conn, statements: &[String]) -> Result<(), Error> {
    for sql in statements {
        conn.query_drop(sql.as_str()).await?;
    }
    Ok(())
}
