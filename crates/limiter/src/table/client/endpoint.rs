//! Where requests of DynamoDB go, by region, partition and options.
//!
//! The rules are those of the AWS general reference, "Amazon DynamoDB endpoints and quotas", of the DynamoDB developer
//! guide, "Account-based endpoints", and of the SDK reference guide, "Dual-stack and FIPS endpoints". A test compares the
//! results with those of the SDK.

use std::fmt::Write as _;

use aws_types::SdkConfig;
use aws_types::endpoint_config::AccountIdEndpointMode;
use http::Uri;

use crate::table::config;

/// The region that the SDKs take for one on this machine.
const LOCAL: &str = "local";

/// A server, and what signatures need to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// `https://dynamodb.eu-west-1.amazonaws.com/`
    pub(super) url: String,
    /// The same, if it is valid.
    pub(super) uri: Option<Uri>,
    /// The value of the header `Host`: with the port, if it is not the scheme's own.
    pub(super) host: String,
    /// The path as signatures have it.
    pub(super) canonical_path: String,
    /// The region that requests are signed for.
    pub(super) region: String,
}

impl Endpoint {
    /// The endpoint at a URL.
    pub(super) fn custom(url: &str, region: &str) -> Self {
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let own_port = if scheme.eq_ignore_ascii_case("https") {
            ":443"
        } else {
            ":80"
        };
        // Requests go to the path `/` below the endpoint's own.
        let path = if path.ends_with('/') {
            path.to_owned()
        } else {
            format!("{path}/")
        };
        let url = format!("{scheme}://{authority}{path}");
        Self {
            uri: url.parse().ok(),
            url,
            host: authority
                .strip_suffix(own_port)
                .unwrap_or(authority)
                .to_ascii_lowercase(),
            canonical_path: canonical(&path),
            region: region.to_owned(),
        }
    }

    fn of_host(host: &str, region: &str) -> Self {
        Self::custom(&format!("https://{host}"), region)
    }
}

/// A path as a signature has it: without dot segments, and encoded once more than it is sent.
fn canonical(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    let mut text = String::with_capacity(path.len() + 8);
    for segment in &segments {
        text.push('/');
        for byte in segment.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                text.push(char::from(byte));
            } else {
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    if text.is_empty() || ["/", "/.", "/.."].iter().any(|end| path.ends_with(end)) {
        text.push('/');
    }
    text
}

/// The options that decide on the endpoint.
#[derive(Debug, Clone, Default)]
pub(super) struct Place {
    pub(super) region: Option<String>,
    /// A URL in place of the region's own endpoint.
    pub(super) url: Option<String>,
    pub(super) fips: bool,
    pub(super) dual_stack: bool,
    pub(super) account_mode: AccountIdEndpointMode,
}

impl Place {
    pub(super) fn of(config: &SdkConfig) -> Self {
        Self {
            region: config.region().map(ToString::to_string),
            url: config::endpoint(config),
            fips: config.use_fips().unwrap_or_default(),
            dual_stack: config.use_dual_stack().unwrap_or_default(),
            account_mode: config.account_id_endpoint_mode().cloned().unwrap_or_default(),
        }
    }

    /// The endpoint for credentials of this account.
    ///
    /// # Errors
    /// If the options contradict each other, or one is missing.
    pub(super) fn endpoint(&self, account: Option<&str>) -> Result<Endpoint, &'static str> {
        if let Some(url) = &self.url {
            if self.fips {
                return Err("FIPS and a custom endpoint cannot be used together");
            }
            if self.dual_stack {
                return Err("dual-stack and a custom endpoint cannot be used together");
            }
            let region = self.region.as_deref().ok_or("the region is missing")?;
            return Ok(Endpoint::custom(url, region));
        }
        let region = self.region.as_deref().ok_or("the region is missing")?;
        if region == LOCAL {
            return if self.fips || self.dual_stack {
                Err("the region 'local' has neither FIPS nor dual-stack endpoints")
            } else {
                Ok(Endpoint::custom("http://localhost:8000", LOCAL))
            };
        }
        let partition = Partition::of(region);
        let suffix = if self.dual_stack {
            partition.dual_stack
        } else {
            partition.suffix
        };
        if self.dual_stack && suffix.is_empty() {
            return Err("there are no dual-stack endpoints in the partition of this region");
        }
        if let Some(account) = self.account(account, &partition)? {
            return Ok(Endpoint::of_host(
                &format!("{account}.ddb.{region}.{suffix}"),
                region,
            ));
        }
        // The endpoints of GovCloud (US) are FIPS endpoints under their ordinary names.
        let is_own_name = partition.is_gov && !self.dual_stack;
        let service = if self.fips && !is_own_name {
            "dynamodb-fips"
        } else {
            "dynamodb"
        };
        Ok(Endpoint::of_host(&format!("{service}.{region}.{suffix}"), region))
    }

    /// The account, if its own endpoint is to be used.
    fn account<'a>(
        &self,
        account: Option<&'a str>,
        partition: &Partition,
    ) -> Result<Option<&'a str>, &'static str> {
        let is_required = match self.account_mode {
            AccountIdEndpointMode::Disabled => return Ok(None),
            AccountIdEndpointMode::Required => true,
            _ => false,
        };
        let reason = if !partition.has_accounts {
            "account-based endpoints are required, but there are none in the partition of this region"
        } else if self.fips {
            "account-based endpoints are required, but there are none with FIPS"
        } else {
            match account {
                Some(account) if is_label(account) => return Ok(Some(account)),
                Some(_) => return Err("the account id of the credentials cannot be part of a host's name"),
                None => "account-based endpoints are required, but the credentials do not name their account",
            }
        };
        if is_required { Err(reason) } else { Ok(None) }
    }
}

/// Whether a text can be one label of a host's name.
fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !text.starts_with('-')
}

/// A group of regions with common names of hosts.
struct Partition {
    suffix: &'static str,
    /// Empty if there is none.
    dual_stack: &'static str,
    is_gov: bool,
    has_accounts: bool,
}

impl Partition {
    /// The partition of a region, by the beginning of its name.
    fn of(region: &str) -> Self {
        let (suffix, dual_stack) = match region {
            _ if region.starts_with("cn-") => ("amazonaws.com.cn", "api.amazonwebservices.com.cn"),
            _ if region.starts_with("us-iso-") => ("c2s.ic.gov", "api.aws.ic.gov"),
            _ if region.starts_with("us-isob-") => ("sc2s.sgov.gov", "api.aws.scloud"),
            _ if region.starts_with("eu-isoe-") => ("cloud.adc-e.uk", "api.cloud-aws.adc-e.uk"),
            _ if region.starts_with("us-isof-") || region.starts_with("eu-isof-") => {
                ("csp.hci.ic.gov", "api.aws.hci.ic.gov")
            }
            _ if region.starts_with("eusc-") => ("amazonaws.eu", "api.amazonwebservices.eu"),
            _ => ("amazonaws.com", "api.aws"),
        };
        let is_gov = region.starts_with("us-gov-");
        Self {
            suffix,
            dual_stack,
            is_gov,
            has_accounts: suffix.starts_with("amazonaws.com"),
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::config::endpoint::{DefaultResolver, Params, ResolveEndpoint as _};

    use super::*;

    /// The SDK's result: URL and signing region.
    async fn reference(place: &Place, account: Option<&str>) -> Option<(String, Option<String>)> {
        let params = Params::builder()
            .set_region(place.region.clone())
            .set_endpoint(place.url.clone())
            .use_fips(place.fips)
            .use_dual_stack(place.dual_stack)
            .account_id_endpoint_mode(place.account_mode.to_string())
            .set_account_id(account.map(str::to_owned))
            .build()
            .ok()?;
        let endpoint = DefaultResolver::new().resolve_endpoint(&params).await.ok()?;
        let schemes = endpoint.properties().get("authSchemes");
        let region = schemes
            .and_then(|schemes| {
                schemes
                    .as_array()?
                    .first()?
                    .as_object()?
                    .get("signingRegion")?
                    .as_string()
            })
            .map(str::to_owned);
        Some((endpoint.url().to_owned(), region))
    }

    #[tokio::test]
    async fn endpoints_are_those_of_the_sdk() {
        let regions = [
            "us-east-1",
            "eu-central-1",
            "ap-southeast-7",
            "mx-central-1",
            "us-gov-west-1",
            "us-gov-east-1",
            "cn-north-1",
            "cn-northwest-1",
            "us-iso-east-1",
            "us-isob-east-1",
            "eu-isoe-west-1",
            "us-isof-south-1",
            "eusc-de-east-1",
            "local",
            "xx-new-9",
        ];
        let modes = [
            AccountIdEndpointMode::Preferred,
            AccountIdEndpointMode::Disabled,
            AccountIdEndpointMode::Required,
        ];
        let mut differences = Vec::new();
        for region in regions.into_iter().map(Some).chain([None]) {
            for bits in 0..8 {
                for mode in &modes {
                    for account in [None, Some("123456789012"), Some("not a label")] {
                        let place = Place {
                            region: region.map(str::to_owned),
                            url: (bits & 4 != 0).then(|| "http://127.0.0.1:4566".to_owned()),
                            fips: bits & 1 != 0,
                            dual_stack: bits & 2 != 0,
                            account_mode: mode.clone(),
                        };
                        let theirs = reference(&place, account).await;
                        // Without a region, the SDK fails when it signs.
                        let theirs = theirs
                            .and_then(|(url, signed)| Some((url + "/", signed.or(place.region.clone())?)));
                        let ours = place
                            .endpoint(account)
                            .ok()
                            .map(|found| (found.url, found.region));
                        if theirs != ours {
                            differences.push(format!("{place:?} {account:?}: {theirs:?}, not {ours:?}"));
                        }
                    }
                }
            }
        }
        assert!(
            differences.is_empty(),
            "{}\n{}",
            differences.len(),
            differences.join("\n")
        );
    }

    #[test]
    fn the_host_has_its_port_unless_it_is_the_schemes_own() {
        for (url, host, path) in [
            ("https://a.test", "a.test", "/"),
            ("https://A.test:443/", "a.test", "/"),
            ("http://a.test:443", "a.test:443", "/"),
            ("http://127.0.0.1:80/x/y", "127.0.0.1", "/x/y/"),
            ("http://[::1]:8000/a%20b/", "[::1]:8000", "/a%2520b/"),
        ] {
            let endpoint = Endpoint::custom(url, "us-east-1");
            assert_eq!(
                (endpoint.host.as_str(), endpoint.canonical_path.as_str()),
                (host, path),
                "{url}"
            );
        }
    }
}
