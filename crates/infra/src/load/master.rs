//! The task that leads many workers, on Fargate.

use std::time::Duration;

use aws_sdk_s3::presigning::PresigningConfig;
use serde_json::{Value as Json, json};
use zae_limiter_core::InvalidInput;

use super::tasks::texts;
use crate::code::{executable_key, hex_of_lambda_sha256};
use crate::error::{Error, failed};
use crate::template::FUNCTION_CODE_BUCKET;
use crate::{StackManager, names};

/// CPU units of a master, unless others are asked for. The template has the same.
const MASTER_CPU: u32 = 1024;

/// Memory of a master in MB, unless more is needed or asked for. The template has the same.
const MASTER_MEMORY_MB: u32 = 2048;

/// The variable with the place of the executable. The template's command reads it.
const EXECUTABLE_URL: &str = "EXECUTABLE_URL";

/// The container of the template.
const CONTAINER: &str = "master";

/// How long a task may take to fetch its executable. Pulling the image comes before that.
const URL_LIFE: Duration = Duration::from_hours(1);

/// The most characters that ECS takes for the overrides of a task.
const OVERRIDES: usize = 8192;

/// CPU units of Fargate on Linux, with the least and the most memory and the steps between, in MB.
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html>
const SIZES: [(u32, u32, u32, u32); 7] = [
    (256, 512, 2048, 1024),
    (512, 1024, 4096, 1024),
    (1024, 2048, 8192, 1024),
    (2048, 4096, 16_384, 1024),
    (4096, 8192, 30_720, 1024),
    (8192, 16_384, 61_440, 4096),
    (16_384, 32_768, 122_880, 8192),
];

/// The size of a master's task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MasterSize {
    /// CPU units: 1024 are one processor.
    pub cpu: u32,
    /// Memory in MB.
    pub memory_mb: u32,
}

impl MasterSize {
    /// A size that Fargate has. Without memory, it is 2048 MB, or the least that goes with the CPU units.
    ///
    /// ```
    /// use zae_limiter_infra::MasterSize;
    ///
    /// assert_eq!(MasterSize::new(Some(4096), None)?.memory_mb, 8192);
    /// let err = MasterSize::new(None, Some(1000)).unwrap_err();
    /// assert_eq!(err.to_string(), "invalid memory '1000': must be from 2048 to 8192 in steps of 1024 with 1024 CPU units");
    /// # Ok::<(), zae_limiter_infra::InvalidInput>(())
    /// ```
    ///
    /// # Errors
    /// Names the value, and what would be right.
    pub fn new(cpu: Option<u32>, memory_mb: Option<u32>) -> Result<Self, InvalidInput> {
        let cpu = cpu.unwrap_or(MASTER_CPU);
        let Some((_, least, most, step)) = SIZES.into_iter().find(|(units, ..)| *units == cpu) else {
            let all = SIZES.map(|(units, ..)| units.to_string()).join(", ");
            return Err(InvalidInput::new(
                "cpu",
                cpu.to_string(),
                format!("must be one of {all}"),
            ));
        };
        let memory_mb = memory_mb.unwrap_or(MASTER_MEMORY_MB.clamp(least, most));
        // The smallest task has half a step, too.
        if !(least..=most).contains(&memory_mb) || (memory_mb != least && !memory_mb.is_multiple_of(step)) {
            let right = if least.is_multiple_of(step) {
                format!("from {least} to {most} in steps of {step}")
            } else {
                format!("{least}, or from {step} to {most} in steps of {step}")
            };
            return Err(InvalidInput::new(
                "memory",
                memory_mb.to_string(),
                format!("must be {right} with {cpu} CPU units"),
            ));
        }
        Ok(Self { cpu, memory_mb })
    }
}

/// A master's task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterTask {
    /// Its ARN.
    pub arn: String,
    /// Its status, as ECS calls it, such as `PENDING` or `RUNNING`.
    pub status: String,
    /// The container's id in its runtime, once it runs.
    runtime_id: Option<String>,
    /// Whether the agent of Systems Manager is there.
    has_agent: bool,
    /// Why it was stopped, if it was.
    pub stopped_reason: String,
}

impl MasterTask {
    fn of(task: &Json) -> Self {
        let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
        let containers = task["containers"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let container = containers.iter().find(|one| one["name"] == CONTAINER);
        let agents = container.and_then(|one| one["managedAgents"].as_array());
        let reasons = [
            text(&task["stoppedReason"]),
            container.map(|one| text(&one["reason"])).unwrap_or_default(),
            container
                .and_then(|one| one["exitCode"].as_i64())
                .map_or_else(String::new, |code| format!("exit code {code}")),
        ];
        Self {
            arn: text(&task["taskArn"]),
            status: text(&task["lastStatus"]),
            runtime_id: container
                .and_then(|one| one["runtimeId"].as_str())
                .map(str::to_owned),
            has_agent: agents
                .into_iter()
                .flatten()
                .any(|agent| agent["name"] == "ExecuteCommandAgent" && agent["lastStatus"] == "RUNNING"),
            stopped_reason: reasons
                .into_iter()
                .filter(|reason| !reason.is_empty())
                .collect::<Vec<_>>()
                .join("; "),
        }
    }

    /// The id: the last part of the ARN.
    pub fn id(&self) -> &str {
        self.arn.rsplit('/').next().unwrap_or_default()
    }

    /// Whether its container runs.
    pub fn is_running(&self) -> bool {
        self.status == "RUNNING"
    }

    /// Whether it has ended, or is about to.
    pub fn is_ending(&self) -> bool {
        matches!(
            self.status.as_str(),
            "DEACTIVATING" | "STOPPING" | "DEPROVISIONING" | "STOPPED"
        )
    }

    /// The target of a session of Systems Manager, once there can be one.
    pub fn session_target(&self, target: &str) -> Option<String> {
        let runtime = self
            .runtime_id
            .as_ref()
            .filter(|_| self.is_running() && self.has_agent)?;
        Some(format!(
            "ecs:{}_{}_{runtime}",
            names::load::cluster(target),
            self.id()
        ))
    }
}

/// A request for a master.
#[derive(Debug, Clone)]
pub struct MasterOptions {
    /// The size of the task.
    pub size: MasterSize,
    /// Variables of the container.
    pub environment: Vec<(&'static str, String)>,
}

impl StackManager {
    /// The masters of a target that run, or start.
    ///
    /// # Errors
    /// [`Error::NotFound`] without the load stack; [`Error::Aws`] if ECS refuses.
    pub async fn masters(&self, target: &str) -> Result<Vec<MasterTask>, Error> {
        let (cluster, family) = (names::load::cluster(target), names::load::master(target));
        let request = json!({"cluster": &cluster, "family": family, "desiredStatus": "RUNNING"});
        let listed = self
            .ecs("ListTasks", &request)
            .await
            .map_err(|err| absent(err, target))?;
        let tasks = texts(&listed["taskArns"]);
        if tasks.is_empty() {
            return Ok(Vec::new());
        }
        let found = self
            .ecs("DescribeTasks", &json!({"cluster": cluster, "tasks": tasks}))
            .await?;
        let found = found["tasks"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(found
            .iter()
            .map(MasterTask::of)
            .filter(|task| !task.is_ending())
            .collect())
    }

    /// A master as it is now; `None` if ECS does not know it any longer.
    ///
    /// # Errors
    /// [`Error::Aws`] if ECS refuses.
    pub async fn master(&self, target: &str, task: &MasterTask) -> Result<Option<MasterTask>, Error> {
        let request = json!({"cluster": names::load::cluster(target), "tasks": [&task.arn]});
        let found = self.ecs("DescribeTasks", &request).await?;
        Ok(found["tasks"].get(0).map(MasterTask::of))
    }

    /// Starts a master with the executable of the worker's function.
    ///
    /// # Errors
    /// [`Error::NotFound`] without the load stack or its function; [`Error::InvalidInput`] if the variables are too long;
    /// [`Error::Operation`] with ECS's reason if there is no room for the task.
    pub async fn start_master(&self, target: &str, wanted: &MasterOptions) -> Result<MasterTask, Error> {
        let (cluster, service) = (names::load::cluster(target), names::load::master(target));
        let mut variables = vec![(EXECUTABLE_URL, self.executable_url(target).await?)];
        variables.extend(
            wanted
                .environment
                .iter()
                .map(|(name, value)| (*name, value.clone())),
        );
        let variables: Vec<Json> = variables
            .iter()
            .map(|(name, value)| json!({"name": name, "value": value}))
            .collect();
        let overrides = json!({
            "cpu": wanted.size.cpu.to_string(),
            "memory": wanted.size.memory_mb.to_string(),
            "containerOverrides": [{"name": CONTAINER, "environment": variables}],
        });
        let length = overrides.to_string().len();
        if length > OVERRIDES {
            let reason = format!(
                "is too long for the variables of a task, which may have {OVERRIDES} characters in all. Use a shorter file"
            );
            return Err(InvalidInput::new("scenario", format!("of {length} characters"), reason).into());
        }
        let request = json!({"cluster": &cluster, "services": [&service]});
        let found = self
            .ecs("DescribeServices", &request)
            .await
            .map_err(|err| absent(err, target))?;
        let services = found["services"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let is_active = |one: &&Json| one["status"] != "INACTIVE";
        let Some(network) = services.iter().find(is_active) else {
            return Err(Error::NotFound {
                stack: names::load::stack(target),
            });
        };
        let mut request = json!({
            "cluster": &cluster,
            "taskDefinition": network["taskDefinition"],
            "count": 1,
            "enableExecuteCommand": true,
            "networkConfiguration": network["networkConfiguration"],
            "overrides": overrides,
            "startedBy": "zae-limiter loadtest",
            // A call that is repeated must not start a second task.
            "clientToken": format!("{:032x}", fastrand::u128(..)),
        });
        match &network["capacityProviderStrategy"] {
            Json::Array(strategy) if !strategy.is_empty() => {
                request["capacityProviderStrategy"] = json!(strategy);
            }
            _ => request["launchType"] = json!("FARGATE"),
        }
        let started = self.ecs("RunTask", &request).await?;
        if let Some(task) = started["tasks"].get(0) {
            return Ok(MasterTask::of(task));
        }
        let reason = started["failures"][0]["reason"].as_str();
        Err(Error::Operation {
            stack: cluster,
            reason: reason.unwrap_or("ECS gave no reason").to_owned(),
            failed: Vec::new(),
        })
    }

    /// Has a master stopped. It removes what its test has made before it ends.
    ///
    /// # Errors
    /// [`Error::Aws`] if ECS refuses.
    pub async fn stop_master(&self, target: &str, task: &MasterTask, reason: &str) -> Result<(), Error> {
        let cluster = names::load::cluster(target);
        self.stop_task(&cluster, &task.arn, reason).await
    }

    /// Waits until a master has ended.
    ///
    /// # Errors
    /// [`Error::Operation`] if it does not end in time; [`Error::Aws`] if ECS refuses.
    pub async fn master_ended(&self, target: &str, task: &MasterTask) -> Result<(), Error> {
        self.ended(&names::load::cluster(target), std::slice::from_ref(&task.arn))
            .await
    }

    /// Where a task can fetch the executable that the worker's function runs.
    async fn executable_url(&self, target: &str) -> Result<String, Error> {
        let stack = names::load::stack(target);
        let absent = || Error::NotFound { stack: stack.clone() };
        let found = self.existing(&stack).await?.ok_or_else(absent)?.usable()?;
        let function = self
            .function(&names::load::worker(target))
            .await?
            .ok_or_else(absent)?;
        let bucket = found.parameters.get(FUNCTION_CODE_BUCKET);
        let key = hex_of_lambda_sha256(&function.code_sha256).map(|sha256| executable_key(&sha256));
        let (Some(bucket), Some(key)) = (bucket, key) else {
            return Err(Error::unreadable(
                "GetFunctionConfiguration",
                "it has no hash of the function's code",
            ));
        };
        let head = self
            .clients
            .buckets
            .head_object()
            .bucket(bucket)
            .key(&key)
            .send()
            .await;
        if let Err(err) = head {
            let status = err.raw_response().map(|raw| raw.status().as_u16());
            // Without permission to list the bucket, what is absent looks forbidden.
            if matches!(status, Some(403 | 404)) {
                return Err(Error::CodeBucket {
                    bucket: bucket.clone(),
                    reason: format!(
                        "it holds no '{key}', the executable of the function '{}', or may not be read; 'zae-limiter loadtest \
                         push' uploads it",
                        function.name
                    ),
                });
            }
            return Err(failed("HeadObject")(err));
        }
        let life = PresigningConfig::expires_in(URL_LIFE)
            .map_err(|err| Error::unreadable("GetObject", &err.to_string()))?;
        let get = self.clients.buckets.get_object().bucket(bucket).key(key);
        let signed = get.presigned(life).await.map_err(failed("GetObject"))?;
        Ok(signed.uri().to_owned())
    }
}

/// An error about a cluster that is not there is about the stack.
fn absent(err: Error, target: &str) -> Error {
    if err.is_code("ClusterNotFoundException") {
        return Error::NotFound {
            stack: names::load::stack(target),
        };
    }
    err
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_fargate() {
        for (cpu, memory, expected) in [
            (None, None, Ok((1024, 2048))),
            (Some(256), None, Ok((256, 2048))),
            (Some(256), Some(512), Ok((256, 512))),
            (Some(16_384), None, Ok((16_384, 32_768))),
            (Some(1024), Some(8192), Ok((1024, 8192))),
            (
                Some(1000),
                None,
                Err("invalid cpu '1000': must be one of 256, 512, 1024, 2048, 4096, 8192, 16384"),
            ),
            (
                Some(256),
                Some(4096),
                Err(
                    "invalid memory '4096': must be 512, or from 1024 to 2048 in steps of 1024 with 256 CPU units",
                ),
            ),
            (
                Some(8192),
                Some(17_000),
                Err(
                    "invalid memory '17000': must be from 16384 to 61440 in steps of 4096 with 8192 CPU units",
                ),
            ),
        ] {
            let made = MasterSize::new(cpu, memory);
            let made = made
                .map(|size| (size.cpu, size.memory_mb))
                .map_err(|err| err.to_string());
            assert_eq!(made, expected.map_err(str::to_owned), "{cpu:?} {memory:?}");
        }
    }

    #[test]
    fn a_session_needs_the_agent_and_the_runtime() {
        let mut task = json!({
            "taskArn": "arn:aws:ecs:us-east-1:000000000000:task/my-app-load/abc", "lastStatus": "RUNNING",
            "containers": [{"name": "master", "managedAgents": [{"name": "ExecuteCommandAgent", "lastStatus": "PENDING"}]}],
        });
        assert_eq!(MasterTask::of(&task).session_target("my-app"), None);
        task["containers"][0]["managedAgents"][0]["lastStatus"] = json!("RUNNING");
        assert_eq!(MasterTask::of(&task).session_target("my-app"), None);
        task["containers"][0]["runtimeId"] = json!("abc-1");
        let running = MasterTask::of(&task);
        assert_eq!(
            running.session_target("my-app").as_deref(),
            Some("ecs:my-app-load_abc_abc-1")
        );
        assert!(running.is_running() && !running.is_ending());
        task["lastStatus"] = json!("STOPPED");
        task["stoppedReason"] = json!("Essential container in task exited");
        task["containers"][0]["exitCode"] = json!(22);
        let stopped = MasterTask::of(&task);
        assert!(stopped.is_ending() && stopped.session_target("my-app").is_none());
        assert_eq!(
            stopped.stopped_reason,
            "Essential container in task exited; exit code 22"
        );
    }
}
