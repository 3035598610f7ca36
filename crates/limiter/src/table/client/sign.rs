//! Signature Version 4 for the one shape of request that DynamoDB takes: a `POST` with a fixed set of headers and no
//! query.
//!
//! The signing key depends on the day, the region and the secret only, so it is derived once a day. The rules are those of
//! the IAM user guide, "Create a signed AWS API request"; a test compares the signatures with those of `aws-sigv4`.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use aws_credential_types::Credentials;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use super::endpoint::Endpoint;

/// The type of all bodies.
pub(super) const CONTENT_TYPE: &str = "application/x-amz-json-1.0";

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const SERVICE: &str = "dynamodb";

/// The headers that are signed, in the order of their names.
const SIGNED: &str = "content-type;host;x-amz-date;x-amz-target";
const SIGNED_WITH_TOKEN: &str = "content-type;host;x-amz-date;x-amz-security-token;x-amz-target";

const SECONDS_OF_DAY: i64 = 86_400;

/// Credentials, the endpoint that they lead to, and the signing key of the day.
pub(super) struct Signer {
    credentials: Credentials,
    endpoint: Endpoint,
    day: RwLock<Option<Arc<Day>>>,
}

/// What stays the same all day.
struct Day {
    /// Days since 1970.
    number: i64,
    /// `20261129`.
    date: String,
    /// `20261129/eu-west-1/dynamodb/aws4_request`.
    scope: String,
    key: Hmac<Sha256>,
}

/// The headers that a signature adds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Signed {
    /// `x-amz-date`.
    pub(super) date: String,
    /// `authorization`.
    pub(super) authorization: String,
}

impl Signer {
    pub(super) fn new(credentials: Credentials, endpoint: Endpoint) -> Self {
        Self {
            credentials,
            endpoint,
            day: RwLock::new(None),
        }
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// `x-amz-security-token`.
    pub(super) fn token(&self) -> Option<&str> {
        self.credentials.session_token()
    }

    /// Signs a request that is sent at this time, in seconds since 1970. `target` is the value of `x-amz-target`.
    pub(super) fn sign(&self, target: &str, body: &[u8], now: i64) -> Signed {
        let day = self.day(now.div_euclid(SECONDS_OF_DAY));
        let date = timestamp(&day.date, now.rem_euclid(SECONDS_OF_DAY));
        let (token, headers) = match self.token() {
            Some(token) => (Some(token), SIGNED_WITH_TOKEN),
            None => (None, SIGNED),
        };

        let mut request = Sha256::new();
        let mut add = |parts: &[&str]| parts.iter().for_each(|part| request.update(part));
        add(&["POST\n", &self.endpoint.canonical_path, "\n\n"]);
        add(&["content-type:", CONTENT_TYPE, "\nhost:", &self.endpoint.host]);
        add(&["\nx-amz-date:", &date]);
        if let Some(token) = token {
            add(&["\nx-amz-security-token:", token.trim()]);
        }
        add(&["\nx-amz-target:", target, "\n\n", headers, "\n"]);
        add(&[&hex(&Sha256::digest(body))]);

        let mut key = day.key.clone();
        for part in [ALGORITHM, "\n", &date, "\n", &day.scope, "\n"] {
            key.update(part.as_bytes());
        }
        key.update(hex(&request.finalize()).as_bytes());
        let signature = hex(&key.finalize().into_bytes());

        let id = self.credentials.access_key_id();
        Signed {
            date,
            authorization: [
                ALGORITHM,
                " Credential=",
                id,
                "/",
                &day.scope,
                ", SignedHeaders=",
                headers,
                ", Signature=",
                &signature,
            ]
            .concat(),
        }
    }

    fn day(&self, number: i64) -> Arc<Day> {
        if let Some(day) = &*self.day.read().unwrap_or_else(PoisonError::into_inner)
            && day.number == number
        {
            return Arc::clone(day);
        }
        let date = date(number);
        let region = &self.endpoint.region;
        let mut key = format!("AWS4{}", self.credentials.secret_access_key()).into_bytes();
        for part in [&date, region, SERVICE, "aws4_request"] {
            let mut next = keyed(&key);
            next.update(part.as_bytes());
            key = next.finalize().into_bytes().to_vec();
        }
        let day = Arc::new(Day {
            number,
            scope: format!("{date}/{region}/{SERVICE}/aws4_request"),
            date,
            key: keyed(&key),
        });
        *self.day.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&day));
        day
    }
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("a key of any length")
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// `20261129`, of a number of days since 1970.
fn date(days: i64) -> String {
    let seconds = days.saturating_mul(SECONDS_OF_DAY);
    let time = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.strftime("%Y%m%d").to_string()
}

/// `20261129T050000Z`.
fn timestamp(date: &str, second_of_day: i64) -> String {
    let mut text = String::with_capacity(16);
    text.push_str(date);
    text.push('T');
    for part in [second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60] {
        for digit in [part / 10, part % 10] {
            text.push(char::from(b'0' + (digit % 10) as u8));
        }
    }
    text.push('Z');
    text
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use aws_credential_types::Credentials;
    use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
    use aws_sigv4::sign::v4;
    use proptest::prelude::*;

    use super::*;

    /// The value of `authorization` by the reference.
    fn reference(signer: &Signer, url: &str, target: &str, body: &[u8], now: i64) -> String {
        let identity = signer.credentials.clone().into();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(now).unwrap());
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&signer.endpoint.region)
            .name(SERVICE)
            .time(time)
            .settings(SigningSettings::default())
            .build()
            .unwrap();
        let headers = [
            ("content-type", CONTENT_TYPE),
            ("host", signer.endpoint.host.as_str()),
            ("x-amz-target", target),
        ];
        let request =
            SignableRequest::new("POST", url, headers.into_iter(), SignableBody::Bytes(body)).unwrap();
        let (instructions, _) = sign(request, &params.into()).unwrap().into_parts();
        let header = instructions.headers().find(|(name, _)| *name == "authorization");
        header.unwrap().1.to_owned()
    }

    proptest! {
        #[test]
        fn signatures_are_those_of_the_reference(
            id in "[A-Z0-9]{16,20}",
            secret in "[A-Za-z0-9/+]{1,80}",
            token in proptest::option::of("[A-Za-z0-9/+=]{1,900}"),
            region in "[a-z]{2}-[a-z]{4,9}-[1-9]",
            url in "(https|http)://[a-z0-9.-]{0,20}[a-z](:[1-9][0-9]{1,3})?(/[a-zA-Z0-9._~%+:@=&$,;!*'() -]{0,12}){0,3}",
            target in "DynamoDB_20120810\\.[A-Za-z]{3,20}",
            body in proptest::collection::vec(any::<u8>(), 0..2000),
            now in 0_i64..4_102_444_800,
        ) {
            let url = url.replace(' ', "%20");
            let endpoint = Endpoint::custom(&url, &region);
            let credentials = Credentials::new(id, secret, token, None, "test");
            let signer = Signer::new(credentials, endpoint);
            let ours = signer.sign(&target, &body, now);
            prop_assert_eq!(&ours.authorization, &reference(&signer, &signer.endpoint.url, &target, &body, now), "{}", url);
            // With the key of the day in the cache, too.
            prop_assert_eq!(ours, signer.sign(&target, &body, now));
        }
    }

    #[test]
    fn each_day_has_its_key() {
        let signer = Signer::new(
            Credentials::new("id", "secret", None, None, "test"),
            Endpoint::custom("http://127.0.0.1:4566", "us-east-1"),
        );
        for now in [0, 86_399, 86_400, 1_795_932_000, 951_782_399, 951_782_400] {
            let ours = signer.sign("DynamoDB_20120810.GetItem", b"{}", now);
            let theirs = reference(
                &signer,
                "http://127.0.0.1:4566/",
                "DynamoDB_20120810.GetItem",
                b"{}",
                now,
            );
            assert_eq!(ours.authorization, theirs, "{now}");
        }
        assert_eq!(signer.sign("x", b"", 951_782_399).date, "20000228T235959Z");
    }

    #[test]
    fn secrets_are_not_in_debug_output() {
        let credentials = Credentials::new("AKIDEXAMPLE", "very-secret", Some("tok-en".into()), None, "test");
        let signer = Signer::new(credentials, Endpoint::custom("https://x.test", "us-east-1"));
        let _ = signer.sign("x", b"", 0);
        let text = format!("{signer:?}");
        assert!(
            !text.contains("very-secret") && !text.contains("tok-en"),
            "{text}"
        );
    }
}
