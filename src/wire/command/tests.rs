use proptest::prelude::*;

use super::*;
use crate::wire::fixtures::exchanges;
use crate::wire::lenenc::{put_bytes, put_int};

const QA: Capabilities = Capabilities::QUERY_ATTRIBUTES;

#[test]
fn names_and_kinds() {
    assert_eq!(name(0x03), "COM_QUERY");
    assert_eq!(name(0x99), "COM_UNKNOWN");
    assert_eq!(response_kind(COM_STMT_CLOSE), ResponseKind::None);
    assert_eq!(response_kind(0x99), ResponseKind::Generic);
    for ex in exchanges() {
        assert_eq!(response_kind(ex.command[0]), ex.kind, "{}", ex.name);
    }
}

#[test]
fn recorded_queries_have_their_text() {
    for ex in exchanges().filter(|ex| ex.name.ends_with(".select1")) {
        let range = query_text(&ex.command, ex.caps).expect("text");
        assert_eq!(&ex.command[range], b"SELECT 1");
    }
}

#[test]
fn attributes_are_skipped() {
    // Two attributes, the first NULL: bitmap, bound, types and names, value.
    let mut payload = vec![3, 2, 1, 0b01, 1];
    payload.extend_from_slice(b"\xfd\0\x01a\xfd\0\x01b\x03xyzSELECT 2");
    let range = query_text(&payload, QA).expect("text");
    assert_eq!(&payload[range], b"SELECT 2");
    assert_eq!(
        query_text(&payload, Capabilities::NONE),
        Ok(1..payload.len())
    );
    assert!(query_text(&payload[..12], QA).is_err());
    assert!(query_text(&[], QA).is_err());
    assert!(query_text(&[3, 0xFE, 255, 255, 255, 255, 255, 0, 0, 0, 1], QA).is_err());
}

#[test]
fn recorded_executes() {
    let none = |_: usize| false;
    let mut count = 0;
    let named = |n: &str| n.ends_with(".execute") || n.ends_with(".execute_again");
    let mut types = Vec::new();
    for ex in exchanges().filter(|ex| named(&ex.name)) {
        let parsed = parse_execute(&ex.command, 2, ex.caps).expect("parses");
        assert_eq!(parsed.parameter_count, 2);
        assert!(!parsed.has_attributes);
        let again = ex.name.ends_with("again");
        assert_eq!(parsed.new_params_bound, !again);
        if !again {
            types = ex.command[parsed.types.clone()].to_vec();
        }
        let want = if again { (8, 1) } else { (7, 0) };
        let value = |i| parameter(&ex.command, &parsed, &types, i, &none);
        assert_eq!(value(0), Ok(ParamValue::Int(want.0)));
        assert_eq!(value(1), Ok(ParamValue::Int(want.1)));
        assert!(value(2).is_err());

        let mut out = Vec::new();
        execute_for_leg(&ex.command, &parsed, 77, Some(&types), &mut out).expect("rewrites");
        let other = parse_execute(&out, 2, ex.caps).expect("parses");
        assert_eq!(other.statement_id, 77);
        assert!(other.new_params_bound);
        assert_eq!(out[other.types.clone()], types);
        assert_eq!(out[other.values.clone()], ex.command[parsed.values.clone()]);
        assert_eq!(
            out.len(),
            ex.command.len() + if again { types.len() } else { 0 }
        );
        count += 1;
    }
    assert_eq!(count, 8);
}

#[test]
fn types_that_do_not_fit_are_refused() {
    let payload = b"\x17\x01\0\0\0\0\x01\0\0\0\0\0\x07\x07";
    let ex = parse_execute(payload, 2, Capabilities::NONE).expect("parses");
    let mut out = Vec::new();
    for types in [&b"\x01\0"[..], b"\x01\0\x01\0\x01\0"] {
        assert!(execute_for_leg(payload, &ex, 5, Some(types), &mut out).is_err());
        assert!(out.is_empty());
    }
    assert!(execute_for_leg(payload, &ex, 5, None, &mut out).is_ok());
    assert_eq!(out[1..5], [5, 0, 0, 0]);
    assert_eq!(out[5..], payload[5..]);
}

#[test]
fn statements_without_parameters() {
    let payload = b"\x17\x09\0\0\0\x01\x01\0\0\0";
    let ex = parse_execute(payload, 0, QA).expect("parses");
    assert_eq!((ex.statement_id, ex.flags, ex.parameter_count), (9, 1, 0));
    let mut out = Vec::new();
    execute_for_leg(payload, &ex, 3, Some(b""), &mut out).expect("rewrites");
    assert_eq!(out, b"\x17\x03\0\0\0\x01\x01\0\0\0");
}

#[test]
fn values_of_every_layout() {
    let none = |_: usize| false;
    let long = |i: usize| i == 0;
    let mut payload = b"\x17\x01\0\0\0\0\x01\0\0\0".to_vec();
    payload.extend_from_slice(&[0b10, 0b0, 1]); // parameter 1 is NULL
    let types = [
        (0xFCu8, 0u8), // 0: blob
        (0x03, 0),     // 1: NULL by the bitmap
        (0x01, 0),     // 2: signed byte
        (0x01, 0x80),  // 3: unsigned byte
        (0x0C, 0),     // 4: datetime
        (0x05, 0),     // 5: double
        (0x06, 0),     // 6: NULL by its type
        (0x08, 0x80),  // 7: unsigned bigint
        (0xF6, 0),     // 8: decimal
    ];
    payload.extend(types.iter().flat_map(|(a, b)| [*a, *b]));
    let types: Vec<u8> = types.iter().flat_map(|(a, b)| [*a, *b]).collect();
    let mut with_long = payload.clone();
    let mut tail = vec![0xFF, 0xFF, 4, 0xE7, 7, 1, 2];
    tail.extend_from_slice(&1.5f64.to_le_bytes());
    tail.extend_from_slice(&u64::MAX.to_le_bytes());
    put_bytes(&mut tail, b"1.25");
    put_bytes(&mut payload, b"blob");
    payload.extend_from_slice(&tail);
    with_long.extend_from_slice(&tail);
    let dyn_none: &dyn Fn(usize) -> bool = &none;
    let dyn_long: &dyn Fn(usize) -> bool = &long;
    for (payload, is_long) in [(&payload, dyn_none), (&with_long, dyn_long)] {
        let ex = parse_execute(payload, 9, Capabilities::NONE).expect("parses");
        let value = |i| parameter(payload, &ex, &types, i, is_long).expect("a value");
        assert_eq!(value(1), ParamValue::Null);
        assert_eq!(value(2), ParamValue::Int(-1));
        assert_eq!(value(3), ParamValue::UInt(255));
        assert_eq!(value(4), ParamValue::Other(&[0xE7, 7, 1, 2]));
        assert_eq!(value(5), ParamValue::Double(1.5));
        assert_eq!(value(6), ParamValue::Null);
        assert_eq!(value(7), ParamValue::UInt(u64::MAX));
        assert_eq!(value(8), ParamValue::Other(b"1.25"));
        let first = if is_long(0) {
            ParamValue::LongData
        } else {
            ParamValue::Text(b"blob")
        };
        assert_eq!(value(0), first);
        assert_eq!(parameters(payload, &ex, &types, is_long).count(), 9);
        let cut = &types[..5];
        let walked: Vec<_> = parameters(payload, &ex, cut, is_long).collect();
        assert_eq!(walked.len(), 3, "two values and the error");
        assert!(walked[1].is_ok() && walked[2].is_err());
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(
        b in proptest::collection::vec(any::<u8>(), 0..120),
        declared in 0u16..40, caps: u64, types in proptest::collection::vec(any::<u8>(), 0..60),
        index in 0usize..50,
    ) {
        let mut b = b;
        let caps = Capabilities(caps);
        if let Ok(range) = query_text(&b, caps) {
            prop_assert!(range.start <= range.end && range.end == b.len());
        }
        if let Some(first) = b.first_mut() {
            *first = COM_STMT_EXECUTE;
        }
        let mut query = b.clone();
        if let Some(first) = query.first_mut() {
            *first = COM_QUERY;
        }
        let _ = query_text(&query, QA);
        if let Ok(ex) = parse_execute(&b, declared, caps) {
            prop_assert!(ex.values.end == b.len());
            let _ = parameter(&b, &ex, &types, index, &|i| i % 3 == 0);
            let mut out = Vec::new();
            let _ = execute_for_leg(&b, &ex, 1, Some(&types), &mut out);
            // Parts of another payload are refused, not followed.
            let _ = execute_for_leg(&types, &ex, 1, Some(&types), &mut out);
            let _ = parameter(&types, &ex, &b, index, &|_| false);
        }
    }

    #[test]
    fn attributes_with_names_round_trip(
        list in proptest::collection::vec(("[a-z]{0,9}", proptest::option::of(".{0,20}")), 1..20),
        text in ".{0,40}",
    ) {
        let mut payload = vec![COM_QUERY];
        put_int(&mut payload, list.len() as u64);
        payload.push(1);
        let mut bitmap = vec![0u8; list.len().div_ceil(8)];
        for (i, (_, value)) in list.iter().enumerate() {
            if value.is_none() {
                bitmap[i / 8] |= 1 << (i % 8);
            }
        }
        payload.extend_from_slice(&bitmap);
        payload.push(1);
        for (name, _) in &list {
            payload.extend_from_slice(&[0xFD, 0]);
            put_bytes(&mut payload, name.as_bytes());
        }
        for value in list.iter().filter_map(|(_, v)| v.as_ref()) {
            put_bytes(&mut payload, value.as_bytes());
        }
        payload.extend_from_slice(text.as_bytes());
        let range = query_text(&payload, QA).expect("text");
        prop_assert_eq!(&payload[range], text.as_bytes());
    }
}
