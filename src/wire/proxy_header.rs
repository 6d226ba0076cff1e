//! The PROXY protocol's header, versions 1 and 2: who the client of a relayed
//! connection is. It comes before anything else on the connection.
//!
//! <https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt>

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::WireError;

/// First bytes of a version 2 header.
pub const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// First bytes of a version 1 header.
pub const V1_PREFIX: &[u8; 6] = b"PROXY ";
/// Bytes of a version 2 header before its addresses.
pub const V2_FIXED: usize = 16;
/// Longest version 1 header, its end of line included, by the specification.
pub const V1_MAX: usize = 107;
/// Most bytes after the fixed part of a version 2 header: two addresses take
/// 36, the rest are extensions (TLS facts, a cloud's endpoint id), which come
/// to some hundred bytes.
pub const V2_REST_MAX: usize = 4096;

/// TCP over IPv4 and over IPv6 in a version 2 header.
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// What a header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proxied {
    /// The client's address and the one it connected to.
    Client(SocketAddr, SocketAddr),
    /// The sender speaks for itself (a health check), or cannot say.
    Itself,
}

/// Reads a version 1 header, its end of line included.
///
/// # Errors
/// Anything else.
pub fn parse_v1(header: &[u8]) -> Result<Proxied, WireError> {
    let bad = || WireError::new("a PROXY header", 0);
    let line = header.strip_suffix(b"\r\n").ok_or_else(bad)?;
    let text = std::str::from_utf8(line).map_err(|_| bad())?;
    let mut words = text.split(' ');
    if words.next() != Some("PROXY") {
        return Err(bad());
    }
    let family = words.next();
    if family == Some("UNKNOWN") {
        return Ok(Proxied::Itself);
    }
    let mut address = || -> Option<IpAddr> { words.next()?.parse().ok() };
    let (from, to) = (address().ok_or_else(bad)?, address().ok_or_else(bad)?);
    let fits = match family {
        Some("TCP4") => from.is_ipv4() && to.is_ipv4(),
        Some("TCP6") => from.is_ipv6() && to.is_ipv6(),
        _ => false,
    };
    let mut port = || -> Option<u16> { words.next()?.parse().ok() };
    let (from_port, to_port) = (port().ok_or_else(bad)?, port().ok_or_else(bad)?);
    if !fits || words.next().is_some() {
        return Err(bad());
    }
    Ok(Proxied::Client(
        SocketAddr::new(from, from_port),
        SocketAddr::new(to, to_port),
    ))
}

/// Length of what follows the fixed part of a version 2 header.
///
/// # Errors
/// Not such a header, or one longer than [`V2_REST_MAX`].
pub fn v2_rest(fixed: &[u8; V2_FIXED]) -> Result<usize, WireError> {
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    let version = fixed[12] >> 4;
    if !fixed.starts_with(V2_SIGNATURE) || version != 2 || length > V2_REST_MAX {
        return Err(WireError::new("a PROXY header of version 2", 0));
    }
    Ok(length)
}

/// Reads a version 2 header whose rest has been read too.
///
/// # Errors
/// An unknown command, or addresses cut short.
pub fn parse_v2(fixed: &[u8; V2_FIXED], rest: &[u8]) -> Result<Proxied, WireError> {
    let bad = || WireError::new("a PROXY header of version 2", V2_FIXED);
    match fixed[12] & 0x0F {
        0 => return Ok(Proxied::Itself),
        1 => {}
        _ => return Err(bad()),
    }
    let (from, to, ports): (IpAddr, IpAddr, &[u8]) = match fixed[13] {
        TCP4 => {
            let (addresses, ports) = rest.split_first_chunk::<8>().ok_or_else(bad)?;
            let [a, b, c, d, e, f, g, h] = *addresses;
            ([a, b, c, d].into(), [e, f, g, h].into(), ports)
        }
        TCP6 => {
            let (from, rest) = rest.split_first_chunk::<16>().ok_or_else(bad)?;
            let (to, ports) = rest.split_first_chunk::<16>().ok_or_else(bad)?;
            ((*from).into(), (*to).into(), ports)
        }
        // Unspecified, Unix sockets, UDP: the specification says to accept
        // the connection and to take its own addresses.
        _ => return Ok(Proxied::Itself),
    };
    let ([a, b, c, d], _) = ports.split_first_chunk::<4>().ok_or_else(bad)?;
    let (from_port, to_port) = (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]));
    Ok(Proxied::Client(
        SocketAddr::new(from, from_port),
        SocketAddr::new(to, to_port),
    ))
}

/// Both addresses in one family: IPv4 if both are, else IPv6.
fn one_family(from: SocketAddr, to: SocketAddr) -> (IpAddr, IpAddr) {
    let (from, to) = (from.ip().to_canonical(), to.ip().to_canonical());
    let v6 = |ip: IpAddr| -> Ipv6Addr {
        match ip {
            IpAddr::V4(a) => a.to_ipv6_mapped(),
            IpAddr::V6(a) => a,
        }
    };
    if from.is_ipv4() == to.is_ipv4() {
        return (from, to);
    }
    (v6(from).into(), v6(to).into())
}

/// A version 1 header.
pub fn build_v1(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let (a, b) = one_family(from, to);
    let family = if a.is_ipv4() { 4 } else { 6 };
    format!(
        "PROXY TCP{family} {a} {b} {} {}\r\n",
        from.port(),
        to.port()
    )
    .into_bytes()
}

/// A version 2 header.
pub fn build_v2(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut out = V2_SIGNATURE.to_vec();
    let mut addresses = Vec::with_capacity(36);
    let family = match one_family(from, to) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            addresses.extend_from_slice(&a.octets());
            addresses.extend_from_slice(&b.octets());
            TCP4
        }
        (a, b) => {
            for ip in [a, b] {
                let ip = match ip {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                    IpAddr::V6(ip) => ip,
                };
                addresses.extend_from_slice(&ip.octets());
            }
            TCP6
        }
    };
    addresses.extend_from_slice(&from.port().to_be_bytes());
    addresses.extend_from_slice(&to.port().to_be_bytes());
    out.extend_from_slice(&[0x21, family]);
    out.extend_from_slice(&(addresses.len() as u16).to_be_bytes());
    out.extend_from_slice(&addresses);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect(text)
    }

    fn read_v2(header: &[u8]) -> Result<Proxied, WireError> {
        let (fixed, rest) = header.split_first_chunk().expect("a fixed part");
        assert_eq!(v2_rest(fixed)?, rest.len());
        parse_v2(fixed, rest)
    }

    #[test]
    fn what_is_built_is_read() {
        for (from, to) in [
            ("203.0.113.7:5000", "10.0.0.1:3306"),
            ("[2001:db8::1]:5000", "[2001:db8::2]:3306"),
        ] {
            let (from, to) = (address(from), address(to));
            let expected = Ok(Proxied::Client(from, to));
            assert_eq!(parse_v1(&build_v1(from, to)), expected);
            assert_eq!(read_v2(&build_v2(from, to)), expected);
        }
    }

    #[test]
    fn mixed_families_become_one() {
        let (from, to) = (address("203.0.113.7:5000"), address("[2001:db8::2]:3306"));
        let expected = Ok(Proxied::Client(address("[::ffff:203.0.113.7]:5000"), to));
        assert_eq!(parse_v1(&build_v1(from, to)), expected);
        assert_eq!(read_v2(&build_v2(from, to)), expected);
        let mapped = address("[::ffff:203.0.113.7]:5000");
        let v1 = build_v1(mapped, address("10.0.0.1:3306"));
        assert_eq!(v1, b"PROXY TCP4 203.0.113.7 10.0.0.1 5000 3306\r\n");
    }

    #[test]
    fn senders_that_speak_for_themselves() {
        assert_eq!(parse_v1(b"PROXY UNKNOWN\r\n"), Ok(Proxied::Itself));
        let longest = b"PROXY UNKNOWN ffff::ffff ffff::ffff 65535 65535\r\n";
        assert_eq!(parse_v1(longest), Ok(Proxied::Itself));
        let mut local = V2_SIGNATURE.to_vec();
        local.extend_from_slice(&[0x20, 0, 0, 0]);
        assert_eq!(read_v2(&local), Ok(Proxied::Itself));
        local[12] = 0x21;
        assert_eq!(read_v2(&local), Ok(Proxied::Itself), "unspecified family");
    }

    #[test]
    fn malformed_headers_are_errors() {
        for text in [
            &b"PROXY TCP4 203.0.113.7 10.0.0.1 5000 3306\n"[..],
            b"PROXY TCP4 203.0.113.7 10.0.0.1 5000\r\n",
            b"PROXY TCP4 203.0.113.7 10.0.0.1 5000 3306 x\r\n",
            b"PROXY TCP6 203.0.113.7 10.0.0.1 5000 3306\r\n",
            b"PROXY TCP4 203.0.113.7 10.0.0.1 70000 3306\r\n",
            b"PROXY UDP4 203.0.113.7 10.0.0.1 5000 3306\r\n",
            b"PROXY \xff\r\n",
            b"PROXY\r\n",
            b"\r\n",
            b"",
        ] {
            assert!(parse_v1(text).is_err());
        }
        let good = build_v2(address("203.0.113.7:5000"), address("10.0.0.1:3306"));
        let (fixed, rest) = good.split_first_chunk::<V2_FIXED>().expect("fixed");
        for cut in 0..rest.len() {
            assert!(parse_v2(fixed, &rest[..cut]).is_err(), "{cut}");
        }
        let mut odd = *fixed;
        odd[12] = 0x22;
        assert!(parse_v2(&odd, rest).is_err(), "unknown command");
        odd[12] = 0x11;
        assert!(v2_rest(&odd).is_err(), "version 1 in a version 2 header");
        odd = *fixed;
        odd[14] = 0xFF;
        assert!(v2_rest(&odd).is_err(), "too long");
    }
}
