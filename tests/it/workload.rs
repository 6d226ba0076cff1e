//! The application of the order, flip and fault tests: clients that fight over
//! a few rows with statements whose order shows in the result.
//!
//! Every statement is one that DESIGN §5 mirrors inline at the isolation it
//! runs at, except those on the tables of [`Tables::loose`].

mod tables;

pub use tables::{Isolation, Tables};

use crate::support::proc::runtime;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, OptsBuilder, TxOpts, Value};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Modulus of the updates: a prime, so that a value never gets stuck at 0.
const P: u32 = 1_000_003;
/// Rows of the tables that clients fight over.
const ROWS: u32 = 10;
/// A statement that takes longer was held up by something: nearly the default
/// deadline of a mirror.
const STALL: Duration = Duration::from_millis(180);
/// Stalls within this time belong together.
const EPISODE: Duration = Duration::from_millis(400);
/// Stalls kept for each client.
const STALLS_MAX: usize = 1000;
/// Errors that are described in a report.
const EXAMPLES: usize = 8;

/// Which clients there are.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    /// Clients on the ten hot rows.
    pub hot: u32,
    /// Clients that all update one row.
    pub one_row: u32,
    /// The other kinds, twelve clients: two of each that needs a partner.
    pub others: bool,
    /// A client whose statements another one interrupts with KILL QUERY.
    pub kills: bool,
    /// Clients that insert and read.
    pub inserts: u32,
}

impl Mix {
    /// Nobody; for `..Mix::NONE`.
    pub const NONE: Mix = Mix {
        hot: 0,
        one_row: 0,
        others: false,
        kills: false,
        inserts: 0,
    };
}

/// What the clients saw.
#[derive(Debug, Default)]
pub struct Report {
    /// Statements that succeeded.
    pub statements: u64,
    /// Errors that the active side itself gives, by number.
    pub expected: BTreeMap<u16, u64>,
    /// All others.
    pub unexpected: u64,
    /// The first few of them, described.
    pub examples: Vec<String>,
    /// The longest single statement.
    pub longest: Duration,
    /// When statements longer than [`STALL`] ended.
    pub stalls: Vec<Instant>,
}

impl Report {
    fn merge(&mut self, other: Report) {
        self.statements += other.statements;
        for (code, n) in other.expected {
            *self.expected.entry(code).or_default() += n;
        }
        self.unexpected += other.unexpected;
        self.examples.extend(other.examples);
        self.examples.truncate(EXAMPLES);
        self.longest = self.longest.max(other.longest);
        self.stalls.extend(other.stalls);
    }

    /// How many times clients were held up: stalls closer together than
    /// [`EPISODE`] are one.
    pub fn episodes(&self) -> usize {
        let mut ends = self.stalls.clone();
        ends.sort();
        let again = ends.windows(2).filter(|w| w[1] - w[0] > EPISODE).count();
        again + usize::from(!ends.is_empty())
    }

    /// Panics if a client saw an error that the active side alone would not
    /// have given.
    pub fn assert_no_errors(&self) {
        assert!(
            self.unexpected == 0,
            "{} errors reached clients: {:#?}",
            self.unexpected,
            self.examples
        );
        assert!(self.statements > 0, "nothing was executed");
    }
}

/// A small generator of pseudo-random numbers; tests need no more.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn below(&mut self, n: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 33) % u64::from(n)) as u32
    }

    fn row(&mut self) -> u32 {
        1 + self.below(ROWS)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Role {
    Hot,
    OneRow,
    InsertOne,
    InsertMany,
    InsertBinary,
    Upsert,
    Transaction,
    Deadlock,
    Optimistic,
    Savepoint,
    Victim,
    Killer,
    InsertAndRead,
}

impl Role {
    /// Errors this client provokes on the active side.
    fn provokes(self) -> &'static [u16] {
        match self {
            // Gaps and pairs: deadlock, lock wait.
            Role::Upsert | Role::Deadlock | Role::Transaction => &[1213, 1205],
            Role::InsertOne => &[1062],
            Role::Optimistic | Role::Savepoint => &[1213],
            // The statement was interrupted.
            Role::Victim => &[1317, 1213],
            Role::Hot
            | Role::OneRow
            | Role::InsertMany
            | Role::InsertBinary
            | Role::Killer
            | Role::InsertAndRead => &[],
        }
    }
}

/// A running load.
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<tokio::task::JoinHandle<Report>>,
}

impl Load {
    /// Starts the clients, each on a connection of its own.
    pub fn start(opts: &OptsBuilder, tables: &Tables, mix: Mix) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let mut roles = vec![Role::Hot; mix.hot as usize];
        roles.extend(vec![Role::OneRow; mix.one_row as usize]);
        if mix.others {
            roles.extend([
                Role::InsertOne,
                Role::InsertMany,
                Role::InsertBinary,
                Role::Upsert,
                Role::Upsert,
                Role::Transaction,
                Role::Transaction,
                Role::Deadlock,
                Role::Deadlock,
                Role::Optimistic,
                Role::Optimistic,
                Role::Savepoint,
            ]);
        }
        if mix.kills {
            roles.extend([Role::Victim, Role::Killer]);
        }
        roles.extend(vec![Role::InsertAndRead; mix.inserts as usize]);
        let victim = Arc::new(AtomicU32::new(0));
        let tables = Arc::new(tables.clone());
        let clients = roles
            .into_iter()
            .enumerate()
            .map(|(n, role)| {
                let opts = opts.clone();
                let client = Client {
                    role,
                    number: n as u32,
                    tables: Arc::clone(&tables),
                    random: Random::new(n as u64 + 1),
                    victim: Arc::clone(&victim),
                    step: 0,
                    report: Report::default(),
                };
                runtime().spawn(client.run(opts, Arc::clone(&stop)))
            })
            .collect();
        Load { stop, clients }
    }

    /// Ends the clients after their current statement or transaction.
    pub fn stop(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let mut report = Report::default();
        for client in self.clients {
            report.merge(crate::support::proc::block_on(client).expect("a client panicked"));
        }
        report
    }
}

/// Runs a load for a while.
pub fn run(opts: &OptsBuilder, tables: &Tables, mix: Mix, time: Duration) -> Report {
    let load = Load::start(opts, tables, mix);
    std::thread::sleep(time);
    load.stop()
}

struct Client {
    role: Role,
    number: u32,
    tables: Arc<Tables>,
    random: Random,
    /// Thread id of the client that the killer interrupts.
    victim: Arc<AtomicU32>,
    step: u32,
    report: Report,
}

impl Client {
    async fn run(mut self, opts: OptsBuilder, stop: Arc<AtomicBool>) -> Report {
        let mut conn = match self.connect(opts).await {
            Ok(conn) => conn,
            Err(e) => {
                self.failed(&e);
                return self.report;
            }
        };
        if self.role == Role::Victim {
            self.victim.store(conn.id(), Ordering::Relaxed);
        }
        while !stop.load(Ordering::Relaxed) {
            self.step += 1;
            if let Err(e) = self.act(&mut conn).await {
                let lost = self.failed(&e);
                if lost || self.report.unexpected > 100 {
                    break;
                }
                // After a deadlock its victim goes on without a ROLLBACK.
                if self.role != Role::Deadlock {
                    let _ = conn.query_drop("ROLLBACK").await;
                }
            }
        }
        if self.role == Role::Victim {
            self.victim.store(0, Ordering::Relaxed);
        }
        let _ = conn.query_drop("ROLLBACK").await;
        let _ = conn.disconnect().await;
        self.report
    }

    async fn connect(&mut self, opts: OptsBuilder) -> Result<Conn, Error> {
        let mut conn = Conn::new(opts).await?;
        let isolation = self.tables.isolation().sql();
        let sql = format!("SET SESSION TRANSACTION ISOLATION LEVEL {isolation}");
        conn.query_drop(sql).await?;
        Ok(conn)
    }

    /// Files an error; true when the connection is gone.
    fn failed(&mut self, error: &Error) -> bool {
        if let Error::Server(e) = error
            && self.role.provokes().contains(&e.code)
        {
            *self.report.expected.entry(e.code).or_default() += 1;
            return false;
        }
        self.report.unexpected += 1;
        if self.report.examples.len() < EXAMPLES {
            let text = format!("{:?} {}: {error}", self.role, self.number);
            self.report.examples.push(text);
        }
        !matches!(error, Error::Server(_))
    }

    /// A statement as text.
    async fn text(&mut self, conn: &mut Conn, sql: String) -> Result<(), Error> {
        let began = Instant::now();
        let done = conn.query_drop(sql).await;
        self.took(began, done)
    }

    /// A prepared statement.
    async fn binary(
        &mut self,
        conn: &mut Conn,
        sql: String,
        values: Vec<Value>,
    ) -> Result<(), Error> {
        let began = Instant::now();
        let done = conn.exec_drop(sql, values).await;
        self.took(began, done)
    }

    fn took(&mut self, began: Instant, done: Result<(), Error>) -> Result<(), Error> {
        let took = began.elapsed();
        self.report.longest = self.report.longest.max(took);
        if took > STALL && self.report.stalls.len() < STALLS_MAX {
            self.report.stalls.push(Instant::now());
        }
        done?;
        self.report.statements += 1;
        Ok(())
    }

    async fn act(&mut self, conn: &mut Conn) -> Result<(), Error> {
        match self.role {
            Role::Hot => {
                let hot = self.tables.hot.clone();
                self.update(conn, &hot).await
            }
            Role::OneRow => {
                let hot = self.tables.hot.clone();
                self.update_row(conn, &hot, 1).await
            }
            Role::InsertOne => self.insert_one(conn).await,
            Role::InsertMany => self.insert_many(conn).await,
            Role::InsertBinary => self.insert_binary(conn).await,
            Role::Upsert => self.upsert(conn).await,
            Role::Transaction => self.transaction(conn).await,
            Role::Deadlock => self.deadlock(conn).await,
            Role::Optimistic => self.optimistic(conn).await,
            Role::Savepoint => self.savepoint(conn).await,
            Role::Victim => self.interrupted(conn).await,
            Role::Killer => self.kill(conn).await,
            Role::InsertAndRead => self.insert_and_read(conn).await,
        }
    }

    /// One of two updates that do not commute, on a row of ten; text or binary.
    async fn update(&mut self, conn: &mut Conn, table: &str) -> Result<(), Error> {
        let id = self.random.row();
        self.update_row(conn, table, id).await
    }

    async fn update_row(&mut self, conn: &mut Conn, table: &str, id: u32) -> Result<(), Error> {
        let new = if self.random.below(2) == 0 {
            "(v*2)"
        } else {
            "(v*3+1)"
        };
        if self.random.below(4) == 0 {
            let sql = format!("UPDATE {table} SET v={new}%{P} WHERE id=?");
            self.binary(conn, sql, vec![id.into()]).await
        } else {
            self.text(
                conn,
                format!("UPDATE {table} SET v={new}%{P} WHERE id={id}"),
            )
            .await
        }
    }

    async fn insert_one(&mut self, conn: &mut Conn) -> Result<(), Error> {
        let (n, step, ins) = (self.number, self.step, self.tables.ins.clone());
        if step % 16 == 0 {
            // A key that exists: 1062 from the active side, and the id that was
            // meant for it must not leak into the next insert (H2).
            let sql = format!("INSERT INTO {ins} (id, client, s) VALUES (1, {n}, 'twice')");
            return self.text(conn, sql).await;
        }
        let sql = format!("INSERT INTO {ins} (client, s, at) VALUES ({n}, 'one {step}', NOW(6))");
        self.text(conn, sql).await
    }

    async fn insert_many(&mut self, conn: &mut Conn) -> Result<(), Error> {
        let (n, step, ins) = (self.number, self.step, self.tables.ins.clone());
        let rows: Vec<String> = (0..2 + self.random.below(6))
            .map(|i| format!("({n}, 'many {step} {i}')"))
            .collect();
        let sql = format!("INSERT INTO {ins} (client, s) VALUES {}", rows.join(", "));
        self.text(conn, sql).await
    }

    async fn insert_binary(&mut self, conn: &mut Conn) -> Result<(), Error> {
        let (n, step, ins) = (self.number, self.step, self.tables.ins.clone());
        // A bound NULL or 0 generates an id, as none given does.
        let (sql, id) = match step % 3 {
            0 => (
                format!("INSERT INTO {ins} (client, s) VALUES (?, ?)"),
                vec![],
            ),
            1 => (
                format!("INSERT INTO {ins} (id, client, s) VALUES (?, ?, ?)"),
                vec![Value::NULL],
            ),
            _ => (
                format!("INSERT INTO {ins} (id, client, s) VALUES (?, ?, ?)"),
                vec![Value::Int(0)],
            ),
        };
        let mut values = id;
        values.extend([n.into(), format!("binary {step}").into()]);
        self.binary(conn, sql, values).await
    }

    async fn upsert(&mut self, conn: &mut Conn) -> Result<(), Error> {
        let (k, ups) = (self.random.below(30), self.tables.ups.clone());
        let sql = match self.random.below(6) {
            0 => format!("DELETE FROM {ups} WHERE k={k}"),
            1 => format!("REPLACE INTO {ups} VALUES ({k}, {}, 0)", self.step),
            _ => format!(
                "INSERT INTO {ups} VALUES ({k}, 1, 0) \
                 ON DUPLICATE KEY UPDATE v=(v*2)%{P}, c=c+1"
            ),
        };
        self.text(conn, sql).await
    }

    /// Two rows in order and an insert; half of them roll back.
    async fn transaction(&mut self, conn: &mut Conn) -> Result<(), Error> {
        let (n, step) = (self.number, self.step);
        let (hot, ins) = (self.tables.hot.clone(), self.tables.ins.clone());
        let first = 1 + self.random.below(ROWS - 1);
        let second = first + 1 + self.random.below(ROWS - first);
        let start = ["BEGIN", "START TRANSACTION", "SET autocommit=0"][(step % 3) as usize];
        self.text(conn, start.to_string()).await?;
        self.update_row(conn, &hot, first).await?;
        let sql = format!("INSERT INTO {ins} (client, s) VALUES ({n}, 'tx {step}')");
        self.text(conn, sql).await?;
        self.update_row(conn, &hot, second).await?;
        let end = if self.random.below(2) == 0 {
            "COMMIT"
        } else {
            "ROLLBACK"
        };
        self.text(conn, end.to_string()).await?;
        if step % 3 == 2 {
            self.text(conn, "SET autocommit=1".to_string()).await?;
        }
        Ok(())
    }

    /// Two clients lock two rows in opposite orders. The victim goes on as if
    /// its transaction were there, and commits (C2).
    async fn deadlock(&mut self, conn: &mut Conn) -> Result<(), Error> {
        let table = self.tables.dead.clone();
        let (a, b) = if self.number.is_multiple_of(2) {
            (1, 2)
        } else {
            (2, 1)
        };
        self.text(conn, "BEGIN".to_string()).await?;
        self.update_row(conn, &table, a).await?;
        let second = self.update_row(conn, &table, b).await;
        if let Err(e) = second {
            self.failed(&e);
            let row = 3 + self.random.below(ROWS - 3);
            self.update_row(conn, &table, row).await?;
        }
        self.text(conn, "COMMIT".to_string()).await
    }

    /// One of two says 'old', the other counts only where it says so.
    async fn optimistic(&mut self, conn: &mut Conn) -> Result<(), Error> {
        let (id, opt) = (self.random.below(3) + 1, self.tables.opt.clone());
        let sql = match self.random.below(4) {
            0 => format!("UPDATE {opt} SET status='old' WHERE id={id}"),
            1 => format!("UPDATE {opt} SET status='x' WHERE id={id}"),
            _ => format!("UPDATE {opt} SET n=n+1, status='x' WHERE id={id} AND status='old'"),
        };
        self.text(conn, sql).await
    }

    async fn savepoint(&mut self, conn: &mut Conn) -> Result<(), Error> {
        let sp = self.tables.sp.clone();
        self.text(conn, "BEGIN".to_string()).await?;
        if self.step.is_multiple_of(2) {
            // Before the mirror has a transaction (M1).
            self.text(conn, "SAVEPOINT first".to_string()).await?;
        }
        self.update_row(conn, &sp, 1).await?;
        self.text(conn, "SAVEPOINT s".to_string()).await?;
        self.update_row(conn, &sp, 2).await?;
        self.text(conn, "ROLLBACK TO SAVEPOINT s".to_string())
            .await?;
        self.update_row(conn, &sp, 3).await?;
        if self.step.is_multiple_of(4) {
            self.text(conn, "ROLLBACK TO first".to_string()).await?;
            self.update_row(conn, &sp, 4).await?;
        }
        self.text(conn, "COMMIT".to_string()).await
    }

    async fn interrupted(&mut self, conn: &mut Conn) -> Result<(), Error> {
        let killed = self.tables.killed.clone();
        if !self.step.is_multiple_of(3) {
            return self.update(conn, &killed).await;
        }
        self.text(conn, "BEGIN".to_string()).await?;
        self.update_row(conn, &killed, 1).await?;
        self.update_row(conn, &killed, 2).await?;
        self.text(conn, "COMMIT".to_string()).await
    }

    async fn kill(&mut self, conn: &mut Conn) -> Result<(), Error> {
        let pause = u64::from(self.random.below(8));
        tokio::time::sleep(Duration::from_millis(pause)).await;
        match self.victim.load(Ordering::Relaxed) {
            0 => Ok(()),
            id => match self.text(conn, format!("KILL QUERY {id}")).await {
                // At the load's end the victim may go between the look at its
                // id and the KILL; it takes its id back before it does.
                Err(Error::Server(e))
                    if e.code == 1094 && self.victim.load(Ordering::Relaxed) == 0 =>
                {
                    Ok(())
                }
                done => done,
            },
        }
    }

    /// What an ordinary page does: write a row, read it back.
    async fn insert_and_read(&mut self, conn: &mut Conn) -> Result<(), Error> {
        let (n, step, ins) = (self.number, self.step, self.tables.ins.clone());
        let sql = format!("INSERT INTO {ins} (client, s) VALUES (?, ?)");
        self.binary(conn, sql, vec![n.into(), format!("page {step}").into()])
            .await?;
        let Some(id) = conn.last_insert_id() else {
            return Err(Error::Other("no insert id".into()));
        };
        let mut tx = conn.start_transaction(TxOpts::new()).await?;
        let read: Option<u32> = tx
            .query_first(format!("SELECT client FROM {ins} WHERE id={id}"))
            .await?;
        tx.commit().await?;
        if read != Some(n) {
            let text = format!("row {id} is of client {read:?}, not of {n}");
            return Err(Error::Other(text.into()));
        }
        Ok(())
    }
}
