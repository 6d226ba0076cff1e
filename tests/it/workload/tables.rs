//! The tables of the load: which writes on them are mirrored inline.

use super::ROWS;
use crate::support::Server;

/// The isolation levels the tests run at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Isolation {
    RepeatableRead,
    ReadCommitted,
}

impl Isolation {
    pub const BOTH: [Isolation; 2] = [Isolation::RepeatableRead, Isolation::ReadCommitted];

    pub fn sql(self) -> &'static str {
        match self {
            Isolation::RepeatableRead => "REPEATABLE READ",
            Isolation::ReadCommitted => "READ COMMITTED",
        }
    }
}

/// One set of tables, in two groups with a route each.
#[derive(Clone, Debug)]
pub struct Tables {
    /// `(id, v)`, ten rows: 16 clients update them.
    pub hot: String,
    /// Auto-increment, inserts only.
    pub ins: String,
    /// `(k, v, c)`, only the primary key is unique: upserts, replaces, deletes.
    pub ups: String,
    /// `(id, status, n)`: optimistic locking that mostly matches nothing.
    pub opt: String,
    /// Deadlocking pairs.
    pub dead: String,
    /// Savepoints.
    pub sp: String,
    /// The victims of KILL QUERY.
    pub killed: String,
    /// At READ COMMITTED upserts and predicates beside the key are deferred.
    isolation: Isolation,
}

impl Tables {
    /// Names in database `t`: `{prefix}s_*` are strict, `{prefix}l_*` loose.
    pub fn new(prefix: &str, isolation: Isolation) -> Tables {
        let strict = |name: &str| format!("t.{prefix}s_{name}");
        let loose = |name: &str| format!("t.{prefix}l_{name}");
        let by_isolation = |name: &str| match isolation {
            Isolation::RepeatableRead => strict(name),
            Isolation::ReadCommitted => loose(name),
        };
        Tables {
            hot: strict("hot"),
            ins: strict("ins"),
            ups: by_isolation("ups"),
            opt: by_isolation("opt"),
            dead: strict("dead"),
            sp: strict("sp"),
            killed: loose("killed"),
            isolation,
        }
    }

    /// The isolation that their clients run at.
    pub fn isolation(&self) -> Isolation {
        self.isolation
    }

    pub fn all(&self) -> Vec<&str> {
        vec![
            &self.hot,
            &self.ins,
            &self.ups,
            &self.opt,
            &self.dead,
            &self.sp,
            &self.killed,
        ]
    }

    /// Tables whose every write is mirrored inline.
    pub fn strict(&self) -> Vec<&str> {
        let mut all = self.all();
        all.retain(|t| !self.loose().contains(t));
        all
    }

    /// Tables with writes that may be deferred by design: a KILL QUERY can
    /// swallow the BEGIN, and below REPEATABLE READ rows examined and not
    /// matched are not locked.
    pub fn loose(&self) -> Vec<&str> {
        match self.isolation {
            Isolation::RepeatableRead => vec![&self.killed],
            Isolation::ReadCommitted => vec![&self.killed, &self.ups, &self.opt],
        }
    }

    /// Creates and fills them, straight on a server.
    pub fn create(&self, server: &Server) {
        let mut sql = String::new();
        for table in [&self.hot, &self.dead, &self.sp, &self.killed] {
            sql.push_str(&format!(
                "DROP TABLE IF EXISTS {table};\n\
                 CREATE TABLE {table} (id INT PRIMARY KEY, v BIGINT NOT NULL);\n\
                 INSERT INTO {table} VALUES {};\n",
                values(|id| format!("({id}, {id})"))
            ));
        }
        sql.push_str(&format!(
            "DROP TABLE IF EXISTS {ins};\n\
             CREATE TABLE {ins} (id BIGINT AUTO_INCREMENT PRIMARY KEY, client INT NOT NULL, \
             s VARCHAR(40), at DATETIME(6));\n\
             DROP TABLE IF EXISTS {ups};\n\
             CREATE TABLE {ups} (k INT PRIMARY KEY, v BIGINT NOT NULL, c INT NOT NULL);\n\
             DROP TABLE IF EXISTS {opt};\n\
             CREATE TABLE {opt} (id INT PRIMARY KEY, status VARCHAR(8), n INT NOT NULL);\n\
             INSERT INTO {opt} VALUES {rows};\n",
            ins = self.ins,
            ups = self.ups,
            opt = self.opt,
            rows = values(|id| format!("({id}, 'x', 0)"))
        ));
        server.exec(&sql);
    }
}

fn values(row: impl Fn(u32) -> String) -> String {
    let rows: Vec<String> = (1..=ROWS).map(row).collect();
    rows.join(", ")
}
