//! Accounts and their grants.
//!
//! Statements that hold a password's hash are given to the target and to
//! nobody else: notes name accounts and rights, and a refusal of such a
//! statement is told by its number alone, for servers quote from the text.

use super::notes::{Object, Outcome, Report, Subject};
use super::session::{Refused, Session, exact};
use super::tokens::{quote_text, tokens};
use super::{Pair, SchemaError};
use crate::rows::service::text;

/// Accounts of the servers themselves.
const OWN: [&str; 6] = [
    "mysql.sys",
    "mysql.session",
    "mysql.infoschema",
    "mariadb.sys",
    "PUBLIC",
    "root",
];

/// An account, and how it logs in.
struct Account {
    user: String,
    host: String,
    plugin: String,
}

impl Account {
    fn title(&self) -> String {
        format!("{}@{}", self.user, self.host)
    }

    fn sql(&self) -> String {
        format!("{}@{}", quote_text(&self.user), quote_text(&self.host))
    }
}

/// Makes the source's accounts on the target where they are missing. Those
/// that are there are left, with their rights.
pub(super) async fn carry(pair: &mut Pair, report: &mut Report) -> Result<(), SchemaError> {
    let plugins = plugins(&mut pair.target).await?;
    let has = accounts(&mut pair.target).await?;
    let us = pair.source.one("SELECT CURRENT_USER()").await?;
    // Hashes as hexadecimal numbers: some hold bytes that are not text.
    if let Err(Refused::Lost(e)) = pair.source.run("SET print_identified_with_as_hex=1").await {
        return Err(e);
    }
    for account in accounts(&mut pair.source).await? {
        let own = OWN.iter().any(|o| *o == account.user) || us.as_deref() == Some(&account.title());
        if own {
            continue;
        }
        let subject = Subject::new(Object::Account, "", &account.title());
        let there = has
            .iter()
            .any(|a| a.user == account.user && a.host == account.host);
        if there {
            report.existing += 1;
            continue;
        }
        let plugin = account.plugin.to_lowercase();
        if !plugin.is_empty() && !plugins.contains(&plugin) {
            let why = format!(
                "the target has no plugin {plugin}: make it there with a password of its own, and name it under `users:`"
            );
            report.notes.push(subject.note(Outcome::Missing, "", why));
            continue;
        }
        if make(pair, &account, &subject, report).await? {
            grants(pair, &account, &subject, report).await?;
        }
    }
    Ok(())
}

async fn accounts(session: &mut Session) -> Result<Vec<Account>, SchemaError> {
    let sql = "SELECT User, Host, plugin FROM mysql.user WHERE Host <> '' ORDER BY User, Host";
    let rows = session.rows(sql).await?;
    let one = |row| {
        Some(Account {
            user: exact(row, 0)?,
            host: exact(row, 1)?,
            plugin: text(row, 2).unwrap_or_default(),
        })
    };
    Ok(rows.iter().filter_map(one).collect())
}

async fn plugins(session: &mut Session) -> Result<Vec<String>, SchemaError> {
    let sql = "SELECT LOWER(PLUGIN_NAME) FROM information_schema.PLUGINS \
               WHERE PLUGIN_TYPE = 'AUTHENTICATION' AND PLUGIN_STATUS = 'ACTIVE'";
    Ok(session.column(sql).await?)
}

async fn make(
    pair: &mut Pair,
    account: &Account,
    subject: &Subject,
    report: &mut Report,
) -> Result<bool, SchemaError> {
    let show = format!("SHOW CREATE USER {}", account.sql());
    let sql = match pair.source.one(&show).await {
        Ok(Some(sql)) => sql,
        Ok(None) => return Ok(false),
        Err(Refused::Server(code, _)) => {
            let why = format!("the source does not show it ({code})");
            report.notes.push(subject.note(Outcome::Missing, "", why));
            return Ok(false);
        }
        Err(e) => return Err(e.into()),
    };
    match pair.target.run(&sql).await {
        Ok(()) => {
            report.created.push(subject.title());
            Ok(true)
        }
        Err(Refused::Server(code, _)) => {
            let why = format!("the target refused CREATE USER (error {code})");
            report.notes.push(subject.note(Outcome::Missing, "", why));
            Ok(false)
        }
        Err(e) => Err(e.into()),
    }
}

async fn grants(
    pair: &mut Pair,
    account: &Account,
    subject: &Subject,
    report: &mut Report,
) -> Result<(), SchemaError> {
    let show = format!("SHOW GRANTS FOR {}", account.sql());
    let all = match pair.source.column(&show).await {
        Ok(all) => all,
        Err(Refused::Server(code, _)) => {
            let why = format!("the source does not show its grants ({code})");
            report
                .notes
                .push(subject.note(Outcome::Missing, "grants", why));
            return Ok(());
        }
        Err(e) => return Err(e.into()),
    };
    for grant in all {
        let grant = without_password(&grant);
        match pair.target.run(&grant).await {
            Ok(()) => {}
            Err(Refused::Server(code, _)) => {
                let what = grant.split(" TO ").next().unwrap_or_default();
                let why = format!("the target refused it (error {code})");
                report.notes.push(subject.note(Outcome::Missing, what, why));
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// A grant without `IDENTIFIED BY PASSWORD '…'`, which MariaDB prints.
fn without_password(grant: &str) -> String {
    let all = tokens(grant);
    let Some(at) = all.iter().position(|t| t.is("IDENTIFIED")) else {
        return grant.to_owned();
    };
    let rest = all.iter().enumerate().skip(at + 1);
    let end = rest
        .filter(|(_, t)| t.is("REQUIRE") || t.is("WITH"))
        .map(|(n, _)| n)
        .next();
    let mut out = super::tokens::join(all.get(..at).unwrap_or_default());
    if let Some(tail) = end.and_then(|e| all.get(e..)) {
        out.push(' ');
        out.push_str(&super::tokens::join(tail));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::without_password;

    #[test]
    fn no_hash_is_granted() {
        let grant =
            "GRANT SELECT ON `a`.* TO `u`@`%` IDENTIFIED BY PASSWORD '*ABC' WITH GRANT OPTION";
        let bare = "GRANT SELECT ON `a`.* TO `u`@`%` WITH GRANT OPTION";
        assert_eq!(without_password(grant), bare);
        assert_eq!(without_password(bare), bare);
    }
}
