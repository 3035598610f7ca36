//! The address of the client as a key.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use http::HeaderName;
use http::request::Parts;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use zae_limiter::InvalidInput;

use super::Key;
use crate::rejection::Rejection;

/// The prefix of an IPv6 address that one client has at least.
const CLIENT_PREFIX: u8 = 64;

/// The address that a connection comes from, for servers that are not axum: put it into the extensions of each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerAddr(pub IpAddr);

/// The address of the client: see [`peer`].
#[derive(Debug, Clone)]
pub struct Peer {
    trusted: Vec<IpNet>,
    prefix: u8,
}

/// The address of the client: `ip:203.0.113.9`, and of IPv6 the network with a prefix of 64 bits, `ip:2001:db8:0:1::`, since one
/// client has all addresses of it.
///
/// The address of the connection is [`PeerAddr`] in the extensions of the request, or, with the feature `axum`, its `ConnectInfo<SocketAddr>`.
/// Behind proxies, name their networks with [`behind`](Peer::behind).
pub fn peer() -> Peer {
    Peer {
        trusted: Vec::new(),
        prefix: CLIENT_PREFIX,
    }
}

impl Peer {
    /// Believes `X-Forwarded-For` of connections from this network, such as `10.0.0.0/8`. Repeat it for several networks.
    ///
    /// The fields are read from the right, as far as proxies have added to them: the client is the first address that is not in one
    /// of these networks. What stands to the left of it was sent by the client, and does not count. If a proxy adds nothing, or what is not an
    /// address, its own address counts, so that its clients share a bucket.
    ///
    /// # Errors
    /// [`InvalidInput`] if it is not an address or a network.
    pub fn behind(mut self, network: &str) -> Result<Self, InvalidInput> {
        let parsed = network
            .parse()
            .or_else(|_| network.parse::<IpAddr>().map(IpNet::from));
        let parsed = parsed.map_err(|_| {
            let reason = "must be an address or a network, such as 10.0.0.0/8";
            InvalidInput::new("behind", network, reason)
        });
        self.trusted.push(canonical(parsed?));
        Ok(self)
    }

    /// The length of the prefix by which IPv6 clients are distinguished, from 1 to 128. Default: 64.
    ///
    /// # Errors
    /// [`InvalidInput`] for another length.
    pub fn v6_prefix(mut self, length: u8) -> Result<Self, InvalidInput> {
        if !(1..=128).contains(&length) {
            return Err(InvalidInput::new("v6_prefix", length, "must be from 1 to 128"));
        }
        self.prefix = length;
        Ok(self)
    }

    fn is_trusted(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(&address))
    }

    /// The client's address.
    fn client(&self, request: &Parts, peer: IpAddr) -> IpAddr {
        let mut client = peer.to_canonical();
        let name = HeaderName::from_static("x-forwarded-for");
        let fields = request.headers.get_all(name);
        for field in fields.iter().rev() {
            // What the client has sent, to the left, can be any bytes.
            for hop in field.as_bytes().rsplit(|byte| *byte == b',') {
                if !self.is_trusted(client) {
                    return client;
                }
                let hop = std::str::from_utf8(hop).unwrap_or_default();
                let Some(address) = address(hop.trim()) else {
                    return client;
                };
                client = address;
            }
        }
        client
    }
}

/// The network of IPv4 that one of IPv6 stands for, as addresses are compared.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    let v4 = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
    let v4 = v4.and_then(|(address, prefix)| Ipv4Net::new(address, prefix).ok());
    v4.map_or(network, IpNet::V4)
}

/// An address, with a port or without.
fn address(text: &str) -> Option<IpAddr> {
    let plain = text.parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let found = plain.or_else(with_port).or_else(bracketed)?;
    Some(found.to_canonical())
}

/// Where the connection comes from.
fn connection(request: &Parts) -> Option<IpAddr> {
    let own = request.extensions.get::<PeerAddr>().map(|peer| peer.0);
    #[cfg(feature = "axum")]
    let own = own.or_else(|| {
        let info = request.extensions.get::<axum::extract::ConnectInfo<SocketAddr>>();
        info.map(|info| info.0.ip())
    });
    own
}

impl Key for Peer {
    fn key<'r>(&'r self, request: &'r Parts) -> Result<Cow<'r, str>, Rejection> {
        let Some(peer) = connection(request) else {
            return Err(Rejection::misconfigured(
                "requests have no peer address: serve with `into_make_service_with_connect_info::<SocketAddr>()` and the feature \
                 `axum`, or put a `PeerAddr` into their extensions",
            ));
        };
        let client = match self.client(request, peer) {
            IpAddr::V6(address) => match Ipv6Net::new(address, self.prefix) {
                Ok(network) => network.network().into(),
                Err(_) => IpAddr::V6(address),
            },
            v4 @ IpAddr::V4(_) => v4,
        };
        Ok(format!("ip:{client}").into())
    }
}
