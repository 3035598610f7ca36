//! The parts of a request that `crates/bench` counts the instructions of. Not part of the API.

use aws_credential_types::Credentials;
use zae_limiter_core::table::{Item, TableError, Update};

use super::PROTOCOL;
use super::answer::{Written, read};
use super::endpoint::Endpoint;
use super::sign::Signer;
use crate::table::dynamo::update_body;

/// The body of the request of an update.
///
/// # Errors
/// An update that cannot be written.
pub fn encode(table: &str, mut update: Update) -> Result<Vec<u8>, TableError> {
    Ok(update_body(table, &mut update)?.finish())
}

/// The item in the body of an update's answer.
///
/// # Errors
/// A body that is not DynamoDB's.
pub fn decode(body: &[u8]) -> Result<Option<Item>, TableError> {
    let written: Written = read("UpdateItem", body)?;
    Ok(written.attributes.map(|item| item.0))
}

/// Signs requests to DynamoDB in `eu-west-1` with the credentials of the examples in AWS's documentation.
#[derive(Debug)]
pub struct Signatures(Signer);

impl Signatures {
    /// With a session token of this length.
    pub fn new(token: usize) -> Self {
        let credentials = Credentials::new(
            "AKIDEXAMPLE",
            "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            (token > 0).then(|| "T".repeat(token)),
            None,
            "example",
        );
        let endpoint = Endpoint::custom("https://dynamodb.eu-west-1.amazonaws.com", "eu-west-1");
        Self(Signer::new(credentials, endpoint))
    }

    /// The value of `authorization` for an update that is sent at this time, in seconds since 1970.
    pub fn sign(&self, body: &[u8], now: i64) -> String {
        let target = [PROTOCOL, "UpdateItem"].concat();
        self.0.sign(&target, body, now).authorization
    }
}
