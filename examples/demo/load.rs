//! The shop's application: customers who browse, fill carts, buy and pay.
//!
//! It knows nothing of the proxy but the address. Like any application it
//! tries a transaction again after a deadlock, and takes any other error, or a
//! row that it has just written and cannot read, for a failure.

use super::support::servers::{APP, opts};
use super::tally::{Kind, Tally};
use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Conn, Error, Params};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Rows that `shop.sql` has put there.
const CUSTOMERS: u64 = 20_000;
const ITEMS: u64 = 4_000;
const ORDERS: u64 = 40_000;
/// A third of all sales are of these.
const POPULAR: u64 = 25;
/// Tries of one transaction before the customer is told to come again later.
const TRIES: u32 = 20;
/// A page is rendered, a customer reads: pause between two actions, in
/// microseconds at most.
const THINK_US: u64 = 6_000;
/// Deadlock and lock timeout.
const RETRY: [u16; 2] = [1213, 1205];

/// What the clients are to do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Everything = 0,
    ReadsAlone = 1,
    Stop = 2,
}

/// What all clients share.
pub struct Shop {
    port: u16,
    pub tally: Tally,
    mode: AtomicU8,
    writers: AtomicUsize,
    emails: AtomicU64,
}

impl Shop {
    pub fn new(port: u16) -> Arc<Shop> {
        Arc::new(Shop {
            port,
            tally: Tally::new(),
            mode: AtomicU8::new(Mode::ReadsAlone as u8),
            writers: AtomicUsize::new(0),
            emails: AtomicU64::new(0),
        })
    }

    pub fn set(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::SeqCst);
    }

    fn is(&self, mode: Mode) -> bool {
        self.mode.load(Ordering::SeqCst) == mode as u8
    }

    /// Waits until every write begun before has ended.
    pub async fn writers_gone(&self) {
        while self.writers.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Starts `count` clients; they run until told to stop.
    pub fn open(self: &Arc<Shop>, count: u64) -> JoinSet<()> {
        let mut clients = JoinSet::new();
        for n in 0..count {
            clients.spawn(client(Arc::clone(self), n));
        }
        clients
    }
}

async fn client(shop: Arc<Shop>, number: u64) {
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15 ^ (number + 1).wrapping_mul(0xD134_2543_DE82_EF95));
    while !shop.is(Mode::Stop) {
        let options = opts(shop.port, APP.0, APP.1, Some("shop"));
        match Conn::new(options).await {
            Ok(conn) => {
                let visit = Visit {
                    conn,
                    shop: &shop,
                    dice: &mut dice,
                };
                visit.run().await;
            }
            Err(e) => {
                shop.tally.failed(format!("cannot connect: {e}"));
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

/// One connection's life.
struct Visit<'a> {
    conn: Conn,
    shop: &'a Shop,
    dice: &'a mut Dice,
}

type Done = Result<(), Error>;

impl Visit<'_> {
    async fn run(mut self) {
        while !self.shop.is(Mode::Stop) {
            let result = if self.shop.is(Mode::ReadsAlone) {
                self.browse().await
            } else {
                self.anything().await
            };
            if let Err(e) = result {
                let lost = !matches!(e, Error::Server(_));
                self.shop.tally.failed(e.to_string());
                if lost {
                    return;
                }
                let _ = self.conn.query_drop("ROLLBACK").await;
            }
            let think = self.dice.below(THINK_US);
            tokio::time::sleep(Duration::from_micros(think)).await;
        }
        let _ = self.conn.disconnect().await;
    }

    async fn anything(&mut self) -> Done {
        let action = self.dice.below(100);
        if action < 45 {
            return self.browse().await;
        }
        self.shop.writers.fetch_add(1, Ordering::SeqCst);
        // Whoever stops the writers sets the mode first and looks at the
        // counter then; we count first and look at the mode then.
        let done = if self.shop.is(Mode::Everything) {
            self.write(action).await
        } else {
            Ok(())
        };
        self.shop.writers.fetch_sub(1, Ordering::SeqCst);
        done
    }

    /// One action that writes, tried again as a whole after a deadlock.
    async fn write(&mut self, action: u64) -> Done {
        for _ in 1..TRIES {
            let done = match action {
                ..63 => self.fill_cart().await,
                63..78 => self.check_out().await,
                78..84 => self.pay().await,
                84..88 => self.register().await,
                88..93 => self.visit().await,
                93..96 => self.restock().await,
                96..98 => self.empty_cart().await,
                _ => self.change_of_mind().await,
            };
            match done {
                Err(Error::Server(e)) if RETRY.contains(&e.code) => {
                    self.shop.tally.retried();
                    self.conn.query_drop("ROLLBACK").await?;
                }
                done => return done,
            }
        }
        Err(Error::Other("a transaction found no way through".into()))
    }

    // --- reading -------------------------------------------------------------

    async fn browse(&mut self) -> Done {
        match self.dice.below(5) {
            0 => {
                let id = self.item();
                let sql = "SELECT id, title, price, stock, attributes FROM items WHERE id = ?";
                let rows: Vec<mysql_async::Row> = self.ask(sql, (id,)).await?;
                self.expect(rows.len() == 1, "an item is missing")
            }
            1 => {
                let category = self.dice.below(100);
                let sql = format!(
                    "SELECT id, title, price FROM items WHERE category = {category} \
                     ORDER BY price LIMIT 20"
                );
                let rows = self.ask_text(&sql).await?;
                self.expect(!rows.is_empty(), "a category is empty")
            }
            2 => {
                let customer = self.customer();
                let sql = "SELECT o.id, o.status, o.total, o.placed_at, p.amount FROM orders o \
                           LEFT JOIN payments p ON p.order_id = o.id \
                           WHERE o.customer_id = ? ORDER BY o.placed_at DESC LIMIT 10";
                let _: Vec<mysql_async::Row> = self.ask(sql, (customer,)).await?;
                Ok(())
            }
            3 => {
                let email = format!("c{}@example.org", self.customer());
                let sql = "SELECT id, name, profile, credit FROM customers WHERE email = ?";
                let rows: Vec<mysql_async::Row> = self.ask(sql, (email,)).await?;
                self.expect(rows.len() == 1, "a customer is missing")
            }
            _ => {
                let order = 1 + self.dice.below(ORDERS);
                let sql = format!(
                    "SELECT l.quantity, l.price, i.title, i.description FROM order_items l \
                     JOIN items i ON i.id = l.item_id WHERE l.order_id = {order}"
                );
                let rows = self.ask_text(&sql).await?;
                self.expect(rows.len() == 2, "lines of an order are missing")
            }
        }
    }

    // --- writing -------------------------------------------------------------

    async fn fill_cart(&mut self) -> Done {
        let (customer, item) = (self.customer(), self.item());
        let quantity = 1 + self.dice.below(3);
        let sql = "INSERT INTO carts (customer_id, item_id, quantity, added_at) \
                   VALUES (?, ?, ?, NOW(6)) \
                   ON DUPLICATE KEY UPDATE quantity = quantity + VALUES(quantity)";
        self.tell(sql, (customer, item, quantity)).await?;
        let sql = "SELECT quantity FROM carts WHERE customer_id = ?";
        let _: Vec<u64> = self.ask(sql, (customer,)).await?;
        Ok(())
    }

    /// The transaction a shop lives from.
    async fn check_out(&mut self) -> Done {
        let customer = self.customer();
        self.tell_text("START TRANSACTION").await?;
        let sql = "SELECT c.item_id, c.quantity, i.price FROM carts c \
                   JOIN items i ON i.id = c.item_id WHERE c.customer_id = ?";
        let mut lines: Vec<(u64, u64, String)> = self.ask(sql, (customer,)).await?;
        if lines.is_empty() {
            let (first, second) = (self.item(), self.item());
            lines.push((first, 1, "19.90".to_string()));
            if first != second {
                lines.push((second, 2, "5.25".to_string()));
            }
        }
        let note = (self.dice.below(4) == 0).then_some("please hurry 🏃 – danke schön");
        let sql = "INSERT INTO orders (customer_id, status, total, note, placed_at) \
                   VALUES (?, 'new', 0, ?, NOW(6))";
        self.tell(sql, (customer, note)).await?;
        let order = self.conn.last_insert_id().unwrap_or_default();
        let values: Vec<String> = lines
            .iter()
            .map(|(item, quantity, price)| format!("({order}, {item}, {quantity}, {price})"))
            .collect();
        let sql = format!(
            "INSERT INTO order_items (order_id, item_id, quantity, price) VALUES {}",
            values.join(", ")
        );
        self.tell_text(&sql).await?;
        for (item, quantity, _) in &lines {
            let sql = "UPDATE items SET stock = stock - ? WHERE id = ? AND stock >= ?";
            self.tell(sql, (*quantity, *item, *quantity)).await?;
        }
        let total: f64 = lines
            .iter()
            .map(|(_, n, price)| *n as f64 * price.parse::<f64>().unwrap_or_default())
            .sum();
        let sql = "UPDATE orders SET total = ?, updated_at = NOW(6) WHERE id = ?";
        self.tell(sql, (format!("{total:.2}"), order)).await?;
        self.tell("DELETE FROM carts WHERE customer_id = ?", (customer,))
            .await?;
        self.tell_text("COMMIT").await?;
        let sql = "SELECT COUNT(*) FROM order_items WHERE order_id = ?";
        let found: Vec<usize> = self.ask(sql, (order,)).await?;
        self.expect(found == [lines.len()], "an order just placed is not there")
    }

    async fn pay(&mut self) -> Done {
        let order = 1 + self.dice.below(ORDERS);
        self.tell_text("BEGIN").await?;
        let sql = "SELECT status, total FROM orders WHERE id = ? FOR UPDATE";
        let found: Vec<(String, String)> = self.ask(sql, (order,)).await?;
        let Some((_, total)) = found.first() else {
            return self.expect(false, "an order is missing");
        };
        let text = format!("UPDATE orders SET status = 'paid' WHERE id = {order}");
        self.tell_text(&text).await?;
        let sql = "INSERT INTO payments (order_id, method, amount, details) VALUES (?, ?, ?, ?)";
        let details = format!(r#"{{"ref": "p{order}", "note": "bezahlt ✅"}}"#);
        self.tell(sql, (order, "card", total, details)).await?;
        self.tell_text("COMMIT").await
    }

    async fn register(&mut self) -> Done {
        let n = self.shop.emails.fetch_add(1, Ordering::Relaxed);
        let sql = format!(
            "INSERT INTO customers (email, name, profile) \
             VALUES ('new{n}@example.org', 'Zoë O\\'Neill {n}', '{{\"visits\": 0}}')"
        );
        self.tell_text(&sql).await?;
        let ids = self.ask_text("SELECT LAST_INSERT_ID()").await?;
        let id = ids.first().and_then(|row| row.get::<u64, _>(0));
        let sql = "SELECT email FROM customers WHERE id = ?";
        let found: Vec<String> = self.ask(sql, (id,)).await?;
        let own = format!("new{n}@example.org");
        self.expect(found == [own], "a customer just registered is not there")
    }

    async fn visit(&mut self) -> Done {
        let customer = self.customer();
        let sql = "UPDATE customers SET seen_at = NOW(6), \
                   profile = JSON_SET(profile, '$.visits', JSON_EXTRACT(profile, '$.visits') + 1) \
                   WHERE id = ?";
        self.tell(sql, (customer,)).await
    }

    async fn restock(&mut self) -> Done {
        let item = self.item();
        self.tell_text(&format!(
            "UPDATE items SET stock = stock + 50 WHERE id = {item}"
        ))
        .await
    }

    async fn empty_cart(&mut self) -> Done {
        let customer = self.customer();
        self.tell_text(&format!("DELETE FROM carts WHERE customer_id = {customer}"))
            .await
    }

    /// An order that the customer does not confirm.
    async fn change_of_mind(&mut self) -> Done {
        let (customer, item) = (self.customer(), self.item());
        self.tell_text("BEGIN").await?;
        let sql = "UPDATE items SET stock = stock - 1 WHERE id = ?";
        self.tell(sql, (item,)).await?;
        let sql = "INSERT INTO orders (customer_id, total, placed_at) VALUES (?, 1, NOW(6))";
        self.tell(sql, (customer,)).await?;
        let sql = "INSERT INTO order_items (order_id, item_id, quantity, price) \
                   VALUES (LAST_INSERT_ID(), ?, 1, 1)";
        self.tell(sql, (item,)).await?;
        self.tell_text("ROLLBACK").await
    }

    // --- statements ----------------------------------------------------------

    async fn ask<R: FromRow + Send + 'static>(
        &mut self,
        sql: &str,
        params: impl Into<Params> + Send,
    ) -> Result<Vec<R>, Error> {
        let began = Instant::now();
        let rows = self.conn.exec(sql, params.into()).await;
        self.shop.tally.answered(Kind::Read, began.elapsed());
        rows
    }

    async fn ask_text(&mut self, sql: &str) -> Result<Vec<mysql_async::Row>, Error> {
        let began = Instant::now();
        let rows = self.conn.query(sql).await;
        self.shop.tally.answered(Kind::Read, began.elapsed());
        rows
    }

    async fn tell(&mut self, sql: &str, params: impl Into<Params> + Send) -> Done {
        let began = Instant::now();
        let done = self.conn.exec_drop(sql, params.into()).await;
        self.shop.tally.answered(Kind::Write, began.elapsed());
        done
    }

    async fn tell_text(&mut self, sql: &str) -> Done {
        let began = Instant::now();
        let done = self.conn.query_drop(sql).await;
        self.shop.tally.answered(Kind::Write, began.elapsed());
        done
    }

    fn expect(&self, holds: bool, what: &str) -> Done {
        if !holds {
            self.shop.tally.failed(what.to_string());
        }
        Ok(())
    }

    fn customer(&mut self) -> u64 {
        1 + self.dice.below(CUSTOMERS)
    }

    fn item(&mut self) -> u64 {
        let range = if self.dice.below(3) == 0 {
            POPULAR
        } else {
            ITEMS
        };
        1 + self.dice.below(range)
    }
}

/// A small generator (xorshift64*): the same walk at each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % limit
    }
}
