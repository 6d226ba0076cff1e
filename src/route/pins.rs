//! What keeps a session on the server it is on.

/// What a session has on one server that no statement can bring to the other:
/// a set of reasons why the active side must not change under it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pins(pub u8);

impl Pins {
    /// A temporary table.
    pub const TEMPORARY_TABLE: Pins = Pins(1);
    /// LOCK TABLES or FLUSH TABLES WITH READ LOCK.
    pub const LOCKED_TABLES: Pins = Pins(2);
    /// An open HANDLER.
    pub const HANDLER: Pins = Pins(4);
    /// An XA transaction.
    pub const XA: Pins = Pins(8);
    /// A prepared statement's open cursor.
    pub const CURSOR: Pins = Pins(16);

    const NAMES: [(Pins, &'static str); 5] = [
        (Pins::TEMPORARY_TABLE, "temporary table"),
        (Pins::LOCKED_TABLES, "locked tables"),
        (Pins::HANDLER, "open HANDLER"),
        (Pins::XA, "XA transaction"),
        (Pins::CURSOR, "open cursor"),
    ];

    /// With `other` added where `on`.
    #[must_use]
    pub const fn with(self, other: Pins, on: bool) -> Pins {
        if on { Pins(self.0 | other.0) } else { self }
    }

    /// For people.
    pub fn names(self) -> Vec<&'static str> {
        let has = |(pin, name): &(Pins, &'static str)| (self.0 & pin.0 != 0).then_some(*name);
        Pins::NAMES.iter().filter_map(has).collect()
    }
}
