use proptest::prelude::*;

use super::*;
use crate::wire::fixtures::{exchanges, login_packet};

#[test]
fn recorded_greetings_are_rebuilt_byte_by_byte() {
    for (family, maria) in [("mariadb", true), ("mysql", false)] {
        let raw = login_packet(family, "greeting");
        let greeting = Greeting::parse(&raw).unwrap_or_else(|e| panic!("{family}: {e}"));
        assert_eq!(greeting.is_mariadb(), maria);
        assert_eq!(greeting.build(), raw, "{family}");
        assert_eq!(greeting.capabilities.extended() != 0, maria);
        assert!(greeting.nonce.iter().all(|b| *b != 0));
    }
}

#[test]
fn recorded_logins_are_rebuilt_byte_by_byte() {
    for family in ["mariadb", "mysql"] {
        let raw = login_packet(family, "login");
        let login = HandshakeResponse::parse(&raw).unwrap_or_else(|e| panic!("{family}: {e}"));
        assert_eq!(login.user, b"root");
        assert!(login.database.is_none() && login.auth_plugin.is_some());
        // The recorder set no CONNECT_ATTRS; PLUGIN_AUTH it did.
        assert_eq!(login.build(), raw, "{family}");
        assert!(!is_ssl_request(&raw));
    }
}

#[test]
fn an_error_is_no_greeting() {
    assert!(Greeting::parse(b"\xff\x10\x04Too many connections").is_err());
}

#[test]
fn ssl_requests() {
    let caps = Capabilities::SSL | Capabilities::PROTOCOL_41;
    assert!(is_ssl_request(&ssl_request(caps, 1 << 24, 45)));
    assert!(!is_ssl_request(&ssl_request(
        Capabilities::PROTOCOL_41,
        0,
        45
    )));
}

#[test]
fn the_three_forms_of_an_answer() {
    let flags = [
        Capabilities::PLUGIN_AUTH_LENENC,
        Capabilities::SECURE_CONNECTION,
        Capabilities::NONE,
    ];
    for flag in flags {
        let login = HandshakeResponse {
            capabilities: Capabilities::PROTOCOL_41 | Capabilities::CONNECT_WITH_DB | flag,
            max_packet: 1,
            charset: 45,
            user: b"u".to_vec(),
            auth_response: vec![7; 20],
            database: Some(b"shop".to_vec()),
            auth_plugin: None,
            connect_attrs: None,
            zstd_level: None,
        };
        assert!(HandshakeResponse::parse(&login.build()).is_ok_and(|l| l == login));
    }
}

#[test]
fn replies() {
    let switch = auth_switch(b"mysql_native_password", &[9; 20]);
    let mut nonce = vec![9; 20];
    nonce.push(0);
    let plugin = b"mysql_native_password";
    assert!(
        AuthReply::parse(&switch)
            == Ok(AuthReply::Switch {
                plugin,
                data: &nonce
            })
    );
    assert!(AuthReply::parse(&auth_more(&[4])) == Ok(AuthReply::More(&[4])));
    assert!(AuthReply::parse(&[0xFE]) == Ok(AuthReply::OldSwitch));
    assert!(matches!(AuthReply::parse(&[0, 0]), Ok(AuthReply::Ok(_))));
    assert!(matches!(AuthReply::parse(&[0xFF]), Ok(AuthReply::Err(_))));
    assert!(AuthReply::parse(&[]).is_err() && AuthReply::parse(&[7]).is_err());
}

#[test]
fn recorded_change_users_are_rebuilt() {
    let mut count = 0;
    for ex in exchanges().filter(|ex| ex.name.contains("change_user")) {
        // The recorder sent PLUGIN_AUTH's field without the flag's help.
        let caps = ex.caps | Capabilities::PLUGIN_AUTH;
        let change = ChangeUser::parse(&ex.command, caps).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(change.database, b"wf");
        assert_eq!(change.charset, Some(45));
        assert_eq!(change.build(caps), ex.command);
        count += 1;
    }
    assert!(count >= 2);
}

proptest! {
    #[test]
    fn logins_round_trip(
        caps: u64, max_packet: u32, charset: u8,
        user in "[a-z]{0,16}", auth in proptest::collection::vec(1u8.., 0..300),
        database in proptest::option::of("[a-z]{0,9}"), plugin in proptest::option::of("[a-z_]{1,30}"),
        pairs in proptest::option::of(proptest::collection::vec(("[a-z]{1,9}", ".{0,20}"), 0..30)),
    ) {
        let mut login = HandshakeResponse {
            capabilities: Capabilities::from_parts(caps as u32, (caps >> 32) as u32)
                .with(Capabilities::PROTOCOL_41 | Capabilities::PLUGIN_AUTH_LENENC),
            max_packet, charset,
            user: user.into_bytes(), auth_response: auth,
            database: database.map(String::into_bytes),
            auth_plugin: plugin.map(String::into_bytes),
            connect_attrs: None, zstd_level: None,
        };
        if let Some(pairs) = &pairs {
            let mut block = Vec::new();
            for (k, v) in pairs {
                put_attribute(&mut block, k.as_bytes(), v.as_bytes());
            }
            prop_assert_eq!(attribute_pairs(&block).count(), pairs.len());
            login.connect_attrs = Some(block);
        }
        let built = login.build();
        let again = HandshakeResponse::parse(&built).expect("parses");
        login.capabilities = again.capabilities;
        prop_assert!(again == login);
        prop_assert_eq!(again.build(), built);
    }

    #[test]
    fn no_bytes_panic(b in proptest::collection::vec(any::<u8>(), 0..120), caps: u64) {
        let caps = Capabilities(caps);
        let _ = AuthReply::parse(&b);
        let _ = is_ssl_request(&b);
        if let Ok(g) = Greeting::parse(&b) {
            let _ = g.build();
        }
        if let Ok(l) = HandshakeResponse::parse(&b) {
            let _ = l.build();
        }
        let mut b = b;
        if let Some(first) = b.first_mut() {
            *first = 10;
        }
        let _ = Greeting::parse(&b);
        if let Some(first) = b.first_mut() {
            *first = 0x11;
        }
        if let Ok(c) = ChangeUser::parse(&b, caps) {
            let _ = c.build(caps);
        }
        let _ = attribute_pairs(&b).count();
    }
}
