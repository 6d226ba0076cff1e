//! What the clients do, and the tables they do it on.

use super::client::{Client, Param};
use super::crowd::Endpoint;
use super::support::servers::Server;
use std::io::{Error, Result};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub const DATABASE: &str = "test";
/// The tables that both sides hold alike.
pub const BOTH: [&str; 2] = ["test.rows_both", "test.log_both"];
/// Rows of each table of small rows.
pub const ROWS: u64 = 10_000;
/// Rows of a range in `oltp_read_write`, as sysbench has it.
const RANGE: u64 = 100;
const POINTS: usize = 10;
/// Deadlock, lock timeout, and the duplicate key of two sessions that delete
/// and insert one row: the transaction is given up.
const GIVE_UP: [u16; 3] = [1213, 1205, 1062];

/// No two workers throw the same dice: the updates of an earlier one, made
/// again, would change nothing.
static SEED: AtomicU64 = AtomicU64::new(1);

/// One kind of load.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// One row by its key, text protocol.
    PointText,
    /// The same, prepared.
    PointPrepared,
    /// 1,000 rows of 200 bytes.
    Wide,
    /// sysbench's `oltp_read_write`: 20 statements, all but BEGIN and COMMIT
    /// prepared.
    ReadWrite,
    /// A connection, one row by its key, COM_QUIT.
    Login,
    /// An autocommit update by key, of an indexed column.
    Update,
    /// The same of a column without an index.
    UpdatePlain,
    /// An autocommit insert with a generated id.
    Insert,
}

/// Where the load goes: tables that only one side has written, or both.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Tables {
    Alone,
    Both,
}

impl Tables {
    fn suffix(self) -> &'static str {
        match self {
            Tables::Alone => "alone",
            Tables::Both => "both",
        }
    }
}

/// The same tables with the same rows.
pub fn create(server: &Server) {
    let mut sql = format!("USE {DATABASE};\n");
    for tables in ["alone", "both"] {
        sql.push_str(&format!(
            "CREATE TABLE rows_{tables} (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, \
             k INT NOT NULL, c CHAR(120) NOT NULL, pad CHAR(60) NOT NULL, KEY k (k)) ENGINE=InnoDB;\n\
             INSERT INTO rows_{tables} SELECT seq, CRC32(seq) % {ROWS}, \
             REPEAT(MD5(seq), 3), MD5(seq + 1) FROM seq_1_to_{ROWS};\n\
             CREATE TABLE log_{tables} (id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, \
             v BIGINT NOT NULL, c CHAR(120) NOT NULL) ENGINE=InnoDB;\n"
        ));
    }
    sql.push_str(
        "CREATE TABLE wide (id INT NOT NULL PRIMARY KEY, c CHAR(200) NOT NULL) ENGINE=InnoDB;\n\
         INSERT INTO wide SELECT seq, LEFT(REPEAT(MD5(seq), 7), 200) FROM seq_1_to_1000;\n\
         ANALYZE TABLE rows_alone, rows_both, wide;\n",
    );
    server.exec(&sql);
}

/// A client's statements and dice.
pub struct Worker {
    work: Work,
    tables: Tables,
    port: u16,
    client: Client,
    /// The other server, where the client itself writes to both.
    other: Option<Client>,
    statements: Vec<u32>,
    text: String,
    dice: u64,
}

impl Worker {
    pub async fn new(to: &Endpoint, work: Work) -> Result<Worker> {
        let Endpoint { port, tables, .. } = *to;
        let mut client = Client::connect(port, DATABASE).await?;
        let mut other = None;
        if let Some(port) = to.other {
            let mut second = Client::connect(port, DATABASE).await?;
            for client in [&mut client, &mut second] {
                fine(client.query(b"SET autocommit=0").await?.error_code)?;
            }
            other = Some(second);
        }
        let rows = format!("rows_{}", tables.suffix());
        let mut statements = Vec::new();
        for sql in prepared(work, &rows) {
            statements.push(client.prepare(sql.as_bytes()).await?);
        }
        Ok(Worker {
            work,
            tables,
            port,
            client,
            other,
            statements,
            text: String::new(),
            dice: SEED
                .fetch_add(1, Relaxed)
                .wrapping_mul(0x9E37_79B9_7F4A_7C15),
        })
    }

    /// One unit of work; the number of statements it took.
    pub async fn step(&mut self) -> Result<u64> {
        let id = self.id();
        let suffix = self.tables.suffix();
        match self.work {
            Work::PointPrepared => {
                let statement = self.statement(0)?;
                fine(self.client.execute(statement, &[Param::Int(id)]).await?.error_code)?;
                return Ok(1);
            }
            Work::ReadWrite => return self.read_write().await,
            Work::Login => return self.login(id).await,
            Work::PointText => self.say(format_args!("SELECT c FROM rows_{suffix} WHERE id={id}")),
            Work::Wide => self.say(format_args!("SELECT c FROM wide")),
            Work::Update => self.say(format_args!(
                "UPDATE rows_{suffix} SET k=k+1 WHERE id={id}"
            )),
            Work::UpdatePlain => {
                let pad = self.dice;
                self.say(format_args!(
                    "UPDATE rows_{suffix} SET pad='{pad}' WHERE id={id}"
                ));
            }
            Work::Insert => self.say(format_args!(
                "INSERT INTO log_{suffix} (v, c) VALUES ({id}, 'a row of some length, as logs have them')"
            )),
        }
        let text = self.text.as_bytes();
        fine(self.client.query(text).await?.error_code)?;
        if let Some(other) = &mut self.other {
            fine(other.query(text).await?.error_code)?;
            for client in [&mut self.client, other] {
                fine(client.query(b"COMMIT").await?.error_code)?;
            }
        }
        Ok(1)
    }

    /// Opens the leg to the mirror, where there is one.
    pub async fn touch(&mut self) -> Result<()> {
        let id = self.id();
        let sql = format!(
            "UPDATE rows_{} SET k=k+1 WHERE id={id}",
            self.tables.suffix()
        );
        fine(self.client.query(sql.as_bytes()).await?.error_code)
    }

    async fn login(&mut self, id: u64) -> Result<u64> {
        let mut client = Client::connect(self.port, DATABASE).await?;
        let sql = format!("SELECT c FROM rows_{} WHERE id={id}", self.tables.suffix());
        fine(client.query(sql.as_bytes()).await?.error_code)?;
        client.quit().await?;
        Ok(1)
    }

    async fn read_write(&mut self) -> Result<u64> {
        let mut count = 1;
        fine(self.client.query(b"BEGIN").await?.error_code)?;
        for step in self.transaction() {
            let statement = self.statement(step.0)?;
            let pad = format!("{:0>60}", step.1[0]);
            let params: Vec<Param<'_>> = match step.0 {
                0 | 6 => vec![Param::Int(step.1[0])],
                1..=4 => vec![Param::Int(step.1[0]), Param::Int(step.1[0] + RANGE - 1)],
                5 => vec![Param::Int(step.1[0])],
                7 => vec![Param::Text(pad.as_bytes()), Param::Int(step.1[0])],
                _ => vec![
                    Param::Int(step.1[0]),
                    Param::Int(step.1[1]),
                    Param::Text(pad.as_bytes()),
                    Param::Text(pad.as_bytes()),
                ],
            };
            let code = self.client.execute(statement, &params).await?.error_code;
            count += 1;
            if GIVE_UP.contains(&code) {
                fine(self.client.query(b"ROLLBACK").await?.error_code)?;
                return Ok(count + 1);
            }
            fine(code)?;
        }
        fine(self.client.query(b"COMMIT").await?.error_code)?;
        Ok(count + 1)
    }

    /// Statements of one transaction, by their place in [`prepared`], each
    /// with two dice.
    fn transaction(&mut self) -> Vec<(usize, [u64; 2])> {
        let order = [[0; POINTS].as_slice(), &[1, 2, 3, 4, 5, 7]].concat();
        let mut steps: Vec<_> = order.iter().map(|s| (*s, [self.id(), self.id()])).collect();
        let again = [self.id(), self.id()];
        steps.push((6, again));
        steps.push((8, again));
        steps
    }

    fn say(&mut self, sql: std::fmt::Arguments<'_>) {
        use std::fmt::Write;
        self.text.clear();
        let _ = self.text.write_fmt(sql);
    }

    fn statement(&self, n: usize) -> Result<u32> {
        let id = self.statements.get(n).copied();
        id.ok_or_else(|| Error::other("a statement that was not prepared"))
    }

    fn id(&mut self) -> u64 {
        self.dice ^= self.dice >> 12;
        self.dice ^= self.dice << 25;
        self.dice ^= self.dice >> 27;
        1 + (self.dice.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % ROWS
    }
}

fn fine(code: u16) -> Result<()> {
    if code == 0 {
        Ok(())
    } else {
        Err(Error::other(format!("the server said error {code}")))
    }
}

fn prepared(work: Work, rows: &str) -> Vec<String> {
    let point = format!("SELECT c FROM {rows} WHERE id=?");
    match work {
        Work::PointPrepared => vec![point],
        Work::ReadWrite => vec![
            point,
            format!("SELECT c FROM {rows} WHERE id BETWEEN ? AND ?"),
            format!("SELECT SUM(k) FROM {rows} WHERE id BETWEEN ? AND ?"),
            format!("SELECT c FROM {rows} WHERE id BETWEEN ? AND ? ORDER BY c"),
            format!("SELECT DISTINCT c FROM {rows} WHERE id BETWEEN ? AND ? ORDER BY c"),
            format!("UPDATE {rows} SET k=k+1 WHERE id=?"),
            format!("DELETE FROM {rows} WHERE id=?"),
            format!("UPDATE {rows} SET c=? WHERE id=?"),
            format!("INSERT INTO {rows} (id, k, c, pad) VALUES (?, ?, ?, ?)"),
        ],
        _ => Vec::new(),
    }
}
