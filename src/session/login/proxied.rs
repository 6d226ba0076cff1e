//! Clients that come through a load balancer which says who they are: the
//! PROXY protocol's header, before anything else on the connection.
//!
//! It is believed from the networks in `proxy_protocol_from` only, and from
//! them it is required: the specification forbids guessing, and the greeting
//! cannot wait for bytes that may never come.

use std::io;
use std::net::SocketAddr;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::config::Network;
use crate::wire::proxy_header::{
    Proxied, V1_MAX, V1_PREFIX, V2_FIXED, V2_REST_MAX, V2_SIGNATURE, parse_v1, parse_v2, v2_rest,
};

/// The client's address and the one it connected to: the header's where one
/// is due, else the connection's own.
///
/// Errors: a header that is due and malformed, and the connection's. The
/// caller bounds the time.
pub(super) async fn addresses(
    socket: &mut TcpStream,
    peer: SocketAddr,
    trusted: &[Network],
) -> io::Result<(SocketAddr, SocketAddr)> {
    let local = socket.local_addr()?;
    if !trusted.iter().any(|n| n.contains(peer.ip())) {
        return Ok((peer, local));
    }
    match header(socket).await? {
        Proxied::Client(from, to) => Ok((from, to)),
        Proxied::Itself => Ok((peer, local)),
    }
}

async fn header(socket: &mut TcpStream) -> io::Result<Proxied> {
    // Both versions have at least this many bytes ("PROXY UNKNOWN\r\n" has 15).
    let mut start = [0; V2_SIGNATURE.len()];
    socket.read_exact(&mut start).await?;
    let malformed = |e| io::Error::new(io::ErrorKind::InvalidData, e);
    if start == *V2_SIGNATURE {
        let mut fixed = [0; V2_FIXED];
        let (head, tail) = fixed.split_at_mut(start.len());
        head.copy_from_slice(&start);
        socket.read_exact(tail).await?;
        let mut rest = vec![0; v2_rest(&fixed).map_err(malformed)?.min(V2_REST_MAX)];
        socket.read_exact(&mut rest).await?;
        return parse_v2(&fixed, &rest).map_err(malformed);
    }
    if !start.starts_with(V1_PREFIX) {
        let what = "no PROXY header from a load balancer";
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    // Nothing may be read past the line's end. A sender writes the line at
    // once, so a few peeks find it.
    let mut line = start.to_vec();
    while !line.ends_with(b"\n") {
        let mut ahead = [0; V1_MAX];
        let room = ahead.len().saturating_sub(line.len());
        let seen = socket
            .peek(ahead.get_mut(..room).unwrap_or_default())
            .await?;
        let ahead = ahead.get(..seen).unwrap_or_default();
        if ahead.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let take = memchr::memchr(b'\n', ahead).map_or(ahead.len(), |at| at + 1);
        let mut taken = vec![0; take];
        socket.read_exact(&mut taken).await?;
        line.extend_from_slice(&taken);
    }
    parse_v1(&line).map_err(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    type Any = Box<dyn std::error::Error + Send + Sync>;

    /// What comes of these writes, and what is left to read after them.
    async fn after(
        writes: &[&[u8]],
        trusted: &[&str],
    ) -> Result<(Option<(SocketAddr, SocketAddr)>, Vec<u8>), Any> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let mut client = TcpStream::connect(listener.local_addr()?).await?;
        let (mut socket, peer) = listener.accept().await?;
        let writes: Vec<Vec<u8>> = writes.iter().map(|w| w.to_vec()).collect();
        let writing = tokio::spawn(async move {
            for write in writes {
                client.write_all(&write).await?;
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            client.shutdown().await
        });
        let trusted: Vec<Network> = trusted.iter().filter_map(|t| Network::parse(t)).collect();
        let found = addresses(&mut socket, peer, &trusted).await.ok();
        let mut left = Vec::new();
        if found.is_some() {
            socket.read_to_end(&mut left).await?;
        }
        drop(socket);
        let _ = writing.await?;
        let own = found.filter(|(from, _)| *from != peer);
        Ok((own, left))
    }

    #[tokio::test]
    async fn headers_of_both_versions_in_any_pieces() -> Result<(), Any> {
        let (from, to) = ("203.0.113.7:5000".parse()?, "10.0.0.1:3306".parse()?);
        let v1 = crate::wire::proxy_header::build_v1(from, to);
        let v2 = crate::wire::proxy_header::build_v2(from, to);
        for header in [&v1, &v2] {
            for at in [1, 12, 13, 20, header.len() - 1] {
                let (a, b) = header.split_at(at);
                let (found, left) = after(&[a, b, b"rest"], &["127.0.0.0/8"]).await?;
                assert_eq!(found, Some((from, to)), "split at {at}");
                assert_eq!(left, b"rest", "nothing is read ahead");
            }
        }
        let glued = [&v1[..], b"rest"].concat();
        let (found, left) = after(&[&glued], &["127.0.0.1"]).await?;
        assert_eq!((found, &left[..]), (Some((from, to)), &b"rest"[..]));
        Ok(())
    }

    #[tokio::test]
    async fn others_are_not_believed() -> Result<(), Any> {
        let (from, to) = ("203.0.113.7:5000".parse()?, "10.0.0.1:3306".parse()?);
        let v1 = crate::wire::proxy_header::build_v1(from, to);
        let (found, left) = after(&[&v1], &["10.0.0.0/8"]).await?;
        assert_eq!(found, None);
        assert_eq!(left, v1, "left for the login, which refuses it");
        Ok(())
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() -> Result<(), Any> {
        let endless = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
        for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"PROXY ", &endless, b""] {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let mut client = TcpStream::connect(listener.local_addr()?).await?;
            let (mut socket, peer) = listener.accept().await?;
            client.write_all(bytes).await?;
            client.shutdown().await?;
            let trusted: Vec<Network> = Network::parse("127.0.0.1").into_iter().collect();
            assert!(addresses(&mut socket, peer, &trusted).await.is_err());
        }
        Ok(())
    }
}
