//! Where entities come from.

use std::net::{IpAddr, SocketAddr};

use axum::extract::ConnectInfo;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{Request, StatusCode};
use zae_limiter_tower::Rejection;
use zae_limiter_tower::key::{self, Key, PeerAddr, hashed};

use crate::world::KEY;

fn head(fields: &[(&str, &str)]) -> Parts {
    let mut request = Request::get("/v1/models/gpt-4?x=1");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn of(key: &impl Key, fields: &[(&str, &str)]) -> Result<String, StatusCode> {
    let head = head(fields);
    key.key(&head)
        .map(std::borrow::Cow::into_owned)
        .map_err(|err: Rejection| err.status())
}

#[test]
fn header_fields() {
    let plain = key::header(KEY);
    assert_eq!(of(&plain, &[("x-key", "a")]), Ok("a".into()));
    assert_eq!(of(&plain, &[]), Err(StatusCode::UNAUTHORIZED));
    assert_eq!(of(&plain, &[("x-key", "")]), Err(StatusCode::UNAUTHORIZED));
    assert_eq!(
        of(&plain, &[("x-key", "a"), ("x-key", "a")]),
        Err(StatusCode::BAD_REQUEST)
    );
    let mut odd = head(&[]);
    odd.headers
        .insert(KEY, http::HeaderValue::from_bytes(b"\xff").unwrap());
    assert_eq!(plain.key(&odd).unwrap_err().status(), StatusCode::BAD_REQUEST);
    let secret = plain.hashed();
    assert_eq!(of(&secret, &[("x-key", "a")]), Ok(hashed("a")));
    assert_eq!(secret.key(&odd).unwrap(), hashed(b"\xff"));
    odd.headers
        .insert(KEY, http::HeaderValue::from_bytes(b"a ").unwrap());
    assert_eq!(secret.key(&odd).unwrap(), hashed("a"));
}

#[test]
fn bearer_tokens() {
    let bearer = key::bearer();
    let of = |value: &str| of(&bearer, &[(AUTHORIZATION.as_str(), value)]);
    assert_eq!(of("Bearer secret"), Ok(hashed("secret")));
    assert_eq!(of("bearer  secret "), Ok(hashed("secret")));
    for bad in ["Bearer", "Bearer ", "Basic c2VjcmV0", "secret", "Bearersecret"] {
        assert_eq!(of(bad), Err(StatusCode::UNAUTHORIZED), "{bad}");
    }
    assert!(zae_limiter::EntityId::new(hashed("secret")).is_ok());
}

#[test]
fn segments_of_the_path() {
    assert_eq!(of(&key::segment(0), &[]), Ok("v1".into()));
    assert_eq!(of(&key::segment(2), &[]), Ok("gpt-4".into()));
    assert_eq!(of(&key::segment(3), &[]), Err(StatusCode::NOT_FOUND));
}

fn client(peer: &key::Peer, connection: &str, forwarded: &[&str]) -> String {
    let fields: Vec<(&str, &str)> = forwarded
        .iter()
        .map(|field| ("x-forwarded-for", *field))
        .collect();
    let mut head = head(&fields);
    head.extensions.insert(PeerAddr(connection.parse().unwrap()));
    peer.key(&head).unwrap().into_owned()
}

#[test]
fn addresses() {
    let peer = key::peer();
    assert_eq!(client(&peer, "203.0.113.9", &[]), "ip:203.0.113.9");
    assert_eq!(client(&peer, "::ffff:203.0.113.9", &[]), "ip:203.0.113.9");
    assert_eq!(client(&peer, "2001:db8:0:1:2:3:4:5", &[]), "ip:2001:db8:0:1::");
    let exact = peer.clone().v6_prefix(128).unwrap();
    assert_eq!(
        client(&exact, "2001:db8:0:1:2:3:4:5", &[]),
        "ip:2001:db8:0:1:2:3:4:5"
    );
    // Clients can send the field.
    assert_eq!(client(&peer, "203.0.113.9", &["198.51.100.1"]), "ip:203.0.113.9");
    for (prefix, is_right) in [(0, false), (1, true), (128, true), (129, false)] {
        assert_eq!(peer.clone().v6_prefix(prefix).is_ok(), is_right);
    }
    for address in ["203.0.113.9", "::", "2001:db8::1", "fe80::1"] {
        assert!(zae_limiter::EntityId::new(client(&peer, address, &[])).is_ok());
    }
}

#[test]
fn addresses_behind_proxies() {
    let peer = key::peer()
        .behind("10.0.0.0/8")
        .unwrap()
        .behind("2001:db8:f::1")
        .unwrap();
    for (connection, forwarded, expected) in [
        ("10.0.0.1", &["198.51.100.1"] as &[&str], "ip:198.51.100.1"),
        ("10.0.0.1", &["198.51.100.1:4711"], "ip:198.51.100.1"),
        ("10.0.0.1", &["[2001:db8:0:1::5]:4711"], "ip:2001:db8:0:1::"),
        ("10.0.0.1", &["[2001:db8:0:1::5]"], "ip:2001:db8:0:1::"),
        ("2001:db8:f::1", &["198.51.100.1"], "ip:198.51.100.1"),
        // What the client has made up stands to the left of what proxies have seen.
        ("10.0.0.1", &["1.1.1.1, 198.51.100.1"], "ip:198.51.100.1"),
        (
            "10.0.0.1",
            &["1.1.1.1", "198.51.100.1, 10.0.0.2"],
            "ip:198.51.100.1",
        ),
        ("10.0.0.1", &["10.0.0.9, 198.51.100.1"], "ip:198.51.100.1"),
        ("10.0.0.1", &["10.0.0.3"], "ip:10.0.0.3"),
        ("10.0.0.1", &["garbage"], "ip:10.0.0.1"),
        ("10.0.0.1", &["198.51.100.1, garbage"], "ip:10.0.0.1"),
        ("10.0.0.1", &[""], "ip:10.0.0.1"),
        ("203.0.113.9", &["198.51.100.1"], "ip:203.0.113.9"),
    ] {
        assert_eq!(
            client(&peer, connection, forwarded),
            expected,
            "{connection} {forwarded:?}"
        );
    }
    // Bytes that the client has sent do not hide what the proxy has added.
    let mut head = head(&[]);
    let field = http::HeaderValue::from_bytes(b"\xe9, 198.51.100.1").unwrap();
    head.headers.insert("x-forwarded-for", field);
    head.extensions.insert(PeerAddr([10, 0, 0, 1].into()));
    assert_eq!(peer.key(&head).unwrap(), "ip:198.51.100.1");
    let mapped = key::peer().behind("::ffff:10.0.0.0/104").unwrap();
    assert_eq!(client(&mapped, "10.0.0.1", &["198.51.100.1"]), "ip:198.51.100.1");
    let err = key::peer().behind("10.0.0.0/99").unwrap_err();
    assert_eq!((err.field(), err.value()), ("behind", "10.0.0.0/99"));
}

#[test]
fn addresses_of_axum() {
    let mut head = head(&[]);
    assert_eq!(
        key::peer().key(&head).unwrap_err().status(),
        StatusCode::INTERNAL_SERVER_ERROR
    );
    head.extensions
        .insert(ConnectInfo(SocketAddr::from(([203, 0, 113, 9], 80))));
    assert_eq!(key::peer().key(&head).unwrap(), "ip:203.0.113.9");
    let own: IpAddr = [198, 51, 100, 1].into();
    head.extensions.insert(PeerAddr(own));
    assert_eq!(key::peer().key(&head).unwrap(), "ip:198.51.100.1");
}
