//! Accounts × TLS of the client × TLS of the backends × what the servers have
//! cached × what is wrong with the login.

use super::Client;
use crate::support::{Family, Missing, Proxy, ProxyOptions, Server, ServerOptions};
use lockstep::auth::{CACHING_SHA2, CLEAR, NATIVE, SHA256};

/// `backends.*.tls`.
const MODES: [&str; 3] = ["preferred", "required", "off"];

/// Two servers with TLS and the accounts below.
struct Pair {
    family: Family,
    servers: [Server; 2],
}

impl Pair {
    fn start(family: Family) -> Result<Pair, Missing> {
        let options = || ServerOptions {
            tls: true,
            args: match family {
                Family::MariaDb => vec!["--plugin-load-add=auth_ed25519".to_owned()],
                Family::MySql => Vec::new(),
            },
            ..Default::default()
        };
        let pair = Pair {
            family,
            servers: [
                Server::start(family, options())?,
                Server::start(family, options())?,
            ],
        };
        pair.both("CREATE TABLE shop.logins (id INT AUTO_INCREMENT PRIMARY KEY, v INT)");
        for account in accounts(family) {
            pair.both(&account);
        }
        Ok(pair)
    }

    fn both(&self, sql: &str) {
        for server in &self.servers {
            server.exec(sql);
        }
    }

    fn proxy(&self, mode: &str) -> Proxy {
        let mut options = ProxyOptions::route("shop", &["shop.*"]);
        options.backend_tls = mode.to_owned();
        let proxy = Proxy::start(&self.servers[0], &self.servers[1], options);
        proxy.must_advance("shop", "source_first");
        proxy
    }

    /// Makes the servers forget what they have cached, or fills their caches.
    fn cache(&self, warm: bool) {
        self.both("FLUSH PRIVILEGES");
        if warm && self.family == Family::MySql {
            for server in &self.servers {
                for user in ["app", "plain", "secure"] {
                    let client = Client::new(user, "pw", true);
                    let password = if user == "app" { "app-pw" } else { "pw" };
                    let client = Client { password, ..client };
                    let known = client.log_in(server.port()).expect("login");
                    assert!(known.let_in(), "{user}: {}", known.verdict());
                }
            }
        }
    }
}

fn accounts(family: Family) -> Vec<String> {
    let with = |password: &str| match family {
        Family::MariaDb => {
            format!("IDENTIFIED VIA mysql_native_password USING PASSWORD('{password}')")
        }
        Family::MySql => format!("IDENTIFIED WITH caching_sha2_password BY '{password}'"),
    };
    let mut sql = Vec::new();
    for (name, password, options) in [
        ("plain", "pw", ""),
        ("empty", "", ""),
        ("locked", "pw", "ACCOUNT LOCK"),
        ("secure", "pw", "REQUIRE SSL"),
        ("certified", "pw", "REQUIRE X509"),
        ("single", "pw", "WITH MAX_USER_CONNECTIONS 1"),
        ("old", "pw", "PASSWORD EXPIRE"),
    ] {
        sql.push(format!(
            "CREATE USER '{name}'@'%' {} {options}",
            with(password)
        ));
        sql.push(format!("GRANT ALL ON shop.* TO '{name}'@'%'"));
    }
    sql.push(format!("CREATE USER 'elsewhere'@'10.9.8.7' {}", with("pw")));
    if family == Family::MariaDb {
        sql.push("CREATE USER 'curve'@'%' IDENTIFIED VIA ed25519 USING PASSWORD('pw')".to_owned());
        sql.push("GRANT ALL ON shop.* TO 'curve'@'%'".to_owned());
    } else {
        sql.push("CREATE USER 'sha'@'%' IDENTIFIED WITH sha256_password BY 'pw'".to_owned());
        sql.push("GRANT ALL ON shop.* TO 'sha'@'%'".to_owned());
    }
    sql
}

/// The attempts of one client, TLS or not.
fn attempts(family: Family, tls: bool) -> Vec<Client> {
    let client = |user, password| Client::new(user, password, tls);
    let mut all = Vec::new();
    let mut users = vec![
        "plain",
        "empty",
        "locked",
        "secure",
        "certified",
        "single",
        "old",
        "elsewhere",
    ];
    if family == Family::MariaDb {
        users.push("curve");
        // MySQL answers for these in a way that differs from login to login.
        users.push("nobody");
    } else {
        users.push("sha");
    }
    for user in users {
        for password in ["pw", "wrong", ""] {
            all.push(client(user, password));
        }
    }
    for database in [None, Some("nowhere"), Some("mysql"), Some("")] {
        all.push(Client {
            database,
            ..client("plain", "pw")
        });
    }
    for plugin in [NATIVE, CACHING_SHA2, SHA256, CLEAR, b"no_such_plugin"] {
        for password in ["pw", "wrong"] {
            all.push(Client {
                plugin: Some(plugin),
                ..client("plain", password)
            });
        }
    }
    all.push(Client {
        expired: true,
        ..client("old", "pw")
    });
    all.push(Client {
        asks_key: false,
        ..client("plain", "pw")
    });
    all
}

/// What the proxy cannot help answering otherwise, as its operator has ordered
/// a protection of the legs that is not the client's.
fn ordered_otherwise(mode: &str, client: &Client) -> bool {
    mode == "off" && client.tls && client.user == "secure"
}

/// What was said to a login, and, where it was let in, to a statement.
fn said(client: &Client, port: u16) -> Vec<String> {
    let mut dialogue = client.log_in(port).expect("a login");
    let mut said = dialogue.shown();
    if dialogue.let_in() {
        let answer = dialogue.ask("SELECT CURRENT_USER(), DATABASE()");
        let answer = answer.map(|p| p.escape_ascii().to_string());
        said.push(answer.unwrap_or_else(|e| e.to_string()));
    }
    said
}

/// The same of a COM_CHANGE_USER to this client's account.
fn said_to_change(client: &Client, port: u16) -> Vec<String> {
    let first = Client::new("app", "app-pw", client.tls);
    let mut dialogue = first.log_in(port).expect("a login");
    assert!(dialogue.let_in(), "{:?}", dialogue.shown());
    client.change(&mut dialogue).expect("an answer");
    let mut said = dialogue.shown();
    let answer = dialogue.ask("SELECT CURRENT_USER(), DATABASE()");
    said.push(answer.map_or("<closed>".to_owned(), |p| p.escape_ascii().to_string()));
    said
}

type Said = fn(&Client, u16) -> Vec<String>;

/// Compares one client with itself. None: equal.
fn compare_one(pair: &Pair, proxy: &Proxy, client: &Client, say: Said) -> Option<String> {
    let mut direct = say(client, pair.servers[0].port());
    let mut proxied = say(client, proxy.port());
    if client.user == "secure" && !client.tls {
        // Where only the legs have TLS the proxy refuses, and the session ends:
        // its leg is the refused account's already.
        for said in [&mut direct, &mut proxied] {
            said.pop();
        }
    }
    (proxied != direct).then(|| format!("{client:?}\n  direct  {direct:?}\n  proxied {proxied:?}"))
}

fn report(different: &[String], count: usize) {
    eprintln!("{count} exchanges compared");
    let shown = different.join("\n");
    assert!(
        different.is_empty(),
        "{} of {count} differ:\n{shown}",
        different.len()
    );
}

fn compare(family: Family, say: Said) {
    let pair = crate::or_skip!(Pair::start(family));
    let mut different = Vec::new();
    let mut count = 0;
    for mode in MODES {
        let proxy = pair.proxy(mode);
        for (tls, warm) in [(false, false), (true, false), (false, true), (true, true)] {
            if warm && family == Family::MariaDb {
                continue;
            }
            for client in attempts(family, tls) {
                if ordered_otherwise(mode, &client) {
                    continue;
                }
                // Each side finds the caches as they are to be.
                pair.cache(warm);
                let direct = say(&client, pair.servers[0].port());
                pair.cache(warm);
                let proxied = say(&client, proxy.port());
                count += 1;
                if proxied != direct {
                    different.push(format!(
                        "tls: {mode}, warm {warm}, {client:?}\n  direct  {direct:?}\n  proxied {proxied:?}"
                    ));
                }
            }
        }
    }
    report(&different, count);
}

/// MariaDB waits a second before it refuses a change of user, and caches
/// nothing: all settings at a time, and fewer wrong passwords.
fn compare_at_once(family: Family, say: Said) {
    let pair = crate::or_skip!(Pair::start(family));
    let proxies = MODES.map(|mode| (mode, pair.proxy(mode)));
    let pair = &pair;
    let different = parking_lot::Mutex::new(Vec::new());
    let count = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for ((mode, proxy), tls) in proxies.iter().flat_map(|p| [(p, false), (p, true)]) {
            let (different, count) = (&different, &count);
            scope.spawn(move || {
                for client in attempts(family, tls) {
                    let spared = client.user != "plain" && client.password != "pw";
                    // One at a time, and there are six of it now.
                    let shared = client.user == "single";
                    if spared || shared || ordered_otherwise(mode, &client) {
                        continue;
                    }
                    count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if let Some(what) = compare_one(pair, proxy, &client, say) {
                        different.lock().push(format!("tls: {mode}, {what}"));
                    }
                }
            });
        }
    });
    report(&different.into_inner(), count.into_inner());
}

#[test]
fn logins_are_as_direct_ones_on_mariadb() {
    compare(Family::MariaDb, said);
}

#[test]
fn logins_are_as_direct_ones_on_mysql() {
    compare(Family::MySql, said);
}

#[test]
fn changes_of_user_are_as_direct_ones_on_mariadb() {
    compare_at_once(Family::MariaDb, said_to_change);
}

#[test]
fn changes_of_user_are_as_direct_ones_on_mysql() {
    compare(Family::MySql, said_to_change);
}
