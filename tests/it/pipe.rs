//! The pipe from one side's log to the other side: what a plain follower of
//! keyed rows does not cover.

mod cascades;
mod files;
mod gap;
mod history;
mod keyless;
mod keys;
mod marks;
mod plans;
mod rolled_back;
mod statements;
mod wide;
mod xa;

use crate::binlog::{leg, legs, now, request};
use crate::follow::{account, catalog};
use crate::support::Server;
use crate::support::proc::block_on;
use lockstep::Side;
use lockstep::binlog::Position;
use lockstep::binlog::stream::BinlogStream;
use lockstep::copy::{self, Copier};
use lockstep::follow::batch::TableName;
use lockstep::follow::tables::{CatalogTables, Tables};
use lockstep::follow::writer::Worker;
use lockstep::follow::{FollowError, Follower, Mode, Status, cascade};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

pub fn name(schema: &str, table: &str) -> TableName {
    TableName {
        schema: schema.into(),
        table: table.into(),
    }
}

/// Servers are shared, and so is their private schema.
fn fresh_stream() -> &'static str {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("pipe-{}-{n}", std::process::id()).leak()
}

/// Ends clients whatever becomes of the test.
pub struct Stops<'a>(pub &'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// From one server to another, one schema.
#[derive(Clone, Copy)]
pub struct Pipe<'a> {
    pub source: &'a Server,
    pub target: &'a Server,
    pub schema: &'static str,
    pub stream: &'static str,
    /// Which side `source` is; the other direction reads the target.
    pub side: Side,
}

impl<'a> Pipe<'a> {
    pub fn new(source: &'a Server, target: &'a Server, schema: &'static str) -> Pipe<'a> {
        Pipe {
            source,
            target,
            schema,
            stream: fresh_stream(),
            side: Side::Source,
        }
    }

    pub fn exec_both(&self, sql: &str) {
        self.source.exec(sql);
        self.target.exec(sql);
    }

    pub fn now(&self) -> Position {
        now(self.source, false)
    }

    pub async fn tables(
        &self,
    ) -> Arc<CatalogTables<impl Fn(&[u8], &[u8]) -> bool + Send + Sync + use<>>> {
        let (source, target) = match self.side {
            Side::Source => (self.source, self.target),
            Side::Target => (self.target, self.source),
        };
        let catalog = catalog(source, target, self.schema).await;
        let schema = self.schema;
        let covers = move |db: &[u8], _: &[u8]| db == schema.as_bytes();
        let logged = cascade::are_logged(&account(self.source, self.side)).await;
        let tables = CatalogTables::new(catalog, self.side, covers);
        Arc::new(tables.with_cascades_logged(logged.expect("an answer")))
    }

    pub async fn follower(
        &self,
        tables: Arc<dyn Tables>,
        start: &Position,
        status: Arc<Status>,
    ) -> Result<Follower, FollowError> {
        let target = account(self.target, self.side.other());
        let workers = (0..4).map(|n| Worker::new(target.clone(), self.stream, n));
        Follower::new(
            workers.collect(),
            tables,
            start.clone(),
            status,
            Mode::Apply(Vec::new()),
        )
        .await
    }

    pub async fn stream(&self, from: &Position, until_end: bool) -> BinlogStream {
        let mut wanted = request(from.clone());
        wanted.until_end = until_end;
        // Distinct among the replicas of a shared server.
        let n = self.stream.rsplit('-').next().and_then(|n| n.parse().ok());
        let n: u32 = n.expect("a number");
        wanted.server_id = 4_100_000_000 + n;
        wanted.uuid = format!("5f0c1d7a-0000-4000-8000-{n:012}");
        let stream = BinlogStream::start(leg(self.source).await, &wanted).await;
        stream.expect("a stream")
    }

    /// Follows from the checkpoint, or `start`, to the log's end.
    pub fn catch_up(&self, start: &Position) -> Result<(), FollowError> {
        block_on(self.follow(start, true, Arc::default()))
    }

    pub async fn follow(
        &self,
        start: &Position,
        until_end: bool,
        status: Arc<Status>,
    ) -> Result<(), FollowError> {
        let tables = self.tables().await;
        let mut follower = self.follower(tables, start, status).await?;
        let from = follower.position().clone();
        let stream = self.stream(&from, until_end).await;
        let (_, no_chunks) = mpsc::channel(1);
        follower.run(stream, no_chunks).await
    }

    /// Copies tables beside a follower, until all is copied.
    pub async fn copy(
        &self,
        tables: &[&str],
        start: &Position,
        status: Arc<copy::Status>,
    ) -> Result<(), String> {
        let throttle = copy::Throttle::none();
        self.copy_throttled(tables, start, status, throttle).await
    }

    pub async fn copy_throttled(
        &self,
        tables: &[&str],
        start: &Position,
        status: Arc<copy::Status>,
        throttle: copy::Throttle,
    ) -> Result<(), String> {
        let known = self.tables().await;
        let mut follower = self
            .follower(known.clone(), start, Arc::default())
            .await
            .map_err(|e| e.to_string())?;
        let from = follower.position().clone();
        let stream = self.stream(&from, false).await;
        let (chunks, received) = mpsc::channel(4);
        let accounts = [
            account(self.source, self.side),
            account(self.target, self.side.other()),
        ];
        let windows = follower.windows();
        let legs = legs(self.source);
        let copier = Copier::new(accounts, legs, self.stream, known, windows, chunks, status);
        let copier = copier.with_throttle(throttle);
        let names: Vec<TableName> = tables.iter().map(|t| name(self.schema, t)).collect();
        copier.prepare(&names).await.map_err(|e| e.to_string())?;
        tokio::select! {
            ended = follower.run(stream, received) => Err(format!("the follower ended: {ended:?}")),
            done = copier.run(&names, 4) => done.map_err(|e| e.to_string()),
        }
    }

    /// The same, cut off again and again; the number of lives.
    pub fn copy_in_lives(&self, tables: &[&str], start: &Position, first_ms: u64) -> u64 {
        let mut lives = 0;
        loop {
            lives += 1;
            assert!(lives < 60, "it does not get on");
            let life = self.copy(tables, start, Arc::default());
            let cut = Duration::from_millis(first_ms + 150 * lives);
            match block_on(async { tokio::time::timeout(cut, life).await }) {
                Ok(Ok(())) => return lives,
                Ok(Err(e)) => panic!("life {lives}: {e}"),
                Err(_) => {}
            }
        }
    }
}
