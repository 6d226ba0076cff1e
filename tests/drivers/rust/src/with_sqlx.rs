//! sqlx: prepares everything, keeps statements, sets its session up by itself.

use crate::{Outcome, Settings, check};
use sqlx::mysql::{MySqlConnectOptions, MySqlPool, MySqlPoolOptions, MySqlSslMode};
use sqlx::{Connection, Executor, MySqlConnection, Row};

fn options(settings: &Settings) -> MySqlConnectOptions {
    MySqlConnectOptions::new()
        .host("127.0.0.1")
        .port(settings.port)
        .username(&settings.user)
        .password(&settings.password)
        .database("shop")
        .ssl_mode(if settings.tls {
            MySqlSslMode::Required
        } else {
            MySqlSslMode::Disabled
        })
}

fn code<T>(result: Result<T, sqlx::Error>) -> u16 {
    match result {
        Err(sqlx::Error::Database(e)) => e
            .try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>()
            .map_or(0, |e| e.number()),
        _ => 0,
    }
}

pub async fn run(settings: &Settings) -> Outcome {
    let mut conn = MySqlConnection::connect_with(&options(settings)).await?;
    statements(&mut conn).await?;
    types(&mut conn).await?;
    transactions(&mut conn).await?;
    errors(&mut conn, settings).await?;
    conn.close().await?;
    let pool = MySqlPoolOptions::new()
        .max_connections(4)
        .connect_with(options(settings))
        .await?;
    several(&pool).await
}

async fn statements(conn: &mut MySqlConnection) -> Outcome {
    let insert = "INSERT INTO sqlx_items (name, price) VALUES (?, ?)";
    let done = sqlx::query(insert)
        .bind("ä 🦀")
        .bind("12.50")
        .execute(&mut *conn)
        .await?;
    check(
        done.rows_affected() == 1 && done.last_insert_id() > 0,
        "one row inserted",
    )?;
    for i in 0..20 {
        sqlx::query(insert)
            .bind(format!("p{i}"))
            .bind(i)
            .execute(&mut *conn)
            .await?;
    }
    let row = sqlx::query("SELECT name, CAST(price AS CHAR) FROM sqlx_items WHERE id = ?")
        .bind(done.last_insert_id())
        .fetch_one(&mut *conn)
        .await?;
    let read: (String, String) = (row.try_get(0)?, row.try_get(1)?);
    check(read == ("ä 🦀".into(), "12.50".into()), "the row read back")?;
    // By the text protocol.
    let raw = "UPDATE sqlx_items SET price = price + 1 WHERE name LIKE 'p%'";
    let done = conn.execute(raw).await?;
    check(done.rows_affected() == 20, "20 rows updated")?;
    let rows = sqlx::query("SELECT * FROM sqlx_items")
        .fetch_all(&mut *conn)
        .await?;
    check(rows.len() == 21, "21 rows")
}

async fn types(conn: &mut MySqlConnection) -> Outcome {
    let blob: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
    let insert = "INSERT INTO sqlx_types (id, big, d, at, bin, j) VALUES (?, ?, ?, ?, ?, ?)";
    sqlx::query(insert)
        .bind(1)
        .bind(u64::MAX)
        .bind(-1.5e10)
        .bind("2024-02-29 12:30:15.123456")
        .bind(&blob)
        .bind(r#"{"k": [1, "ü", null]}"#)
        .execute(&mut *conn)
        .await?;
    let none: Option<u64> = None;
    sqlx::query(insert)
        .bind(2)
        .bind(none)
        .bind(None::<f64>)
        .bind(None::<String>)
        .bind(None::<Vec<u8>>)
        .bind(None::<String>)
        .execute(&mut *conn)
        .await?;
    let sql = "SELECT big, d, CAST(at AS CHAR), bin FROM sqlx_types ORDER BY id";
    let rows = sqlx::query(sql).fetch_all(&mut *conn).await?;
    let first = rows.first().ok_or("no row")?;
    let at: String = first.try_get(2)?;
    let same = first.try_get::<u64, _>(0)? == u64::MAX
        && first.try_get::<f64, _>(1)? == -1.5e10
        && at == "2024-02-29 12:30:15.123456"
        && first.try_get::<Vec<u8>, _>(3)? == blob;
    check(same, "every type")?;
    let second = rows.get(1).ok_or("one row")?;
    check(second.try_get::<Option<u64>, _>(0)?.is_none(), "NULL")
}

async fn transactions(conn: &mut MySqlConnection) -> Outcome {
    let mut tx = conn.begin().await?;
    tx.execute("INSERT INTO sqlx_items (name, price) VALUES ('gone', 1)")
        .await?;
    tx.rollback().await?;
    let mut tx = conn.begin().await?;
    sqlx::query("INSERT INTO sqlx_items (name, price) VALUES (?, ?)")
        .bind("kept")
        .bind(1)
        .execute(&mut *tx)
        .await?;
    // A nested transaction is a savepoint.
    let mut nested = tx.begin().await?;
    nested
        .execute("UPDATE sqlx_items SET price = 0 WHERE name = 'kept'")
        .await?;
    nested.rollback().await?;
    tx.commit().await?;
    let sql = "SELECT name, CAST(price AS CHAR) FROM sqlx_items WHERE name IN ('gone', 'kept')";
    let rows: Vec<(String, String)> = sqlx::query_as(sql).fetch_all(&mut *conn).await?;
    check(
        rows == [("kept".to_string(), "1.00".to_string())],
        "the transactions",
    )
}

async fn errors(conn: &mut MySqlConnection, settings: &Settings) -> Outcome {
    let duplicate = sqlx::query("INSERT INTO sqlx_types (id) VALUES (?)").bind(1);
    check(
        code(duplicate.execute(&mut *conn).await) == 1062,
        "duplicate key",
    )?;
    check(code(conn.execute("SELEC").await) == 1064, "syntax")?;
    let nowhere = sqlx::query("SELECT * FROM sqlx_nowhere");
    check(code(nowhere.execute(&mut *conn).await) == 1146, "no table")?;
    let wrong = options(settings).password("wrong");
    check(
        code(MySqlConnection::connect_with(&wrong).await) == 1045,
        "wrong password",
    )?;
    conn.ping().await?;
    Ok(())
}

async fn several(pool: &MySqlPool) -> Outcome {
    let mut tasks = Vec::new();
    for i in 0..40u32 {
        let pool = pool.clone();
        tasks.push(tokio::spawn(async move {
            let mut tx = pool.begin().await?;
            let insert = "INSERT INTO sqlx_items (name, price) VALUES (?, ?)";
            let done = sqlx::query(insert)
                .bind(format!("w{i}"))
                .bind(i)
                .execute(&mut *tx)
                .await?;
            sqlx::query("UPDATE sqlx_items SET price = price + 1 WHERE id = ?")
                .bind(done.last_insert_id())
                .execute(&mut *tx)
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
    let sql = "SELECT COUNT(*) FROM sqlx_items WHERE name LIKE 'w%'";
    let count: i64 = sqlx::query_scalar(sql).fetch_one(pool).await?;
    pool.close().await;
    check(count == 30, "30 rows by the pool")
}
