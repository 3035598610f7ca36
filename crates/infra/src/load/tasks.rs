//! The tasks of a load test in ECS.

use serde_json::{Value as Json, json};

use crate::call::Service;
use crate::error::Error;
use crate::{StackManager, names};

/// The most pages of a listing that are read, of 100 tasks each.
const PAGES: usize = 100;

/// The most tasks that one call describes.
const DESCRIBED: usize = 100;

/// What became of the tasks of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// The endpoint has no ECS, so that there are no tasks.
    NoService,
    /// The cluster does not exist.
    NoCluster,
    /// So many were stopped.
    Tasks(usize),
}

impl StackManager {
    /// Calls an operation of ECS.
    pub(super) async fn ecs(&self, operation: &'static str, request: &Json) -> Result<Json, Error> {
        let region = self.region()?;
        let body = self
            .caller
            .call(Service::Ecs, region, operation, request.to_string());
        serde_json::from_str(&body.await?).map_err(|err| Error::unreadable(operation, &err.to_string()))
    }

    /// The ARNs of a cluster's tasks that are to run.
    async fn running(&self, cluster: &str) -> Result<Vec<String>, Error> {
        let mut found = Vec::new();
        let mut next = Json::Null;
        for _ in 0..PAGES {
            let mut request = json!({"cluster": cluster, "desiredStatus": "RUNNING"});
            if next.is_string() {
                request["nextToken"] = next;
            }
            let page = self.ecs("ListTasks", &request).await?;
            found.extend(texts(&page["taskArns"]));
            next = page["nextToken"].clone();
            if !next.is_string() {
                return Ok(found);
            }
        }
        Err(Error::unreadable("ListTasks", "the listing does not end"))
    }

    /// Ends the tasks of a target's load tests, of the service or not, and waits until they have ended.
    ///
    /// # Errors
    /// [`Error::Aws`] if ECS refuses; [`Error::Operation`] if tasks did not end in time.
    pub async fn stop_load_tasks(&self, target: &str) -> Result<Stopped, Error> {
        let (cluster, service) = (names::load::cluster(target), names::load::master(target));
        // Else it would start a task for each that is stopped.
        let scale = json!({"cluster": &cluster, "service": service, "desiredCount": 0});
        match self.ecs("UpdateService", &scale).await {
            Ok(_) => {}
            Err(err) if err.is_code("NotImplemented") => return Ok(Stopped::NoService),
            Err(err) if err.is_code("ClusterNotFoundException") => return Ok(Stopped::NoCluster),
            Err(err)
                if err.is_code("ServiceNotFoundException") || err.is_code("ServiceNotActiveException") => {}
            Err(err) => return Err(err),
        }
        let tasks = self.running(&cluster).await?;
        for task in &tasks {
            self.stop_task(&cluster, task, "the load test's stack is deleted")
                .await?;
        }
        self.ended(&cluster, &tasks).await?;
        Ok(Stopped::Tasks(tasks.len()))
    }

    /// Has a task stopped, unless it has ended.
    pub(super) async fn stop_task(&self, cluster: &str, task: &str, reason: &str) -> Result<(), Error> {
        let stop = json!({"cluster": cluster, "task": task, "reason": reason});
        match self.ecs("StopTask", &stop).await {
            // It ended by itself.
            Err(err) if err.is_code("InvalidParameterException") => Ok(()),
            stopped => stopped.map(drop),
        }
    }

    /// Waits until tasks have ended.
    pub(super) async fn ended(&self, cluster: &str, tasks: &[String]) -> Result<(), Error> {
        let mut looks = self.waits.looks(self.waits.function);
        for part in tasks.chunks(DESCRIBED) {
            loop {
                let request = json!({"cluster": cluster, "tasks": part});
                let described = self.ecs("DescribeTasks", &request).await?;
                let left = described["tasks"].as_array().map_or(0, |tasks| {
                    let is_left = |task: &&Json| task["lastStatus"] != "STOPPED";
                    tasks.iter().filter(is_left).count()
                });
                if left == 0 {
                    break;
                }
                if !looks.again().await {
                    return Err(Error::Operation {
                        stack: cluster.to_owned(),
                        reason: format!(
                            "{left} tasks did not stop within {} s",
                            self.waits.function.as_secs()
                        ),
                        failed: Vec::new(),
                    });
                }
            }
        }
        Ok(())
    }
}

pub(super) fn texts(list: &Json) -> Vec<String> {
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(Json::as_str).map(str::to_owned).collect()
}
