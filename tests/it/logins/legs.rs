//! Which legs a session gets, and accounts whose state changes.

use super::Client;
use crate::support::proxy::patient;
use crate::support::{Family, Missing, Proxy, ProxyOptions, Server, ServerOptions};

fn server(family: Family) -> Result<Server, Missing> {
    let options = ServerOptions {
        tls: true,
        args: match family {
            Family::MariaDb => vec!["--plugin-load-add=auth_ed25519".to_owned()],
            Family::MySql => Vec::new(),
        },
        ..Default::default()
    };
    let server = Server::start(family, options)?;
    server.exec("CREATE TABLE shop.logins (id INT AUTO_INCREMENT PRIMARY KEY, v INT)");
    Ok(server)
}

fn proxy(servers: [&Server; 2], tls: &str, yaml: &str) -> Proxy {
    let mut options = ProxyOptions::route("shop", &["shop.*"]);
    options.backend_tls = tls.to_owned();
    options.extra_yaml = patient(yaml);
    let proxy = Proxy::start(servers[0], servers[1], options);
    proxy.must_advance("shop", "source_first");
    proxy
}

/// Logs in and writes once; whether the write reached both sides.
fn reaches_both(proxy: &Proxy, client: &Client) -> bool {
    let mut dialogue = client.log_in(proxy.port()).expect("a login");
    assert!(dialogue.let_in(), "{client:?}: {}", dialogue.verdict());
    writes_both(proxy, &mut dialogue)
}

fn writes_both(proxy: &Proxy, dialogue: &mut super::Dialogue) -> bool {
    let counts = || {
        let mirror = proxy.route("shop")["mirror"].clone();
        let count = |name: &str| mirror[name].as_u64().unwrap_or_default();
        (count("writes_ok"), count("writes_deferred"))
    };
    let before = counts();
    let said = dialogue.ask("INSERT INTO shop.logins (v) VALUES (1)");
    let said = said.expect("an answer");
    assert_eq!(said.first(), Some(&0), "{}", said.escape_ascii());
    let after = counts();
    assert_eq!(after.0 + after.1, before.0 + before.1 + 1, "one write");
    after.0 > before.0
}

/// `caching_sha2_password` with a proxy that knows nothing: the other leg can
/// be opened unless the password was never shown, which is so only where the
/// client has no TLS and home had the account cached.
#[test]
fn sha2_legs_by_protection_and_caches() {
    let servers = [
        crate::or_skip!(server(Family::MySql)),
        crate::or_skip!(server(Family::MySql)),
    ];
    let flush = |server: &Server| server.exec("FLUSH PRIVILEGES");
    for mode in ["preferred", "required", "off"] {
        let proxy = proxy([&servers[0], &servers[1]], mode, "");
        for combination in 0..8 {
            let [tls, warm_home, warm_other] = [1, 2, 4].map(|bit| combination & bit != 0);
            proxy.restart();
            for (server, warm) in servers.iter().zip([warm_home, warm_other]) {
                flush(server);
                if warm {
                    let direct = Client::new("app", "app-pw", true).log_in(server.port());
                    assert!(direct.expect("a login").let_in());
                }
            }
            let client = Client::new("app", "app-pw", tls);
            let what = format!("{mode}, TLS {tls}, warm home {warm_home}, other {warm_other}");
            let expected = tls || !warm_home;
            assert_eq!(reaches_both(&proxy, &client), expected, "{what}");
        }
    }
}

/// A password that has expired: until the client sets another one, everything
/// is refused as by the server. Afterwards the session is as any other.
#[test]
fn an_expired_password_is_changed_through_the_proxy() {
    for family in Family::BOTH {
        let servers = [
            crate::or_skip!(server(family)),
            crate::or_skip!(server(family)),
        ];
        let proxy = proxy([&servers[0], &servers[1]], "preferred", "");
        for (port, tls) in [
            (servers[0].port(), true),
            (proxy.port(), false),
            (proxy.port(), true),
        ] {
            for server in &servers {
                server.exec(
                    "DROP USER IF EXISTS 'old'@'%';\n\
                     CREATE USER 'old'@'%' IDENTIFIED BY 'pw';\n\
                     GRANT ALL ON shop.* TO 'old'@'%';\n\
                     GRANT ALL ON test.* TO 'old'@'%';\n\
                     ALTER USER 'old'@'%' PASSWORD EXPIRE",
                );
            }
            let incapable = Client::new("old", "pw", tls).log_in(port).expect("a login");
            let refused = incapable.verdict();
            // MariaDB lets it in all the same, unless it is told otherwise.
            let expected = family == Family::MariaDb || refused.starts_with("\\xffF\\x07");
            assert!(expected, "{family}: {refused}");
            let mut client = Client::new("old", "pw", tls);
            client.expired = true;
            client.database = None;
            let mut session = client.log_in(port).expect("a login");
            assert!(session.let_in(), "{family}: {}", session.verdict());
            for sql in [
                "SELECT 1",
                "USE shop",
                "INSERT INTO shop.logins (v) VALUES (1)",
            ] {
                let said = session.ask(sql).expect("an answer");
                assert_eq!(said.get(..3), Some(&b"\xff\x1c\x07"[..]), "{family}: {sql}");
            }
            let set = match family {
                Family::MariaDb => "SET PASSWORD = PASSWORD('next')",
                Family::MySql => "ALTER USER USER() IDENTIFIED BY 'next'",
            };
            let said = session.ask(set).expect("an answer");
            assert_eq!(said.first(), Some(&0), "{family}: {}", said.escape_ascii());
            // The session's state is followed from here on: the write goes to
            // the table of the database it has changed to.
            for sql in [
                "USE test",
                "CREATE TABLE IF NOT EXISTS logins (v INT)",
                "USE shop",
            ] {
                let said = session.ask(sql).expect("an answer");
                assert_eq!(
                    said.first(),
                    Some(&0),
                    "{family}, {sql}: {}",
                    said.escape_ascii()
                );
            }
            let said = session
                .ask("INSERT INTO logins (v) VALUES (42)")
                .expect("an answer");
            assert_eq!(said.first(), Some(&0), "{family}: {}", said.escape_ascii());
            let sum = servers[0].one("SELECT COUNT(*) FROM shop.logins WHERE v = 42");
            assert_eq!(sum, "1", "{family}");
            for server in &servers {
                server.exec("DELETE FROM shop.logins");
            }
        }
        let route = proxy.route("shop");
        let deferred = route["mirror"]["writes_deferred"].as_u64();
        assert_eq!(
            deferred,
            Some(2),
            "{family}: known to be writes of the route: {route}"
        );
    }
}

/// `users:` in every direction: what the client proves here, and what each
/// side's plugin asks of the proxy, with and without TLS, caches cold.
#[test]
fn mapped_users_of_every_plugin() {
    let maria = crate::or_skip!(server(Family::MariaDb));
    let mysql = crate::or_skip!(server(Family::MySql));
    maria.exec(
        "CREATE USER 'curve'@'%' IDENTIFIED VIA ed25519 USING PASSWORD('curve-pw');\n\
         GRANT ALL ON shop.* TO 'curve'@'%'",
    );
    mysql.exec(
        "CREATE USER 'sha2'@'%' IDENTIFIED WITH caching_sha2_password BY 'sha2-pw';\n\
         GRANT ALL ON shop.* TO 'sha2'@'%';\n\
         CREATE USER 'sha'@'%' IDENTIFIED WITH sha256_password BY 'sha-pw';\n\
         GRANT ALL ON shop.* TO 'sha'@'%'",
    );
    for (maria_first, mode) in [
        (true, "preferred"),
        (true, "off"),
        (false, "preferred"),
        (false, "required"),
    ] {
        let servers = if maria_first {
            [&maria, &mysql]
        } else {
            [&mysql, &maria]
        };
        let (m, s) = if maria_first {
            ("source", "target")
        } else {
            ("target", "source")
        };
        let entry = |name: &str, account: &str| {
            format!(
                "  - {{ name: {name}, {m}: {{ user: curve, password: curve-pw }}, \
                 {s}: {{ user: {account}, password: {account}-pw }} }}\n"
            )
        };
        let yaml = format!("users:\n{}{}", entry("one", "sha2"), entry("two", "sha"));
        let proxy = proxy(servers, mode, &yaml);
        for (user, there) in [("one", "sha2-pw"), ("two", "sha-pw")] {
            for tls in [false, true] {
                mysql.exec("FLUSH PRIVILEGES");
                let password = if maria_first { "curve-pw" } else { there };
                let client = Client::new(user, password, tls);
                assert!(reaches_both(&proxy, &client), "{mode}, TLS {tls}, {user}");
                let wrong = Client::new(user, "wrong", tls).log_in(proxy.port());
                let refused = wrong.expect("a login").verdict();
                let told = format!("Access denied for user \\'{user}\\'@\\'127.0.0.1\\'");
                assert!(refused.contains(&told), "{refused}");
                // The same by COM_CHANGE_USER, with both legs after it.
                let mut session = Client::new("app", "app-pw", tls)
                    .log_in(proxy.port())
                    .expect("login");
                assert!(session.let_in(), "{}", session.verdict());
                client.change(&mut session).expect("an answer");
                assert!(session.let_in(), "{}", session.verdict());
                assert!(
                    writes_both(&proxy, &mut session),
                    "{mode}, TLS {tls}, {user}, changed"
                );
            }
        }
    }
}

/// COM_CHANGE_USER to an ordinary account: both legs follow, from and to
/// accounts that only a full exchange teaches.
#[test]
fn both_legs_follow_a_change_of_user() {
    for family in Family::BOTH {
        let servers = [
            crate::or_skip!(server(family)),
            crate::or_skip!(server(family)),
        ];
        for server in &servers {
            server.exec(
                "CREATE USER 'next'@'%' IDENTIFIED BY 'next-pw';\n\
                 GRANT ALL ON shop.* TO 'next'@'%'",
            );
        }
        for mode in ["preferred", "off"] {
            let proxy = proxy([&servers[0], &servers[1]], mode, "");
            for tls in [false, true] {
                for server in &servers {
                    server.exec("FLUSH PRIVILEGES");
                }
                let mut session = Client::new("app", "app-pw", tls)
                    .log_in(proxy.port())
                    .expect("login");
                assert!(
                    writes_both(&proxy, &mut session),
                    "{family}, {mode}, TLS {tls}"
                );
                for (user, password) in [("next", "next-pw"), ("app", "app-pw")] {
                    Client::new(user, password, tls)
                        .change(&mut session)
                        .expect("an answer");
                    assert!(session.let_in(), "{family}: {}", session.verdict());
                    assert!(
                        writes_both(&proxy, &mut session),
                        "{family}, {mode}, TLS {tls}, {user}"
                    );
                }
            }
        }
    }
}

/// A COM_CHANGE_USER to a mapped account with a wrong password ends as on the
/// server that home is: MySQL closes the connection, MariaDB goes on with
/// nothing left of the session.
#[test]
fn a_refused_change_to_a_mapped_user_is_the_servers() {
    for family in Family::BOTH {
        let servers = [
            crate::or_skip!(server(family)),
            crate::or_skip!(server(family)),
        ];
        let yaml = "users:\n  - { name: mapped, source: { user: app, password: app-pw }, \
                    target: { user: app, password: app-pw } }\n";
        let proxy = proxy([&servers[0], &servers[1]], "preferred", yaml);
        let mut session = Client::new("app", "app-pw", true)
            .log_in(proxy.port())
            .expect("login");
        assert!(session.let_in(), "{family}: {}", session.verdict());
        for sql in [
            "PREPARE p FROM 'SELECT 1'",
            "BEGIN",
            "INSERT INTO shop.logins (v) VALUES (9)",
        ] {
            let said = session.ask(sql).expect("an answer");
            assert_eq!(said.first(), Some(&0), "{sql}: {}", said.escape_ascii());
        }
        let wrong = Client::new("mapped", "wrong", true);
        wrong.change(&mut session).expect("an answer");
        assert!(!session.let_in(), "{family}");
        if family == Family::MySql {
            assert!(session.ask("DO 1").is_err(), "{family}");
        } else {
            let said = session.ask("EXECUTE p").expect("an answer");
            // ER_UNKNOWN_STMT_HANDLER.
            assert_eq!(said.get(..3), Some(&[0xFF, 0xDB, 0x04][..]), "{family}");
            assert!(writes_both(&proxy, &mut session), "{family}");
        }
        for server in &servers {
            let nines = "SELECT COUNT(*) FROM shop.logins WHERE v = 9";
            assert_eq!(server.one(nines), "0", "{family}");
        }
    }
}
