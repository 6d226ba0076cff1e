//! Packets of the login: what is built again from what was read says the same.

use lockstep::wire::greeting::{attribute_pairs, is_ssl_request, put_attribute};
use lockstep::wire::{
    AuthReply, Capabilities, ChangeUser, ErrPacket, Greeting, HandshakeResponse, OkPacket, frame,
    put_packet,
};

use crate::Input;

/// Runs one input: which packet, its capabilities, its payload.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let which = input.byte();
    let caps = Capabilities::from_parts(input.long() as u32, 0);
    let payload = input.0;
    let _ = is_ssl_request(payload);
    match which % 7 {
        0 => {
            if let Ok(greeting) = Greeting::parse(payload) {
                let built = greeting.build();
                let Ok(again) = Greeting::parse(&built) else {
                    panic!("does not read its own");
                };
                assert!(
                    again.build() == built,
                    "a greeting changes when built twice"
                );
                assert!(again.version == greeting.version);
                assert!(again.nonce == greeting.nonce);
                assert!(again.thread_id == greeting.thread_id);
            }
        }
        1 => {
            if let Ok(login) = HandshakeResponse::parse(payload) {
                let built = login.build();
                let Ok(again) = HandshakeResponse::parse(&built) else {
                    panic!("does not read its own");
                };
                assert!(again.build() == built, "a login changes when built twice");
                assert!(again.auth_response == login.auth_response);
                attributes(login.connect_attrs.as_deref().unwrap_or_default());
            }
        }
        2 => {
            if let Ok(change) = ChangeUser::parse(payload, caps) {
                let built = change.build(caps);
                let Ok(again) = ChangeUser::parse(&built, caps) else {
                    panic!("does not read its own");
                };
                assert!(again.build(caps) == built, "a change of user changes");
                assert!(again.user == change.user);
                attributes(change.connect_attrs.as_deref().unwrap_or_default());
            }
        }
        3 => {
            let _ = AuthReply::parse(payload);
        }
        4 => {
            if let Ok(ok) = OkPacket::parse(payload, caps) {
                let built = ok.build(caps);
                let again = OkPacket::parse(&built, caps).expect("reads its own");
                assert_eq!(again.build(caps), built, "an OK changes when built twice");
                assert_eq!(again.affected_rows, ok.affected_rows);
                assert_eq!(again.insert_id, ok.insert_id);
                assert_eq!(again.info, ok.info);
            }
        }
        5 => {
            if let Ok(err) = ErrPacket::parse(payload) {
                let built = err.build();
                let again = ErrPacket::parse(&built).expect("reads its own");
                assert_eq!((again.code, again.message), (err.code, err.message));
                let _ = err.build_before_greeting();
            }
        }
        _ => frames(payload),
    }
}

fn attributes(block: &[u8]) {
    let mut built = Vec::new();
    let mut count = 0;
    for (name, value) in attribute_pairs(block) {
        put_attribute(&mut built, name, value);
        count += 1;
    }
    assert_eq!(attribute_pairs(&built).count(), count);
}

fn frames(bytes: &[u8]) {
    let _ = frame::header(bytes);
    if let Some((payload, used, seq)) = frame::logical(bytes) {
        assert!(used <= bytes.len());
        let mut out = Vec::new();
        let mut next = seq;
        put_packet(&mut out, &mut next, &payload);
        let (again, _, _) = frame::logical(&out).expect("reads its own");
        assert!(again == payload);
    }
}
