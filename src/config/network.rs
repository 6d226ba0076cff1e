//! A range of addresses, as `10.0.0.0/8` or a single address.

use std::net::IpAddr;

/// All addresses that share their first bits with one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Reads `address` or `address/bits`. None if it is neither, or if bits
    /// are set that the range leaves open: likely a typing error.
    pub fn parse(text: &str) -> Option<Network> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let width = width(address);
        let bits = bits.unwrap_or(width);
        let network = Network { address, bits };
        (bits <= width && value(address) & !network.mask() == 0).then_some(network)
    }

    /// Whether the address is one of them. An IPv4 address that came in over
    /// an IPv6 socket counts as what it is.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        width(address) == width(self.address) && value(address) & self.mask() == value(self.address)
    }

    fn mask(&self) -> u128 {
        let open = u32::from(width(self.address) - self.bits);
        let all = u128::MAX >> (128 - u32::from(width(self.address)));
        all & u128::MAX.checked_shl(open).unwrap_or(0)
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn value(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(a.to_bits()),
        IpAddr::V6(a) => a.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_and_outside() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
            ("0.0.0.0/0", "203.0.113.9", "2001:db8::1"),
            ("2001:db8::/32", "2001:db8:1::2", "2001:db9::1"),
            ("::/0", "2001:db8::1", "10.0.0.1"),
            ("::1", "::1", "::2"),
            ("10.1.2.0/24", "::ffff:10.1.2.9", "::ffff:10.1.3.9"),
        ] {
            let parsed = Network::parse(network).expect(network);
            assert!(
                parsed.contains(inside.parse().unwrap()),
                "{network} {inside}"
            );
            assert!(
                !parsed.contains(outside.parse().unwrap()),
                "{network} {outside}"
            );
        }
    }

    #[test]
    fn what_is_no_network() {
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "::/129",
            "db.example",
            "10.0.0.0/",
            "/8",
        ] {
            assert!(Network::parse(text).is_none(), "{text}");
        }
    }
}
