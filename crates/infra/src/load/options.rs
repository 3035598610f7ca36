//! What can be chosen for a stack that generates load.

use zae_limiter_core::InvalidInput;

use super::deploy::LoadTarget;
use crate::names::{Format, load};
use crate::options::Parameter;

/// The image that the master is started in: it has a shell, curl and CA certificates.
pub const DEFAULT_IMAGE: &str = "public.ecr.aws/amazonlinux/amazonlinux:2023-minimal";

/// The ends of the roles' names.
const ROLES: [&str; 3] = ["worker", "exec", "task"];

/// The longest name of a function.
const FUNCTION_NAME: usize = 64;

/// The capacity that the master runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CapacityProvider {
    /// Spare capacity, which AWS may take back with two minutes' notice.
    #[default]
    FargateSpot,
    /// Capacity that stays.
    Fargate,
}

impl CapacityProvider {
    /// As ECS calls it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FargateSpot => "FARGATE_SPOT",
            Self::Fargate => "FARGATE",
        }
    }
}

/// The options of a stack that generates load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadOptions {
    /// The VPC of workers and master.
    pub vpc_id: String,
    /// Their subnets: two at least.
    pub subnet_ids: Vec<String>,
    /// The most workers at a time: 1 to 1000.
    pub max_workers: u32,
    /// The users that a worker simulates, for automatic scaling: 1 to 1000.
    pub users_per_worker: u32,
    /// The fewest workers while the master runs: 0 to 1000.
    pub min_workers: u32,
    /// For how many seconds ahead the number of users is predicted: 0 to 120.
    pub startup_lead_time: u32,
    /// For how many seconds a worker may run: 60 to 900.
    pub lambda_timeout: u32,
    /// A worker's memory, in MB: 128 to 10240.
    pub lambda_memory: u32,
    /// The capacity that the master runs on.
    pub capacity_provider: CapacityProvider,
    /// Whether endpoints of Systems Manager are created in the VPC.
    pub ssm_endpoint: bool,
    /// The route tables that get an endpoint of DynamoDB; none for no endpoint.
    pub route_tables: Vec<String>,
    /// The image that the master is started in.
    pub image: String,
}

impl LoadOptions {
    /// The options of the command without any given, in this network.
    pub fn new(vpc_id: impl Into<String>, subnet_ids: Vec<String>) -> Self {
        Self {
            vpc_id: vpc_id.into(),
            subnet_ids,
            max_workers: 100,
            users_per_worker: 10,
            min_workers: 1,
            startup_lead_time: 20,
            lambda_timeout: 300,
            lambda_memory: 1769,
            capacity_provider: CapacityProvider::default(),
            ssm_endpoint: false,
            route_tables: Vec::new(),
            image: DEFAULT_IMAGE.to_owned(),
        }
    }

    /// Checks what can be checked without AWS.
    ///
    /// # Errors
    /// Names the option, its value, and what would be right.
    pub fn check(&self) -> Result<(), InvalidInput> {
        let is_id = |id: &str, prefix| {
            id.strip_prefix(prefix).is_some_and(|rest: &str| {
                !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric())
            })
        };
        let wrong = |option, value: &str, reason: String| Err(InvalidInput::new(option, value, reason));
        if !is_id(&self.vpc_id, "vpc-") {
            return wrong(
                "vpc_id",
                &self.vpc_id,
                "must look like vpc-0123456789abcdef0".into(),
            );
        }
        if let Some(bad) = self.subnet_ids.iter().find(|id| !is_id(id, "subnet-")) {
            let reason = "must look like subnet-0123456789abcdef0, with commas between several";
            return wrong("subnet_ids", bad, reason.into());
        }
        for (option, value, least, most) in [
            ("max_workers", self.max_workers, 1, 1000),
            ("users_per_worker", self.users_per_worker, 1, 1000),
            ("min_workers", self.min_workers, 0, 1000),
            ("startup_lead_time", self.startup_lead_time, 0, 120),
            ("lambda_timeout", self.lambda_timeout, 60, 900),
            ("lambda_memory", self.lambda_memory, 128, 10_240),
        ] {
            if !(least..=most).contains(&value) {
                return wrong(
                    option,
                    &value.to_string(),
                    format!("must be from {least} to {most}"),
                );
            }
        }
        if self.min_workers > self.max_workers {
            let reason = format!(
                "must be at most the greatest number of workers, {}",
                self.max_workers
            );
            return wrong("min_workers", &self.min_workers.to_string(), reason);
        }
        if self.image.is_empty() || self.image.contains(char::is_whitespace) {
            return wrong("image", &self.image, "must be the name of an image".into());
        }
        Ok(())
    }

    /// The template's parameters, but for the code.
    pub(crate) fn parameters(&self, target: &str, about: &LoadTarget) -> Vec<Parameter> {
        vec![
            ("TargetStackName", target.to_owned()),
            ("VpcId", self.vpc_id.clone()),
            ("PrivateSubnetIds", self.subnet_ids.join(",")),
            ("PrivateRouteTableIds", self.route_tables.join(",")),
            ("MaxWorkers", self.max_workers.to_string()),
            ("UsersPerWorker", self.users_per_worker.to_string()),
            ("MinWorkers", self.min_workers.to_string()),
            ("StartupLeadTime", self.startup_lead_time.to_string()),
            ("LambdaTimeout", self.lambda_timeout.to_string()),
            ("LambdaMemory", self.lambda_memory.to_string()),
            ("CreateSsmEndpoint", self.ssm_endpoint.to_string()),
            ("CapacityProvider", self.capacity_provider.as_str().to_owned()),
            ("MasterImage", self.image.clone()),
            ("PermissionBoundary", about.boundary.clone().unwrap_or_default()),
            ("RoleNameFormat", about.role_name_format.clone()),
        ]
    }
}

/// Checks the names that follow from the target's.
pub(crate) fn check_names(target: &str, role_name_format: &str) -> Result<(), InvalidInput> {
    let function = load::worker(target);
    if function.len() > FUNCTION_NAME {
        let most = FUNCTION_NAME - (function.len() - target.len());
        let reason = format!(
            "must have at most {most} characters for load tests, because the function '{function}' may have \
             {FUNCTION_NAME}"
        );
        return Err(InvalidInput::new("name", target, reason));
    }
    let format = Format::roles(role_name_format);
    format.check()?;
    for role in ROLES {
        format.name(&load::stack(target), role)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> LoadOptions {
        LoadOptions::new("vpc-1", vec!["subnet-a".into(), "subnet-b".into()])
    }

    #[test]
    fn options_that_cannot_be_right_are_refused() {
        options().check().unwrap();
        let refused = |change: fn(&mut LoadOptions)| {
            let mut options = options();
            change(&mut options);
            options.check().unwrap_err().to_string()
        };
        for (text, part) in [
            (refused(|o| o.vpc_id = "x".into()), "vpc-0123456789abcdef0"),
            (refused(|o| o.vpc_id = "vpc-".into()), "vpc-0123456789abcdef0"),
            (refused(|o| o.subnet_ids[1] = "vpc-1".into()), "vpc-1"),
            (refused(|o| o.max_workers = 0), "from 1 to 1000"),
            (refused(|o| o.users_per_worker = 1001), "from 1 to 1000"),
            (
                refused(|o| o.min_workers = 101),
                "at most the greatest number of workers, 100",
            ),
            (refused(|o| o.startup_lead_time = 121), "from 0 to 120"),
            (refused(|o| o.lambda_timeout = 59), "from 60 to 900"),
            (refused(|o| o.lambda_memory = 127), "from 128 to 10240"),
            (refused(|o| o.image = "a b".into()), "name of an image"),
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn names_of_the_function_and_the_roles_must_fit() {
        check_names("my-app", "{}").unwrap();
        check_names(&"a".repeat(52), "{}").unwrap();
        let text = check_names(&"a".repeat(53), "{}").unwrap_err().to_string();
        assert!(text.contains("at most 52 characters"), "{text}");
        let format = format!("{}{{}}", "x".repeat(50));
        check_names("ab", &format).unwrap();
        let text = check_names("abc", &format).unwrap_err().to_string();
        assert!(text.contains("at most 7 characters"), "{text}");
        assert!(check_names("abc", "team").is_err());
    }
}
