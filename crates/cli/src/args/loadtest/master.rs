//! `loadtest master`.

use crate::args::values::whole;
use clap::Args;
use zae_limiter_loadtest::function::MASTER_PORT;

/// Lead the workers of a load test, in the task that 'loadtest run --workers' and 'loadtest ui' start.
///
/// The variables are those of the task's definition, and what the commands add.
#[derive(Debug, Clone, Args)]
#[command(hide = true, verbatim_doc_comment)]
pub(crate) struct Master {
    /// Name of the stack that load is put on
    #[arg(long, env = "TARGET_STACK_NAME")]
    pub(crate) target: String,

    /// AWS region of the stack and of the function
    #[arg(long, env = "TARGET_REGION")]
    pub(crate) region: Option<String>,

    /// Function that is called for workers
    #[arg(long, env = "WORKER_FUNCTION_NAME", value_name = "NAME")]
    pub(crate) function: String,

    /// Time that a worker may run, from 60 to 900
    #[arg(long, env = "LAMBDA_TIMEOUT", value_name = "SECONDS", value_parser = whole::<u16>(60..=900))]
    pub(crate) lambda_timeout: u16,

    /// Users that a worker carries, from 1 to 1000000
    #[arg(long, env = "USERS_PER_WORKER", value_name = "USERS", value_parser = whole::<u32>(1..=1_000_000))]
    pub(crate) users_per_worker: u32,

    /// Fewest workers, from 0 to 1000
    #[arg(long, env = "MIN_WORKERS", value_name = "N", value_parser = whole::<u16>(0..=1000))]
    pub(crate) min_workers: u16,

    /// Most workers, from 1 to 1000
    #[arg(long, env = "MAX_WORKERS", value_name = "N", value_parser = whole::<u16>(1..=1000))]
    pub(crate) max_workers: u16,

    /// Time in which a worker starts, from 0 to 120
    #[arg(long, env = "STARTUP_LEAD_TIME", value_name = "SECONDS", value_parser = whole::<u16>(0..=120))]
    pub(crate) startup_lead_time: u16,

    /// Name of a scenario of the program, or of the one in --scenario
    #[arg(long, env = "LOCUSTFILE", value_name = "SCENARIO")]
    pub(crate) locustfile: String,

    /// Text of a YAML file with a scenario, compressed with gzip, in base64
    #[arg(long, env = "SCENARIO", value_name = "TEXT", hide_env_values = true)]
    pub(crate) scenario: Option<String>,

    /// Time without a test after which the task ends, from 1 to 86400
    #[arg(long, env = "IDLE_TIMEOUT", value_name = "SECONDS", default_value_t = 900, value_parser = whole::<u32>(1..=86_400))]
    pub(crate) idle_timeout: u32,

    /// Address of this task that workers connect to [default: that of its network interface]
    #[arg(long, env = "MASTER_HOST", value_name = "ADDRESS")]
    pub(crate) host: Option<std::net::IpAddr>,

    /// Port that workers connect to
    #[arg(long, env = "MASTER_PORT", value_name = "PORT", default_value_t = MASTER_PORT)]
    pub(crate) port: u16,

    /// Port of the page
    #[arg(long, env = "PAGE_PORT", value_name = "PORT", default_value_t = 8089)]
    pub(crate) page_port: u16,
}
