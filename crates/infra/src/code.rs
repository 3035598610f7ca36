//! Where the functions' code lies: in S3, under a key that follows from its content.

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    BucketLocationConstraint, CreateBucketConfiguration, PublicAccessBlockConfiguration,
    ServerSideEncryption, ServerSideEncryptionByDefault, ServerSideEncryptionConfiguration,
    ServerSideEncryptionRule,
};

use crate::error::{Error, failed};
use crate::package::{Package, hex};
use crate::template::{FUNCTION_ARCHITECTURE, FUNCTION_CODE_BUCKET, FUNCTION_CODE_KEY};
use crate::{Progress, StackManager};

/// The region whose buckets are created without naming it.
const UNNAMED: &str = "us-east-1";

/// Code in S3, as the template's parameters name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeLocation {
    /// The bucket.
    pub bucket: String,
    /// The object.
    pub key: String,
    /// The processor it is for, as Lambda calls it.
    pub architecture: &'static str,
}

impl CodeLocation {
    /// The template's parameters.
    pub(crate) fn parameters(&self) -> [(&'static str, String); 3] {
        [
            (FUNCTION_CODE_BUCKET, self.bucket.clone()),
            (FUNCTION_CODE_KEY, self.key.clone()),
            (FUNCTION_ARCHITECTURE, self.architecture.to_owned()),
        ]
    }
}

/// The key of a package.
fn key_of(package: &Package) -> String {
    format!("functions/{}.zip", package.sha256)
}

/// The key of the executable of the package with this hash, by itself.
pub(crate) fn executable_key(sha256: &str) -> String {
    format!("functions/{sha256}.bootstrap")
}

/// The hash in a key, from the hash as Lambda shows it.
pub(crate) fn hex_of_lambda_sha256(sha256: &str) -> Option<String> {
    let bytes = aws_smithy_types::base64::decode(sha256).ok()?;
    (bytes.len() == 32).then(|| hex(&bytes))
}

impl StackManager {
    /// Brings a package to S3, unless it is there; `again` does so in any case. Without a bucket of the caller's
    /// choice it is the account's own for this region, made at its first use.
    pub(crate) async fn upload(
        &self,
        package: &Package,
        bucket: Option<&str>,
        again: bool,
        progress: &mut (dyn FnMut(Progress<'_>) + Send),
    ) -> Result<CodeLocation, Error> {
        let (bucket, owner) = if let Some(bucket) = bucket {
            // It may belong to another account, whose policy then allows this.
            self.check_given(bucket).await?;
            (bucket.to_owned(), None)
        } else {
            let account = self.account().await?;
            let region = self.region()?;
            let bucket = format!("zae-limiter-code-{account}-{region}");
            self.make_bucket(&bucket, &account, region).await?;
            (bucket, Some(account))
        };
        let key = key_of(package);
        let head = self.clients.buckets.head_object().bucket(&bucket).key(&key);
        // Without permission to look it up, it is uploaded again, which changes nothing.
        let there = head.set_expected_bucket_owner(owner.clone()).send().await;
        let uploaded = again || there.is_err();
        if uploaded {
            progress(Progress::Uploading {
                bucket: &bucket,
                bytes: package.size(),
            });
            let put = self.clients.buckets.put_object().bucket(&bucket).key(&key);
            put.set_expected_bucket_owner(owner)
                .content_type("application/zip")
                .body(ByteStream::from(package.bytes.clone()))
                .send()
                .await
                .map_err(failed("PutObject"))?;
        }
        progress(Progress::Uploaded {
            bucket: &bucket,
            key: &key,
            bytes: package.size(),
            new: uploaded,
        });
        Ok(CodeLocation {
            bucket,
            key,
            architecture: package.architecture.as_str(),
        })
    }

    /// Brings the executable of a package to S3, by itself, unless it is there.
    pub(crate) async fn upload_executable(&self, package: &Package, bucket: &str) -> Result<(), Error> {
        let key = executable_key(&package.sha256);
        let head = self.clients.buckets.head_object().bucket(bucket).key(&key);
        if head.send().await.is_ok() {
            return Ok(());
        }
        let put = self.clients.buckets.put_object().bucket(bucket).key(&key);
        put.content_type("application/octet-stream")
            .body(ByteStream::from(package.executable()?))
            .send()
            .await
            .map_err(failed("PutObject"))?;
        Ok(())
    }

    /// Checks a bucket that the caller named.
    async fn check_given(&self, bucket: &str) -> Result<(), Error> {
        let head = self.clients.buckets.head_bucket().bucket(bucket).send().await;
        let refused = |reason: String| Error::CodeBucket {
            bucket: bucket.to_owned(),
            reason,
        };
        let found = match head {
            Ok(answer) => answer.bucket_region().map(str::to_owned),
            Err(err) => {
                let status = err.raw_response().map(|raw| raw.status().as_u16());
                return Err(match status {
                    Some(404) => refused("it does not exist; create it, or leave --code-bucket out".into()),
                    Some(403) => refused("access is denied for the current credentials".into()),
                    Some(301 | 400) => refused(format!(
                        "it is not in region {}, where functions need it to be",
                        self.region()?
                    )),
                    _ => failed("HeadBucket")(err),
                });
            }
        };
        match (found, self.region()?) {
            (Some(found), region) if found != region => Err(refused(format!(
                "it is in region {found}; functions in {region} need one there"
            ))),
            _ => Ok(()),
        }
    }

    /// Creates the account's own bucket, unless it exists. Refuses a bucket of another account.
    async fn make_bucket(&self, bucket: &str, account: &str, region: &str) -> Result<(), Error> {
        let squatted = || Error::CodeBucket {
            bucket: bucket.to_owned(),
            reason: format!(
                "account {account} does not own it, or may not use it; name another bucket with --code-bucket"
            ),
        };
        let buckets = &self.clients.buckets;
        let head = buckets
            .head_bucket()
            .bucket(bucket)
            .expected_bucket_owner(account);
        match head.send().await {
            Ok(_) => return Ok(()),
            Err(err) => match err.raw_response().map(|raw| raw.status().as_u16()) {
                Some(404) => {}
                Some(301 | 400 | 403) => return Err(squatted()),
                _ => return Err(failed("HeadBucket")(err)),
            },
        }
        let place = CreateBucketConfiguration::builder()
            .location_constraint(BucketLocationConstraint::from(region))
            .build();
        let create = buckets.create_bucket().bucket(bucket);
        let created = create
            .set_create_bucket_configuration((region != UNNAMED).then_some(place))
            .send()
            .await
            .map_err(failed("CreateBucket"));
        match created {
            Ok(_) => {}
            // Another process of this account created it at the same moment.
            Err(err) if err.is_code("BucketAlreadyOwnedByYou") => {}
            Err(err) if err.is_code("BucketAlreadyExists") => return Err(squatted()),
            Err(err) => return Err(err),
        }
        let private = PublicAccessBlockConfiguration::builder()
            .block_public_acls(true)
            .ignore_public_acls(true)
            .block_public_policy(true)
            .restrict_public_buckets(true)
            .build();
        let block = buckets
            .put_public_access_block()
            .bucket(bucket)
            .expected_bucket_owner(account);
        block
            .public_access_block_configuration(private)
            .send()
            .await
            .map_err(failed("PutPublicAccessBlock"))?;
        let built = ServerSideEncryptionByDefault::builder()
            .sse_algorithm(ServerSideEncryption::Aes256)
            .build()
            .and_then(|default| {
                let rule =
                    ServerSideEncryptionRule::builder().apply_server_side_encryption_by_default(default);
                ServerSideEncryptionConfiguration::builder()
                    .rules(rule.build())
                    .build()
            });
        let encryption = built.map_err(|err| Error::CodeBucket {
            bucket: bucket.to_owned(),
            reason: err.to_string(),
        })?;
        let encrypt = buckets
            .put_bucket_encryption()
            .bucket(bucket)
            .expected_bucket_owner(account);
        encrypt
            .server_side_encryption_configuration(encryption)
            .send()
            .await
            .map_err(failed("PutBucketEncryption"))?;
        Ok(())
    }

    /// The account whose credentials are used.
    async fn account(&self) -> Result<String, Error> {
        let caller = self.clients.identity.get_caller_identity().send().await;
        let account = caller.map_err(failed("GetCallerIdentity"))?.account;
        account.ok_or_else(|| Error::CodeBucket {
            bucket: "zae-limiter-code-*".into(),
            reason: "AWS did not return the account; name a bucket with --code-bucket".into(),
        })
    }
}
