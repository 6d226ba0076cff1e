//! mysql_async: prepared by default, a pool that resets its connections.

use crate::{Outcome, Settings, check};
use mysql_async::prelude::Queryable;
use mysql_async::{
    ChangeUserOpts, Conn, Error, OptsBuilder, Pool, PoolConstraints, PoolOpts, SslOpts, TxOpts,
};

fn opts(settings: &Settings) -> OptsBuilder {
    let tls = SslOpts::default()
        .with_danger_accept_invalid_certs(true)
        .with_danger_skip_domain_validation(true);
    OptsBuilder::default()
        .ip_or_hostname("127.0.0.1")
        .tcp_port(settings.port)
        .user(Some(&settings.user))
        .pass(Some(&settings.password))
        .db_name(Some("shop"))
        .prefer_socket(false)
        .ssl_opts(settings.tls.then_some(tls))
}

fn code(result: Result<(), Error>) -> u16 {
    match result {
        Err(Error::Server(e)) => e.code,
        _ => 0,
    }
}

pub async fn run(settings: &Settings) -> Outcome {
    let mut conn = Conn::new(opts(settings)).await?;
    statements(&mut conn).await?;
    types(&mut conn).await?;
    transactions(&mut conn).await?;
    errors(&mut conn, settings).await?;
    conn.disconnect().await?;
    pool(settings).await
}

async fn statements(conn: &mut Conn) -> Outcome {
    let insert = "INSERT INTO async_items (name, price) VALUES (?, ?)";
    conn.exec_drop(insert, ("ä 🦀", "12.50")).await?;
    check(conn.affected_rows() == 1, "one row inserted")?;
    let id = conn.last_insert_id().unwrap_or_default();
    check(id > 0, "an id generated")?;
    conn.exec_batch(insert, (0..20).map(|i| (format!("p{i}"), i)))
        .await?;
    let row: Option<(String, String)> = conn
        .exec_first("SELECT name, price FROM async_items WHERE id = ?", (id,))
        .await?;
    check(
        row == Some(("ä 🦀".into(), "12.50".into())),
        "the row read back",
    )?;
    conn.query_drop("UPDATE async_items SET price = price + 1 WHERE name LIKE 'p%'")
        .await?;
    check(conn.affected_rows() == 20, "20 rows updated")?;
    check(conn.info().contains("Changed: 20"), "the info text")?;
    let count: Option<u32> = conn.query_first("SELECT COUNT(*) FROM async_items").await?;
    check(count == Some(21), "21 rows")
}

async fn types(conn: &mut Conn) -> Outcome {
    let blob: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
    let insert = "INSERT INTO async_types (id, big, d, at, bin, j) VALUES (?, ?, ?, ?, ?, ?)";
    let at = "2024-02-29 12:30:15.123456";
    let json = r#"{"k": [1, "ü", null]}"#;
    conn.exec_drop(insert, (1, u64::MAX, -1.5e10, at, &blob, json))
        .await?;
    let none: Option<u64> = None;
    conn.exec_drop(insert, (2, none, none, none, none, none))
        .await?;
    type Types = (u64, f64, String, Vec<u8>);
    let read = "SELECT big, d, CAST(at AS CHAR), bin FROM async_types WHERE id = ?";
    let row: Option<Types> = conn.exec_first(read, (1,)).await?;
    check(
        row == Some((u64::MAX, -1.5e10, at.into(), blob)),
        "every type",
    )?;
    let null: Option<Option<u64>> = conn
        .query_first("SELECT big FROM async_types WHERE id = 2")
        .await?;
    check(null == Some(None), "NULL")
}

async fn transactions(conn: &mut Conn) -> Outcome {
    let mut tx = conn.start_transaction(TxOpts::default()).await?;
    tx.query_drop("INSERT INTO async_items (name, price) VALUES ('gone', 1)")
        .await?;
    tx.rollback().await?;
    let mut tx = conn.start_transaction(TxOpts::default()).await?;
    tx.exec_drop(
        "INSERT INTO async_items (name, price) VALUES (?, ?)",
        ("kept", 1),
    )
    .await?;
    tx.query_drop("SAVEPOINT s").await?;
    tx.query_drop("UPDATE async_items SET price = 0 WHERE name = 'kept'")
        .await?;
    tx.query_drop("ROLLBACK TO s").await?;
    tx.commit().await?;
    let rows: Vec<(String, String)> = conn
        .query("SELECT name, price FROM async_items WHERE name IN ('gone', 'kept')")
        .await?;
    check(
        rows == [("kept".to_string(), "1.00".to_string())],
        "the transactions",
    )
}

async fn errors(conn: &mut Conn, settings: &Settings) -> Outcome {
    let duplicate = conn
        .exec_drop("INSERT INTO async_types (id) VALUES (?)", (1,))
        .await;
    check(code(duplicate) == 1062, "duplicate key")?;
    check(code(conn.query_drop("SELEC").await) == 1064, "syntax")?;
    let nowhere = conn.exec_drop("SELECT * FROM async_nowhere", ()).await;
    check(code(nowhere) == 1146, "no table")?;
    let wrong = Conn::new(opts(settings).pass(Some("wrong"))).await;
    check(code(wrong.map(drop)) == 1045, "wrong password")?;
    conn.reset().await?;
    conn.change_user(ChangeUserOpts::default()).await?;
    conn.ping().await?;
    Ok(())
}

async fn pool(settings: &Settings) -> Outcome {
    let constraints = PoolConstraints::new(1, 4).ok_or("constraints")?;
    let pool_opts = PoolOpts::default().with_constraints(constraints);
    let pool = Pool::new(opts(settings).pool_opts(pool_opts));
    let mut tasks = Vec::new();
    for i in 0..40u32 {
        let pool = pool.clone();
        tasks.push(tokio::spawn(async move {
            let mut tx = pool.start_transaction(TxOpts::default()).await?;
            let insert = "INSERT INTO async_items (name, price) VALUES (?, ?)";
            tx.exec_drop(insert, (format!("w{i}"), i)).await?;
            let id = tx.last_insert_id();
            tx.exec_drop(
                "UPDATE async_items SET price = price + 1 WHERE id = ?",
                (id,),
            )
            .await?;
            if i % 4 == 0 {
                tx.rollback().await
            } else {
                tx.commit().await
            }
        }));
    }
    for task in tasks {
        task.await??;
    }
    let mut conn = pool.get_conn().await?;
    let sql = "SELECT COUNT(*) FROM async_items WHERE name LIKE 'w%'";
    let count: Option<u32> = conn.query_first(sql).await?;
    drop(conn);
    pool.disconnect().await?;
    check(count == Some(30), "30 rows by the pool")
}
