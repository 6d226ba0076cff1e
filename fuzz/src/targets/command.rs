//! Commands: the text of a query behind its attributes, and EXECUTE with its
//! parameters as it reaches another leg.

use lockstep::wire::Capabilities;
use lockstep::wire::command::{
    self, Execute, ParamValue, bulk_for_leg, execute_for_leg, name, parameter, parameters,
    parse_bulk, parse_execute, query_text, response_kind, single_executions,
};

use crate::Input;

/// Parameters looked at one by one: `parameter` is linear in its index.
const SINGLE_MAX: usize = 8;

/// Runs one input: capabilities, declared parameters, long data, payload.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let flags = input.byte();
    let caps = if flags & 1 == 1 {
        Capabilities::from_parts(0, 0).with(Capabilities::QUERY_ATTRIBUTES)
    } else {
        Capabilities::from_parts(0, 0)
    };
    let declared = u16::from(input.byte()) << (flags >> 4 & 7);
    let long = input.byte();
    let payload = input.0;
    if let Some(com) = payload.first() {
        assert!(!name(*com).is_empty());
        let _ = response_kind(*com);
    }
    if let Ok(range) = query_text(payload, caps) {
        assert!(range.end == payload.len() && range.start >= 1);
    }
    bulk(payload, declared);
    let is_long = |i: usize| i < 8 && long >> i & 1 == 1;
    if let Ok(ex) = parse_execute(payload, declared, caps) {
        execute(payload, &ex, declared, caps, &is_long);
    }
}

fn execute(
    payload: &[u8],
    ex: &Execute,
    declared: u16,
    caps: Capabilities,
    is_long: &dyn Fn(usize) -> bool,
) {
    assert!(ex.parameter_count <= command::PARAMETERS_MAX);
    assert!(ex.values.end <= payload.len() && ex.values.start <= ex.values.end);
    let types = &payload[ex.types.clone()];
    let values: Vec<_> = parameters(payload, ex, types, is_long).collect();
    for (i, value) in values.iter().enumerate().take(SINGLE_MAX) {
        let alone = parameter(payload, ex, types, i, is_long);
        // As they are shown: no NaN equals another.
        assert_eq!(format!("{alone:?}"), format!("{value:?}"));
    }
    let mut out = Vec::new();
    execute_for_leg(payload, ex, 77, None, &mut out).expect("its own payload");
    let again = parse_execute(&out, declared, caps).expect("reads its own");
    assert_eq!(again.statement_id, 77);
    assert_eq!((again.flags, &again.values), (ex.flags, &ex.values));
    if ex.parameter_count == 0 || ex.new_params_bound {
        return;
    }
    // Types remembered from before: whatever they are, the values behind them
    // read the same from the packet they are put into.
    let remembered: Vec<u8> = (0..ex.parameter_count)
        .flat_map(|i| {
            if ex.named_types {
                vec![i as u8, 0, 0]
            } else {
                vec![i as u8, 0]
            }
        })
        .collect();
    let mut out = Vec::new();
    if execute_for_leg(payload, ex, 78, Some(&remembered), &mut out).is_ok() {
        let again = parse_execute(&out, declared, caps).expect("reads its own");
        assert!(again.new_params_bound);
        let theirs: Vec<ParamValue<'_>> = parameters(payload, ex, &remembered, is_long)
            .map_while(Result::ok)
            .collect();
        let mine: Vec<ParamValue<'_>> =
            parameters(&out, &again, &out[again.types.clone()], is_long)
                .map_while(Result::ok)
                .collect();
        // As they are shown: no NaN equals another.
        assert_eq!(format!("{mine:?}"), format!("{theirs:?}"));
    }
}

/// A bulk EXECUTE as another leg sees it, and as single ones.
fn bulk(payload: &[u8], declared: u16) {
    let Ok(bulk) = parse_bulk(payload, declared) else {
        return;
    };
    let types = &payload[bulk.types.clone()];
    let other = bulk_for_leg(payload, &bulk, 77, None).expect("its own payload");
    let again = parse_bulk(&other, declared).expect("reads its own");
    assert_eq!((again.statement_id, again.flags), (77, bulk.flags));
    assert_eq!(other[again.rows], payload[bulk.rows.clone()]);
    let caps = Capabilities::from_parts(0, 0);
    for single in single_executions(payload, &bulk, types, 78) {
        let Ok(single) = single else { break };
        let ex = parse_execute(&single, declared, caps).expect("reads its own");
        assert_eq!(ex.statement_id, 78);
        let values = parameters(&single, &ex, &single[ex.types.clone()], &|_| false);
        let values: Vec<_> = values.collect::<Result<_, _>>().expect("values it wrote");
        assert_eq!(values.len(), usize::from(declared));
    }
}
