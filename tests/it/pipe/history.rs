//! A log that is not the one that was followed any more.

use super::Pipe;
use crate::binlog::{leg, request};
use crate::follow::account;
use crate::or_skip;
use crate::support::proc::block_on;
use crate::support::servers::ServerOptions;
use crate::support::{Family, Server};
use lockstep::Side;
use lockstep::binlog::Position;
use lockstep::binlog::stream::StreamError;
use lockstep::follow::FollowError;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Follows to the log's end, after a look at the last event of the time before.
async fn verified(pipe: &Pipe<'_>, start: &Position) -> Result<(), FollowError> {
    let tables = pipe.tables().await;
    let mut follower = pipe.follower(tables, start, Arc::default()).await?;
    let wanted = request(follower.position().clone());
    let account = account(pipe.source, Side::Source);
    follower
        .verify(&account, leg(pipe.source).await, &wanted)
        .await?;
    let from = follower.position().clone();
    let stream = pipe.stream(&from, true).await;
    let (_, no_chunks) = mpsc::channel(1);
    follower.run(stream, no_chunks).await
}

fn is_lost(ended: Result<(), FollowError>) -> Result<(), String> {
    match ended {
        Err(FollowError::Stream(StreamError::HistoryLost { .. })) => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

#[test]
fn a_lost_tail_is_seen() {
    for family in Family::BOTH {
        let target = or_skip!(crate::support::servers::shared(family, 1));
        for (case, extra) in [("checksums", ""), ("none", "--binlog-checksum=NONE")] {
            let mut options = ServerOptions::default();
            options
                .args
                .extend((!extra.is_empty()).then(|| extra.to_string()));
            let source = or_skip!(Server::start(family, options));
            let pipe = Pipe::new(&source, target, "ph");
            pipe.exec_both("DROP DATABASE IF EXISTS ph; CREATE DATABASE ph");
            pipe.exec_both("CREATE TABLE ph.a (id INT PRIMARY KEY)");
            let start = pipe.now();
            for id in 0..5 {
                source.exec(&format!("INSERT INTO ph.a VALUES ({id})"));
            }
            let run = || block_on(verified(&pipe, &start));
            run().unwrap_or_else(|e| panic!("{family} {case}: {e}"));
            run().unwrap_or_else(|e| panic!("{family} {case}, again: {e}"));
            // A restart is nothing.
            source.restart();
            source.exec("INSERT INTO ph.a VALUES (10)");
            run().unwrap_or_else(|e| panic!("{family} {case}, restarted: {e}"));
            // The server loses the last event and writes others in its place.
            truncated(&source);
            source.exec("INSERT INTO ph.a VALUES (11)");
            source.exec("INSERT INTO ph.a VALUES (12)");
            is_lost(run()).unwrap_or_else(|e| panic!("{family} {case}, cut: {e}"));
            // A new log.
            source.exec(match family {
                Family::MariaDb => "RESET MASTER",
                Family::MySql => "RESET BINARY LOGS AND GTIDS",
            });
            for id in 20..40 {
                source.exec(&format!("INSERT INTO ph.a VALUES ({id})"));
            }
            is_lost(run()).unwrap_or_else(|e| panic!("{family} {case}, reset: {e}"));
            // Another server.
            let other = or_skip!(Server::start(family, ServerOptions::default()));
            other.exec("CREATE DATABASE ph; CREATE TABLE ph.a (id INT PRIMARY KEY)");
            let moved = Pipe {
                source: &other,
                ..pipe
            };
            let ended = block_on(verified(&moved, &start));
            is_lost(ended).unwrap_or_else(|e| panic!("{family} {case}, other: {e}"));
        }
    }
}

/// Cuts the last transaction off the newest log of a stopped server.
fn truncated(server: &Server) {
    let file = match crate::binlog::now(server, true) {
        Position::File { file, .. } => file,
        other => panic!("{other}"),
    };
    server.kill9();
    let path = server.datadir().join(file);
    let length = std::fs::metadata(&path).expect("the log").len();
    let log = std::fs::OpenOptions::new().write(true).open(&path);
    log.and_then(|f| f.set_len(length - 40)).expect("cut");
    server.restart();
}
