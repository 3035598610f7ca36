//! How master and worker prove to each other that they have the secret of the test.
//!
//! Each sends a random value, and answers that of the other with a code (HMAC-SHA256) over both values, the worker's name and
//! its own role. The secret itself is never sent. What follows is neither encrypted nor signed: master and workers are on one
//! machine or in one private network.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::frame::{self, FrameError, LARGEST_BEFORE_PROOF};

/// The version of the protocol. Master and workers are of one release.
pub const VERSION: u32 = 2;

/// How long the whole exchange may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The longest name of a worker, in bytes.
const LONGEST_NAME: usize = 64;

const BYTES: usize = 32;

/// What a master and its workers have in common.
#[derive(Clone)]
pub struct Secret([u8; BYTES]);

impl Secret {
    /// Another one each time, from the system's source of randomness.
    ///
    /// # Errors
    /// If the system has none.
    pub fn random() -> Result<Self, HandshakeError> {
        Ok(Self(random()?))
    }

    /// The secret as text for a worker that is started.
    pub fn to_text(&self) -> String {
        STANDARD.encode(self.0)
    }

    /// Reads the text of [`to_text`](Self::to_text); `None` if it is not one.
    pub fn from_text(text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text.trim()).ok()?;
        bytes.try_into().ok().map(Self)
    }

    fn code(&self, role: &str, said: &Said<'_>) -> Option<Hmac<Sha256>> {
        let mut code = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        code.update(role.as_bytes());
        code.update(&VERSION.to_be_bytes());
        code.update(said.by_worker);
        code.update(said.by_master);
        code.update(said.name.as_bytes());
        Some(code)
    }

    fn proof(&self, role: &str, said: &Said<'_>) -> String {
        let code = self.code(role, said).map(|code| code.finalize().into_bytes());
        code.map(|code| STANDARD.encode(code)).unwrap_or_default()
    }

    /// Takes as long for each wrong proof.
    fn is_proved(&self, role: &str, said: &Said<'_>, proof: &str) -> bool {
        let (Some(code), Ok(proof)) = (self.code(role, said), STANDARD.decode(proof)) else {
            return false;
        };
        code.verify_slice(&proof).is_ok()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// What both have said.
struct Said<'a> {
    by_worker: &'a [u8],
    by_master: &'a [u8],
    name: &'a str,
}

const MASTER: &str = "zae-limiter loadtest master";
const WORKER: &str = "zae-limiter loadtest worker";

/// Why a peer is not the one that was expected.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// It does not have the secret.
    #[error("the peer does not have the secret of this test")]
    WrongSecret,
    /// It is of another release.
    #[error("the peer has version {theirs} of the protocol, this program {VERSION}")]
    WrongVersion {
        /// Its version.
        theirs: u32,
    },
    /// Its greeting is not one.
    #[error("the peer's greeting is invalid: {0}")]
    Invalid(&'static str),
    /// Nothing complete came in time, or something else than the protocol.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The system has no random values.
    #[error("no random values: {0}")]
    Random(#[from] getrandom::Error),
}

#[derive(Serialize, Deserialize)]
struct Hello {
    version: u32,
    name: String,
    value: String,
}

#[derive(Serialize, Deserialize)]
struct Challenge {
    version: u32,
    value: String,
    proof: String,
}

#[derive(Serialize, Deserialize)]
struct Proof {
    proof: String,
}

fn random() -> Result<[u8; BYTES], getrandom::Error> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

fn value_of(text: &str) -> Result<Vec<u8>, HandshakeError> {
    let bytes = STANDARD.decode(text).ok();
    bytes
        .filter(|bytes| bytes.len() == BYTES)
        .ok_or(HandshakeError::Invalid("it has no random value"))
}

async fn in_time<T>(exchange: impl Future<Output = Result<T, HandshakeError>>) -> Result<T, HandshakeError> {
    let exchanged = timeout(PATIENCE, exchange).await;
    exchanged.map_err(|_| FrameError::Silent(PATIENCE))?
}

fn check_version(theirs: u32) -> Result<(), HandshakeError> {
    if theirs == VERSION {
        Ok(())
    } else {
        Err(HandshakeError::WrongVersion { theirs })
    }
}

/// The master's side. Returns the worker's name.
pub(super) async fn admit(
    peer: &mut (impl AsyncRead + AsyncWrite + Unpin),
    secret: &Secret,
) -> Result<String, HandshakeError> {
    in_time(async {
        let hello: Hello = frame::read(peer, LARGEST_BEFORE_PROOF, PATIENCE).await?;
        check_version(hello.version)?;
        let is_plain = |c: char| c.is_ascii_graphic() || c == ' ';
        if hello.name.len() > LONGEST_NAME || !hello.name.chars().all(is_plain) {
            return Err(HandshakeError::Invalid(
                "its name has other characters, or too many",
            ));
        }
        let by_master = random()?;
        let said = Said {
            by_worker: &value_of(&hello.value)?,
            by_master: &by_master,
            name: &hello.name,
        };
        let challenge = Challenge {
            version: VERSION,
            value: STANDARD.encode(by_master),
            proof: secret.proof(MASTER, &said),
        };
        frame::write(peer, &challenge, PATIENCE).await?;
        let Proof { proof } = frame::read(peer, LARGEST_BEFORE_PROOF, PATIENCE).await?;
        if !secret.is_proved(WORKER, &said, &proof) {
            return Err(HandshakeError::WrongSecret);
        }
        Ok(hello.name)
    })
    .await
}

/// The worker's side.
pub(super) async fn greet(
    peer: &mut (impl AsyncRead + AsyncWrite + Unpin),
    secret: &Secret,
    name: &str,
) -> Result<(), HandshakeError> {
    in_time(async {
        let by_worker = random()?;
        let hello = Hello {
            version: VERSION,
            name: name.to_owned(),
            value: STANDARD.encode(by_worker),
        };
        frame::write(peer, &hello, PATIENCE).await?;
        let challenge: Challenge = frame::read(peer, LARGEST_BEFORE_PROOF, PATIENCE).await?;
        check_version(challenge.version)?;
        let said = Said {
            by_worker: &by_worker,
            by_master: &value_of(&challenge.value)?,
            name,
        };
        if !secret.is_proved(MASTER, &said, &challenge.proof) {
            return Err(HandshakeError::WrongSecret);
        }
        let proof = secret.proof(WORKER, &said);
        frame::write(peer, &Proof { proof }, PATIENCE).await?;
        Ok(())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn meet(
        master: &Secret,
        worker: &Secret,
    ) -> (Result<String, HandshakeError>, Result<(), HandshakeError>) {
        let (mut ours, mut theirs) = tokio::io::duplex(4096);
        let admit = async move { admit(&mut ours, master).await };
        tokio::join!(
            admit,
            async move { greet(&mut theirs, worker, "process 7").await }
        )
    }

    #[tokio::test]
    async fn those_with_the_secret_meet() {
        let secret = Secret::random().unwrap();
        let copied = Secret::from_text(&format!("{}\n", secret.to_text())).unwrap();
        let (admitted, greeted) = meet(&secret, &copied).await;
        assert_eq!(admitted.unwrap(), "process 7");
        greeted.unwrap();
        assert!(Secret::from_text("c2hvcnQ=").is_none());
        assert_eq!(format!("{secret:?}"), "Secret");
    }

    #[tokio::test]
    async fn another_secret_is_noticed_by_both() {
        let (one, other) = (Secret::random().unwrap(), Secret::random().unwrap());
        let (admitted, greeted) = meet(&one, &other).await;
        // The worker sends nothing that could be tried out elsewhere.
        assert!(matches!(greeted, Err(HandshakeError::WrongSecret)), "{greeted:?}");
        assert!(matches!(admitted, Err(HandshakeError::Frame(FrameError::Closed))));
    }

    #[tokio::test]
    async fn a_proof_of_the_master_is_not_one_of_a_worker() {
        let secret = Secret::random().unwrap();
        let (mut ours, mut theirs) = tokio::io::duplex(4096);
        let echo = async {
            let hello = Hello {
                version: VERSION,
                name: "x".to_owned(),
                value: STANDARD.encode([7; BYTES]),
            };
            frame::write(&mut theirs, &hello, PATIENCE).await.unwrap();
            let challenge: Challenge = frame::read(&mut theirs, 4096, PATIENCE).await.unwrap();
            let proof = challenge.proof;
            frame::write(&mut theirs, &Proof { proof }, PATIENCE)
                .await
                .unwrap();
        };
        let (admitted, ()) = tokio::join!(admit(&mut ours, &secret), echo);
        assert!(
            matches!(admitted, Err(HandshakeError::WrongSecret)),
            "{admitted:?}"
        );
    }

    #[tokio::test]
    async fn greetings_of_another_form_are_refused() {
        let secret = Secret::random().unwrap();
        for (version, name, value, why) in [
            (
                9,
                "x",
                [1; BYTES].as_slice(),
                "the peer has version 9 of the protocol, this program 2",
            ),
            (
                VERSION,
                "a\u{1b}[2J",
                &[1; BYTES],
                "its name has other characters",
            ),
            (
                VERSION,
                &*"x".repeat(65),
                &[1; BYTES],
                "its name has other characters",
            ),
            (VERSION, "x", &[1; 5], "it has no random value"),
        ] {
            let (mut ours, mut theirs) = tokio::io::duplex(4096);
            let hello = Hello {
                version,
                name: name.to_owned(),
                value: STANDARD.encode(value),
            };
            frame::write(&mut theirs, &hello, PATIENCE).await.unwrap();
            let refused = admit(&mut ours, &secret).await.unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
        }
    }
}
