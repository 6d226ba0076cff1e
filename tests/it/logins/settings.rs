//! Certificates on both sides, addresses through load balancers, and servers
//! that are full.

use super::Client;
use crate::support::proc::{Guarded, TempDir, free_port, wait_for};
use crate::support::proxy::patient;
use crate::support::{Family, Missing, Proxy, ProxyOptions, Server, ServerOptions};
use lockstep::auth::tls::Pair;
use lockstep::wire::proxy_header::{build_v1, build_v2};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The proxy looks at its files every two seconds.
const NOTICED: Duration = Duration::from_secs(20);

/// A certificate authority.
struct Authority(rcgen::Issuer<'static, rcgen::KeyPair>, String);

impl Authority {
    fn new(name: &str) -> Authority {
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Authority(rcgen::Issuer::new(params, key), pem)
    }

    /// Writes a signed pair `name.cert` and `name.key`.
    fn sign(&self, folder: &Path, name: &str) -> Pair {
        let names = vec!["localhost".to_owned()];
        let mut params = rcgen::CertificateParams::new(names).expect("parameters");
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.0).expect("a certificate");
        let pair = Pair {
            cert: folder.join(format!("{name}.cert")),
            key: folder.join(format!("{name}.key")),
        };
        std::fs::write(&pair.cert, cert.pem()).expect("write");
        std::fs::write(&pair.key, key.serialize_pem()).expect("write");
        pair
    }
}

fn server(family: Family, args: Vec<String>) -> Result<Server, Missing> {
    let options = ServerOptions {
        tls: true,
        args,
        ..Default::default()
    };
    let server = Server::start(family, options)?;
    server.exec("CREATE TABLE shop.logins (id INT AUTO_INCREMENT PRIMARY KEY, v INT)");
    Ok(server)
}

fn proxy(servers: &[Server; 2], backend_yaml: &str, extra_yaml: &str) -> Proxy {
    let mut options = ProxyOptions::route("shop", &["shop.*"]);
    options.backend_yaml = backend_yaml.to_owned();
    options.extra_yaml = patient(extra_yaml);
    let proxy = Proxy::start(&servers[0], &servers[1], options);
    proxy.must_advance("shop", "source_first");
    proxy
}

/// Writes once; whether both sides got it.
fn writes_both(proxy: &Proxy, client: &Client) -> bool {
    let ok = || proxy.route("shop")["mirror"]["writes_ok"].as_u64();
    let before = ok();
    let mut dialogue = client.log_in(proxy.port()).expect("a login");
    assert!(dialogue.let_in(), "{client:?}: {}", dialogue.verdict());
    let said = dialogue
        .ask("INSERT INTO shop.logins (v) VALUES (1)")
        .expect("an answer");
    assert_eq!(said.first(), Some(&0), "{}", said.escape_ascii());
    ok() > before
}

fn copy(from: &Pair, to: &Pair) {
    std::fs::copy(&from.key, &to.key).expect("copy");
    std::fs::copy(&from.cert, &to.cert).expect("copy");
}

/// A renewed certificate is shown to new clients; one that does not fit is not,
/// and nobody is disturbed.
#[test]
fn certificates_change_without_a_restart() {
    let servers = [
        crate::or_skip!(server(Family::MariaDb, Vec::new())),
        crate::or_skip!(server(Family::MariaDb, Vec::new())),
    ];
    let folder = TempDir::new("certificates");
    let authority = Authority::new("authority");
    let sign = |name| authority.sign(folder.path(), name);
    let (first, second, third, used) = (sign("first"), sign("second"), sign("third"), sign("used"));
    copy(&first, &used);
    let (cert, key) = (used.cert.display(), used.key.display());
    let yaml = format!("tls: {{ cert: \"{cert}\", key: \"{key}\" }}\n");
    let proxy = proxy(&servers, "", &yaml);
    let client = Client::new("app", "app-pw", true);
    let shown = || client.log_in(proxy.port()).expect("a login").certificate;
    let mut early = client.log_in(proxy.port()).expect("a login");
    let before = shown();
    copy(&second, &used);
    wait_for("the second certificate", NOTICED, || shown() != before);
    let renewed = shown();
    // A certificate without its key is noticed and not used.
    std::fs::copy(&third.cert, &used.cert).expect("copy");
    wait_for("the complaint", NOTICED, || {
        proxy.log().contains("the old one stays in use")
    });
    assert_eq!(shown(), renewed);
    // SIGHUP does not end the process, and looks at once.
    let pid = proxy.pid().to_string();
    std::fs::copy(&third.key, &used.key).expect("copy");
    let sent = Command::new("sh")
        .args(["-c", "kill -s HUP \"$1\"", "kill", &pid])
        .status();
    assert!(sent.is_ok_and(|s| s.success()));
    wait_for("the third certificate", NOTICED, || shown() != renewed);
    let said = early.ask("SELECT 1").expect("an answer");
    assert_eq!(said, b"\x01", "the early session is not disturbed");
    assert!(!proxy.log().contains("PRIVATE KEY"));
}

/// REQUIRE X509: the proxy's certificate stands for clients that have shown one
/// themselves, and for no others.
#[test]
fn certificates_of_clients() {
    for family in Family::BOTH {
        let folder = TempDir::new("certificates");
        let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
        let ca = folder.path().join("ca.pem");
        std::fs::write(&ca, &ours.1).expect("write");
        let mut args = vec![format!("--ssl-ca={}", ca.display())];
        if family == Family::MySql {
            // With one file named MySQL looks for none of the others itself.
            let own = ["--ssl-cert=server-cert.pem", "--ssl-key=server-key.pem"];
            args.extend(own.map(str::to_owned));
        }
        let servers = [
            crate::or_skip!(server(family, args.clone())),
            crate::or_skip!(server(family, args)),
        ];
        for server in &servers {
            server.exec(
                "CREATE USER 'certified'@'%' IDENTIFIED BY 'pw' REQUIRE X509;\n\
                 GRANT ALL ON shop.* TO 'certified'@'%'",
            );
        }
        let own = ours.sign(folder.path(), "proxy");
        let (cert, key) = (own.cert.display(), own.key.display());
        let backend = format!(", cert: \"{cert}\", key: \"{key}\"");
        let yaml = format!("tls: {{ ca: \"{}\" }}\n", ca.display());
        let optional = proxy(&servers, &backend, &yaml);
        let with = |pair: Option<&Pair>| Client {
            certificate: pair.cloned(),
            ..Client::new("certified", "pw", true)
        };
        let good = ours.sign(folder.path(), "client");
        assert!(writes_both(&optional, &with(Some(&good))), "{family}");
        let verdict = |client: &Client, port| client.log_in(port).expect("a login").verdict();
        let direct = verdict(&with(None), servers[0].port());
        assert!(direct.contains("Access denied"), "{family}: {direct}");
        assert_eq!(verdict(&with(None), optional.port()), direct, "{family}");
        let stranger = theirs.sign(folder.path(), "stranger");
        let refused = with(Some(&stranger))
            .log_in(optional.port())
            .expect("a login");
        assert!(!refused.let_in(), "{family}: {}", refused.verdict());
        assert!(
            writes_both(&optional, &Client::new("app", "app-pw", true)),
            "{family}"
        );
        let yaml = format!(
            "tls: {{ ca: \"{}\", client_certs: required }}\n",
            ca.display()
        );
        let required = proxy(&servers, &backend, &yaml);
        assert!(writes_both(&required, &with(Some(&good))), "{family}");
        for tls in [false, true] {
            let none = Client::new("app", "app-pw", tls)
                .log_in(required.port())
                .expect("a login");
            assert!(!none.let_in(), "{family}, TLS {tls}: {}", none.verdict());
        }
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect(text)
}

/// Accounts for certain hosts, through a load balancer and the proxy, where the
/// server can be told the client's address: as directly from there.
#[test]
fn addresses_are_passed_on() {
    let args = vec!["--proxy-protocol-networks=127.0.0.0/8".to_owned()];
    let servers = [
        crate::or_skip!(server(Family::MariaDb, args.clone())),
        crate::or_skip!(server(Family::MariaDb, args)),
    ];
    for server in &servers {
        for (host, password) in [
            ("203.0.113.7", "seven"),
            ("203.0.113.8", "eight"),
            ("127.0.0.5", "five"),
        ] {
            server.exec(&format!(
                "CREATE USER 'there'@'{host}' IDENTIFIED BY '{password}';\n\
                 GRANT ALL ON shop.* TO 'there'@'{host}'"
            ));
        }
    }
    let to = address("10.0.0.1:3306");
    for version in ["v1", "v2"] {
        let backend = format!(", proxy_protocol: {version}");
        let proxy = proxy(&servers, &backend, "proxy_protocol_from: [\"127.0.0.1\"]\n");
        let build = if version == "v1" { build_v2 } else { build_v1 };
        for (from, password, tls) in [
            ("203.0.113.7:4000", "seven", false),
            ("203.0.113.8:4000", "eight", true),
            ("203.0.113.7:4000", "eight", false),
            ("203.0.113.9:4000", "seven", true),
            ("[2001:db8::7]:4000", "seven", false),
        ] {
            let client = Client {
                header: build(address(from), to),
                ..Client::new("there", password, tls)
            };
            let direct = client.log_in(servers[0].port()).expect("a login");
            let proxied = client.log_in(proxy.port()).expect("a login");
            assert_eq!(proxied.shown(), direct.shown(), "{from} {password}");
            if direct.let_in() {
                // One name, two passwords: neither takes the other's place.
                assert!(writes_both(&proxy, &client), "{from}");
                let list = proxy.get("/v1/sessions").body;
                assert!(list.contains(from), "{from}: {list}");
            }
        }
        // Who comes from there must say who it is.
        let bare = Client::new("app", "app-pw", false);
        let garbage = Client {
            header: b"\r\n\r\n\0\r\nQUIT\nxxxxxxxx".to_vec(),
            ..bare.clone()
        };
        assert_eq!(
            garbage.log_in(proxy.port()).expect("an end").verdict(),
            "<closed>"
        );
        // Others may not: the header is a broken login to them.
        let liar = Client {
            from: Ipv4Addr::new(127, 0, 0, 9),
            header: build_v1(address("203.0.113.7:4000"), to),
            ..Client::new("there", "seven", false)
        };
        let refused = liar.log_in(proxy.port());
        assert!(refused.is_err() || refused.is_ok_and(|d| !d.let_in()));
        behind_haproxy(&proxy, version);
    }
}

/// A real load balancer in front.
fn behind_haproxy(proxy: &Proxy, version: &str) {
    let folder = TempDir::new("haproxy");
    let port = free_port();
    let send = if version == "v1" {
        "send-proxy"
    } else {
        "send-proxy-v2"
    };
    let text = format!(
        "global\n  maxconn 100\n\
         defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n\
         listen l\n  bind 127.0.0.1:{port}\n  server s 127.0.0.1:{} {send}\n",
        proxy.port()
    );
    let file = folder.path().join("haproxy.cfg");
    std::fs::write(&file, text).expect("write");
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(&file);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin"));
    let haproxy = crate::or_skip!(
        Guarded::spawn(&mut command, folder.path()).map_err(|e| format!("HAProxy: {e}"))
    );
    let client = Client {
        from: Ipv4Addr::new(127, 0, 0, 5),
        ..Client::new("there", "five", false)
    };
    wait_for("HAProxy", NOTICED, || {
        client.log_in(port).is_ok_and(|d| d.let_in())
    });
    let mut dialogue = client.log_in(port).expect("a login");
    let said = dialogue.ask("SET @me = CURRENT_USER()").expect("an answer");
    assert_eq!(said.first(), Some(&0), "{}", said.escape_ascii());
    drop(haproxy);
}

/// Full servers and full accounts: their own errors, to the byte.
#[test]
fn full_servers_say_so_themselves() {
    for family in Family::BOTH {
        let servers = [
            crate::or_skip!(server(family, Vec::new())),
            crate::or_skip!(server(family, Vec::new())),
        ];
        servers[0].exec(
            "CREATE USER 'single'@'%' IDENTIFIED BY 'pw' WITH MAX_USER_CONNECTIONS 1;\n\
             CREATE USER 'hourly'@'%' IDENTIFIED BY 'pw' WITH MAX_CONNECTIONS_PER_HOUR 2",
        );
        let proxy = proxy(&servers, "", "");
        let verdict = |client: &Client, port| client.log_in(port).expect("a login").verdict();
        let ports = [servers[0].port(), proxy.port()];
        for tls in [false, true] {
            let mut client = Client::new("single", "pw", tls);
            client.database = None;
            // The one before may not have ended yet.
            let mut held = None;
            wait_for("the only connection", NOTICED, || {
                held = client.log_in(servers[0].port()).ok();
                held.as_ref().is_some_and(super::Dialogue::let_in)
            });
            let [direct, proxied] = ports.map(|port| verdict(&client, port));
            assert!(direct.contains("max_user_connections"), "{direct}");
            assert_eq!(proxied, direct, "{family}");
        }
        let mut client = Client::new("hourly", "pw", true);
        client.database = None;
        let [_, _, direct, proxied] = [0, 1, 0, 1].map(|i| verdict(&client, ports[i]));
        assert!(direct.contains("max_connections_per_hour"), "{direct}");
        assert_eq!(proxied, direct, "{family}");
        // One that ends late would leave room for another.
        wait_for("the end of those before", NOTICED, || {
            let left = "SELECT id FROM information_schema.processlist \
                        WHERE user IN ('single', 'hourly', 'unauthenticated user')";
            servers[0].query(left).is_empty()
        });
        servers[0].exec("SET GLOBAL max_connections = 20");
        let app = Client::new("app", "app-pw", false);
        let mut held = Vec::new();
        // Until one is refused: those of the proxy's own account come and go,
        // and leave room for another.
        let mut refused = |port| loop {
            let next = app.log_in(port).expect("a login");
            if !next.let_in() {
                break next.verdict();
            }
            held.push(next);
            assert!(held.len() < 60, "{family}");
        };
        // MariaDB refuses the first one too many behind its login, with a state,
        // and the next before it, without: as the proxy's own come and go.
        wait_for("the same refusal", NOTICED, || {
            let said = ports.map(&mut refused);
            assert!(said[0].contains("Too many connections"), "{}", said[0]);
            said[0] == said[1]
        });
    }
}
