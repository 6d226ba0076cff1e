//! Which clients' accounts can log in on the other side.

use std::collections::BTreeMap;

use super::{At, Checked, Context, Findings};
use crate::Side;
use crate::rows::service::text;
use crate::schema::{Refused, SchemaError};

/// Accounts of the servers themselves.
const OWN: [&str; 6] = [
    "mysql.sys",
    "mysql.session",
    "mysql.infoschema",
    "mariadb.sys",
    "PUBLIC",
    "root",
];

/// Plugins whose clients' answers open the other side, where it has the same.
const PASSED_ON: [&str; 2] = ["mysql_native_password", "caching_sha2_password"];

/// By user and host: plugin and hash, which is compared and never shown.
type Accounts = BTreeMap<(String, String), (String, String)>;

/// Compares the accounts of both sides.
pub async fn check(
    source: &mut Checked,
    target: &mut Checked,
    context: &Context,
    findings: &mut Findings,
) -> Result<(), SchemaError> {
    // Not readable: said among the grants.
    let (Some(theirs), Some(ours)) = (accounts(source).await?, accounts(target).await?) else {
        return Ok(());
    };
    let service = [&context.accounts[0].user, &context.accounts[1].user];
    for ((user, host), (plugin, hash)) in &theirs {
        let own = OWN.contains(&user.as_str()) || service.contains(&user);
        if own || user.is_empty() || context.users.contains(user) {
            continue;
        }
        let name = format!("{user}@{host}");
        let at = At::TableOn(Side::Target, &name);
        let remedy = "make it there with the same rights, and name it under `users:` where the password is another";
        match ours.get(&(user.clone(), host.clone())) {
            None => {
                let why = "the account is not on the target: its sessions have one side only, their writes are deferred";
                findings.warning("account_missing", at, why, remedy);
            }
            Some((other, _)) if other != plugin && plugin == "caching_sha2_password" => {
                let why = format!(
                    "it logs in by {plugin} on the source and by {other} on the target: its password is learnt from logins over TLS, and not any more once the target is home"
                );
                findings.info(
                    "account_plugin",
                    at,
                    why,
                    "name it under `users:` in the settings, or let clients use TLS",
                );
            }
            Some((other, _)) if other != plugin => {
                let why = format!(
                    "it logs in by {plugin} on the source, from which the password is not learnt, and by {other} on the target: its sessions have one side only"
                );
                findings.warning(
                    "account_plugin",
                    at,
                    why,
                    "name it under `users:` in the settings",
                );
            }
            Some((other, _)) if !PASSED_ON.contains(&other.as_str()) => {
                let why = format!("{other}: the password is not learnt from a login");
                findings.warning(
                    "account_plugin",
                    at,
                    why,
                    "name it under `users:` in the settings",
                );
            }
            // Salted hashes differ for one password.
            Some((other, there)) if other == "mysql_native_password" && there != hash => {
                let why = "its password is another on the target";
                findings.warning(
                    "account_password",
                    at,
                    why,
                    "give it the source's, or name it under `users:`",
                );
            }
            Some(_) => {}
        }
    }
    Ok(())
}

async fn accounts(checked: &mut Checked) -> Result<Option<Accounts>, SchemaError> {
    let roles = if checked.session.server.mariadb {
        "is_role = 'N'"
    } else {
        "account_locked = 'N'"
    };
    let sql = format!(
        "SELECT User, Host, plugin, HEX(authentication_string) FROM mysql.user WHERE {roles}"
    );
    match checked.session.rows(&sql).await {
        Ok(rows) => Ok(Some(
            rows.iter()
                .map(|r| {
                    let of = |n| text(r, n).unwrap_or_default();
                    let plugin = match of(2) {
                        // MariaDB of old leaves it out.
                        plugin if plugin.is_empty() => "mysql_native_password".to_owned(),
                        plugin => plugin,
                    };
                    ((of(0), of(1)), (plugin, of(3)))
                })
                .collect(),
        )),
        Err(Refused::Server(..)) => Ok(None),
        Err(e) => Err(e.into()),
    }
}
