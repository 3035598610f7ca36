//! Where the daemon is: the forms of `DOCKER_HOST`.

use std::fmt;

use super::error::Error;

/// A daemon's address, of a kind that can be spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// A socket's absolute path.
    #[cfg(unix)]
    Unix(String),
    /// `host:port`, without TLS.
    Http(String),
}

impl Address {
    /// Reads an address. None and the empty one are the daemon of this machine.
    pub(super) fn parse(host: Option<&str>) -> Result<Self, Error> {
        let value = host.map_or("", str::trim);
        let refuse = |reason| Error::Host {
            value: value.to_owned(),
            reason,
        };
        if value.is_empty() {
            return Self::socket("/var/run/docker.sock").map_err(refuse);
        }
        let Some((scheme, rest)) = value.split_once("://") else {
            return Err(refuse("use unix:///path, tcp://host:port or http://host:port"));
        };
        match scheme.to_ascii_lowercase().as_str() {
            "unix" => Self::socket(rest).map_err(refuse),
            "tcp" | "http" => authority(rest)
                .map(|authority| Self::Http(authority.to_owned()))
                .map_err(refuse),
            "https" => Err(refuse(
                "TLS is not supported; use unix:///path, or tcp://host:port on a network that is trusted",
            )),
            "npipe" => Err(refuse(
                "named pipes are not supported; let Docker listen on TCP and use tcp://localhost:2375",
            )),
            "ssh" => Err(refuse(
                "SSH is not supported; forward the daemon's socket with 'ssh -L' and use unix:///path",
            )),
            _ => Err(refuse(
                "its scheme is unknown; use unix:///path, tcp://host:port or http://host:port",
            )),
        }
    }

    #[cfg(unix)]
    fn socket(path: &str) -> Result<Self, &'static str> {
        if path.starts_with('/') {
            Ok(Self::Unix(path.to_owned()))
        } else {
            Err("the socket's path must be absolute, such as unix:///var/run/docker.sock")
        }
    }

    #[cfg(not(unix))]
    fn socket(_path: &str) -> Result<Self, &'static str> {
        Err("this system has no Docker socket; let Docker listen on TCP and use tcp://localhost:2375")
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            #[cfg(unix)]
            Self::Unix(path) => write!(f, "unix://{path}"),
            Self::Http(authority) => write!(f, "tcp://{authority}"),
        }
    }
}

/// Checks `host:port`, which may end in a slash.
fn authority(rest: &str) -> Result<&str, &'static str> {
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let Some((host, port)) = rest.rsplit_once(':').filter(|_| !rest.ends_with(']')) else {
        return Err("the port is missing, such as in tcp://localhost:2375");
    };
    let name = match host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        Some(inner) if inner.parse::<std::net::Ipv6Addr>().is_ok() => inner,
        Some(_) => return Err("what stands in brackets must be an IPv6 address"),
        None => host,
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if name.is_empty() {
        return Err("the host is missing, such as in tcp://localhost:2375");
    }
    if name == host && !name.chars().all(plain) {
        return Err("it must be a host and a port and nothing else, such as tcp://localhost:2375");
    }
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    match port.parse::<u16>() {
        Ok(1..) if digits => Ok(rest),
        _ => Err("the port must be a number from 1 to 65535"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn accepted(host: &str, want: &str) {
        assert_eq!(Address::parse(Some(host)).unwrap().to_string(), want);
    }

    #[track_caller]
    fn refused(host: &str, want: &str) {
        let err = Address::parse(Some(host)).unwrap_err();
        assert!(
            matches!(&err, Error::Host { value, .. } if value == host),
            "{err:?}"
        );
        let text = err.to_string();
        assert!(text.contains(&format!("'{host}'")), "{text}");
        assert!(text.contains(want), "{text}");
    }

    #[test]
    #[cfg(unix)]
    fn none_is_the_socket_of_this_machine() {
        let default = Address::Unix("/var/run/docker.sock".into());
        assert_eq!(Address::parse(None).unwrap(), default);
        assert_eq!(Address::parse(Some("")).unwrap(), default);
        assert_eq!(Address::parse(Some("  ")).unwrap(), default);
    }

    #[test]
    #[cfg(unix)]
    fn sockets_have_an_absolute_path() {
        accepted("unix:///run/docker.sock", "unix:///run/docker.sock");
        accepted("unix:///with space/docker.sock", "unix:///with space/docker.sock");
        refused("unix://docker.sock", "must be absolute");
        refused("unix://", "must be absolute");
    }

    #[test]
    fn tcp_and_http_are_the_same() {
        accepted("tcp://127.0.0.1:2375", "tcp://127.0.0.1:2375");
        accepted("http://docker.local:2375/", "tcp://docker.local:2375");
        accepted("TCP://docker:1", "tcp://docker:1");
        accepted("tcp://[::1]:2375", "tcp://[::1]:2375");
    }

    #[test]
    fn what_is_no_host_and_port_is_named() {
        refused("tcp://docker", "the port is missing");
        refused("tcp://[::1]", "the port is missing");
        refused("tcp://:2375", "the host is missing");
        refused("tcp://docker:0", "from 1 to 65535");
        refused("tcp://docker:65536", "from 1 to 65535");
        refused("tcp://docker:+1", "from 1 to 65535");
        refused("tcp://docker:", "from 1 to 65535");
        refused("tcp://docker:2375/path", "from 1 to 65535");
        refused("tcp://[nonsense]:2375", "IPv6");
        refused("tcp://::1:2375", "nothing else");
        refused("tcp://me@docker:2375", "nothing else");
        refused("tcp://a/b:2375", "nothing else");
    }

    #[test]
    fn what_is_not_supported_is_said() {
        refused("npipe:////./pipe/docker_engine", "named pipes are not supported");
        refused("https://docker:2376", "TLS is not supported");
        refused("ssh://me@docker", "SSH is not supported");
        refused("fd://", "scheme is unknown");
        refused("/var/run/docker.sock", "use unix:///path");
        refused("docker:2375", "use unix:///path");
    }
}
