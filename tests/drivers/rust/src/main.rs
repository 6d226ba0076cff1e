//! A script of real use with sqlx or mysql_async (the argument says which).
//! Everything it needs to know is in the environment; it prints "passed" and
//! exits 0, or says what failed.

mod with_mysql_async;
mod with_sqlx;

use std::error::Error;

/// Where to connect, and how.
pub struct Settings {
    pub port: u16,
    pub user: String,
    pub password: String,
    pub tls: bool,
}

pub type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

fn settings() -> Result<Settings, Box<dyn Error + Send + Sync>> {
    let var = |name: &str| std::env::var(name).map_err(|e| format!("{name}: {e}"));
    Ok(Settings {
        port: var("DRIVER_PORT")?.parse()?,
        user: var("DRIVER_USER")?,
        password: var("DRIVER_PASSWORD")?,
        tls: var("DRIVER_TLS")? == "1",
    })
}

/// As an error, so that the message says which expectation failed.
pub fn check(holds: bool, what: &str) -> Outcome {
    if holds {
        Ok(())
    } else {
        Err(what.to_string().into())
    }
}

#[tokio::main]
async fn main() -> Outcome {
    let settings = settings()?;
    match std::env::args().nth(1).as_deref() {
        Some("sqlx") => with_sqlx::run(&settings).await?,
        Some("mysql_async") => with_mysql_async::run(&settings).await?,
        other => return Err(format!("no such driver: {other:?}").into()),
    }
    println!("passed");
    Ok(())
}
