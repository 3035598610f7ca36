//! What the container is: its name, image, port, environment, mounts and health check.
//!
//! Each value is written here and nowhere else.

use std::collections::HashMap;
use std::path::Path;

use bollard::models::{ContainerCreateBody, HealthConfig, HostConfig, PortBinding};

use super::error::Error;

/// The container's name. There is one for each daemon.
pub const CONTAINER: &str = "zae-limiter-localstack";

/// The image, unless another is asked for.
pub const IMAGE: &str = "localstack/localstack:4.14";

/// The port that LocalStack serves inside the container, and the host's port unless another is asked for.
pub const PORT: u16 = 4566;

/// The services that LocalStack starts.
pub const SERVICES: &str =
    "dynamodb,dynamodbstreams,lambda,cloudformation,logs,iam,cloudwatch,sqs,s3,sts,resourcegroupstaggingapi";

/// The daemon's socket, on the daemon's machine: LocalStack starts the functions' containers through it.
const DOCKER_SOCKET: &str = "/var/run/docker.sock";

/// Where LocalStack keeps its state inside the container.
const STATE: &str = "/var/lib/localstack";

/// The name of the only port in the daemon's maps.
pub(super) const PORT_NAME: &str = "4566/tcp";

/// Seconds that a stopping container gets to end by itself.
pub(super) const GRACE_SECONDS: i32 = 10;

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// The configuration from which the container is created.
///
/// # Errors
/// [`Error::StateDir`] if the directory's name cannot be said in the daemon's notation for mounts.
pub(super) fn body(image: &str, port: u16, state_dir: &Path) -> Result<ContainerCreateBody, Error> {
    let bad_dir = |reason| Error::StateDir {
        path: state_dir.to_path_buf(),
        reason,
    };
    let dir = state_dir.to_str().ok_or_else(|| bad_dir("it is not UTF-8"))?;
    if !state_dir.is_absolute() {
        return Err(bad_dir("it is not an absolute path"));
    }
    if cfg!(unix) && dir.contains(':') {
        return Err(bad_dir("it contains a colon"));
    }
    let binding = PortBinding {
        host_ip: None,
        host_port: Some(port.to_string()),
    };
    Ok(ContainerCreateBody {
        image: Some(image.to_owned()),
        env: Some(vec![
            format!("SERVICES={SERVICES}"),
            "DEBUG=0".to_owned(),
            // DynamoDB's deletion by TTL takes place, as it does on AWS.
            "DYNAMODB_REMOVE_EXPIRED_ITEMS=1".to_owned(),
        ]),
        exposed_ports: Some(vec![PORT_NAME.to_owned()]),
        healthcheck: Some(HealthConfig {
            test: Some(
                ["CMD", "curl", "-f", "http://localhost:4566/_localstack/health"]
                    .map(str::to_owned)
                    .to_vec(),
            ),
            interval: Some(5 * NANOS_PER_SECOND),
            timeout: Some(5 * NANOS_PER_SECOND),
            retries: Some(30),
            ..HealthConfig::default()
        }),
        host_config: Some(HostConfig {
            binds: Some(vec![
                format!("{DOCKER_SOCKET}:{DOCKER_SOCKET}:rw"),
                format!("{dir}:{STATE}:rw"),
            ]),
            port_bindings: Some(HashMap::from([(PORT_NAME.to_owned(), Some(vec![binding]))])),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_one_everywhere() {
        assert_eq!(PORT_NAME, format!("{PORT}/tcp"));
        let body = body(IMAGE, 1, Path::new("/state")).unwrap();
        let test = body.healthcheck.unwrap().test.unwrap().join(" ");
        assert!(test.contains(&format!("localhost:{PORT}/")), "{test}");
    }

    #[test]
    #[cfg(unix)]
    fn a_state_directory_that_cannot_be_mounted_is_refused() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;

        let check = |path: &Path, want: &str| {
            let err = body(IMAGE, PORT, path).unwrap_err();
            assert!(matches!(err, Error::StateDir { .. }), "{err:?}");
            assert!(err.to_string().contains(want), "{err}");
        };
        check(
            Path::new("relative"),
            "'relative' cannot be mounted: it is not an absolute path",
        );
        check(Path::new("/a:b"), "'/a:b' cannot be mounted: it contains a colon");
        check(Path::new(OsStr::from_bytes(b"/a\xff")), "it is not UTF-8");
    }
}
