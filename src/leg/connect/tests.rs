use super::*;

#[test]
fn version_numbers_of_both_families() {
    for (text, number) in [
        ("9.7.4-2", 90_704),
        ("8.0.36", 80_036),
        ("5.5.5-10.11.19-MariaDB-0+deb12u1", 101_119),
        ("11.4.2-MariaDB", 110_402),
        ("8.0.11-TiDB-v7.5.0", 80_011),
        ("99999999.99999999.99999999", 99_990_000 + 999_900 + 9_999),
        ("", 0),
        ("unknown", 0),
    ] {
        assert_eq!(version_number(text.as_bytes()), number, "{text}");
    }
}

#[test]
fn hosts_of_addresses() {
    for (address, host) in [
        ("db.example:3306", "db.example"),
        ("10.0.0.1:3306", "10.0.0.1"),
        ("[::1]:3306", "::1"),
        ("db.example", "db.example"),
    ] {
        assert_eq!(host_of(address), host);
    }
}

#[test]
fn error_codes_of_cut_packets() {
    assert_eq!(err_code(&[0xff, 0x15, 0x04, b'#']), 1045);
    assert_eq!(err_code(&[0xff, 0x15]), 0);
    assert_eq!(err_code(&[]), 0);
}

#[test]
fn a_short_nonce_is_none() {
    assert_eq!(
        nonce_of(b"abcdefghijklmnopqrst\0"),
        Some(*b"abcdefghijklmnopqrst")
    );
    assert_eq!(nonce_of(b"short"), None);
}

fn backend(tls: TlsMode) -> BackendConfig {
    let config = LegTls::load(tls, None, None);
    BackendConfig {
        side: Side::Target,
        address: "bad_name:3306".to_owned(),
        tls,
        tls_config: config.ok().flatten(),
        announce: Announce::No,
    }
}

fn greeting(capabilities: Capabilities) -> Greeting {
    Greeting {
        protocol: 10,
        version: b"9.7.0".to_vec(),
        thread_id: 1,
        nonce: [1; NONCE_LEN],
        capabilities,
        charset: 45,
        status: Status(2),
        auth_plugin: crate::auth::NATIVE.to_vec(),
    }
}

#[test]
fn tls_follows_the_setting_and_the_offer() {
    let (with, without) = (
        greeting(Capabilities::SSL | Capabilities::LONG_PASSWORD),
        greeting(Capabilities::LONG_PASSWORD),
    );
    let choice = |mode, greeting: &Greeting| {
        tls_possible(&backend(mode), greeting)
            .map(|c| c.is_some())
            .map_err(|e| e.kind())
    };
    assert_eq!(choice(TlsMode::Off, &with), Ok(false));
    assert_eq!(choice(TlsMode::Preferred, &with), Ok(true));
    assert_eq!(choice(TlsMode::Preferred, &without), Ok(false));
    assert_eq!(choice(TlsMode::Required, &with), Ok(true));
    assert_eq!(choice(TlsMode::Required, &without), Err("tls"));
    assert_eq!(choice(TlsMode::Verify, &without), Err("tls"));
    assert_eq!(
        choice(TlsMode::Verify, &with),
        Err("tls"),
        "no CA was given"
    );
}

#[test]
fn no_server_is_asked_for_a_collation_it_cannot_know() {
    let mysql = greeting(Capabilities::LONG_PASSWORD);
    let mariadb = greeting(Capabilities::NONE);
    for (wanted, on_mysql, on_mariadb) in [(8, 8, 8), (45, 45, 45), (255, 255, 45), (309, 45, 45)] {
        assert_eq!(login_charset(wanted, &mysql), on_mysql);
        assert_eq!(login_charset(wanted, &mariadb), on_mariadb);
    }
}
