//! The CloudFormation templates of the stack and of its load generators, and the names in them that code depends on.
//!
//! The templates are files of their own (`template.yaml`, `load-template.yaml`), so that they can be read, linted and
//! deployed without this crate. They do not depend on options and their ranges.

/// The template, as YAML: sent to CloudFormation as it is, and printed by `cfn-template`.
///
/// It fits into a request ([`MAX_BODY_BYTES`]) and needs the capability `CAPABILITY_NAMED_IAM`.
pub const TEMPLATE: &str = include_str!("../template.yaml");

/// The template of the stack that generates load, as YAML. [`MAX_BODY_BYTES`] and the capability are the same.
pub const LOAD_TEMPLATE: &str = include_str!("../load-template.yaml");

/// The longest template, in bytes, that CloudFormation takes in a request; a longer one has to lie in S3.
pub const MAX_BODY_BYTES: usize = 51_200;

/// The parameter that names the bucket with the functions' package. Without it the stack has no functions.
pub const FUNCTION_CODE_BUCKET: &str = "FunctionCodeBucket";

/// The parameter that names the package in the bucket. CloudFormation replaces the functions' code when it changes,
/// so it has to change with the content. Without it the stack has no functions.
pub const FUNCTION_CODE_KEY: &str = "FunctionCodeKey";

/// The parameter that says what the package is built for: `x86_64` or `arm64`.
pub const FUNCTION_ARCHITECTURE: &str = "FunctionArchitecture";
