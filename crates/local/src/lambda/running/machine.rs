//! What the machine has to say: whether it can run an executable, how much memory a process has, and how to end one.

use std::fs;
use std::io::Read as _;
use std::path::Path;

/// A function that cannot be started: Lambda's type of the error, and what is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unfit {
    pub(crate) kind: &'static str,
    pub(crate) message: String,
}

impl Unfit {
    pub(crate) fn entry(message: String) -> Self {
        Self {
            kind: "Runtime.InvalidEntrypoint",
            message,
        }
    }
}

/// Why a function was not started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotStarted {
    /// It cannot be: that is the invocation's error.
    Unfit(Unfit),
    /// The machine was out of something that it may have again in a moment. That says nothing of the function.
    Lacking(String),
}

impl NotStarted {
    /// The system's error.
    pub(crate) fn because(err: &std::io::Error, tried: &str) -> Self {
        let message = format!("{tried}: {err}");
        if is_lack(err) {
            Self::Lacking(message)
        } else {
            Self::Unfit(Unfit::entry(message))
        }
    }
}

impl From<Unfit> for NotStarted {
    fn from(unfit: Unfit) -> Self {
        Self::Unfit(unfit)
    }
}

/// Whether the system was out of something: files, processes, memory, room on the disk.
fn is_lack(err: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    #[cfg(unix)]
    {
        use nix::errno::Errno;
        // These have no kind of their own.
        let code = err.raw_os_error().map(Errno::from_raw);
        if matches!(code, Some(Errno::EMFILE | Errno::ENFILE)) {
            return true;
        }
    }
    matches!(
        err.kind(),
        ErrorKind::WouldBlock
            | ErrorKind::OutOfMemory
            | ErrorKind::StorageFull
            | ErrorKind::QuotaExceeded
            | ErrorKind::ExecutableFileBusy
    )
}

/// The architecture of this machine, as Lambda calls it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "arm64",
        other => other,
    }
}

/// Checks that this machine can run a function's `bootstrap`.
pub(crate) fn check(bootstrap: &Path, declared: &str) -> Result<(), NotStarted> {
    let mut head = [0; 20];
    let count = match fs::File::open(bootstrap) {
        Ok(mut file) => file.read(&mut head).unwrap_or(0),
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => {
            return Err(Unfit::entry(
                "Couldn't find valid bootstrap(s): [/var/task/bootstrap /opt/bootstrap]; the package must hold an \
                 executable named bootstrap at its top"
                    .to_owned(),
            )
            .into());
        }
        Err(err) => return Err(NotStarted::because(&err, "the bootstrap cannot be read")),
    };
    let is_executable = fs::metadata(bootstrap).is_ok_and(|found| is_executable(&found));
    if !is_executable {
        return Err(Unfit::entry(
            "fork/exec /var/task/bootstrap: permission denied; the package's bootstrap must have its executable bit set"
                .to_owned(),
        )
        .into());
    }
    let Some(built) = linux_executable(&head[..count]) else {
        // A script, perhaps, or an executable of this very system: the system will say.
        return Ok(());
    };
    let os = std::env::consts::OS;
    if os != "linux" {
        return Err(Unfit::entry(format!(
            "fork/exec /var/task/bootstrap: exec format error; the bootstrap is a Linux executable, and this machine \
             runs {os}. Start the endpoint on Linux, or in a Linux container, or deploy with --no-aggregator \
             --no-provisioner."
        ))
        .into());
    }
    if built != architecture() || declared != architecture() {
        return Err(Unfit::entry(format!(
            "fork/exec /var/task/bootstrap: exec format error; the bootstrap is built for {built}, the function is \
             declared for {declared}, and this machine is {here}. Deploy a package built for {here}.",
            here = architecture()
        ))
        .into());
    }
    Ok(())
}

/// The architecture of a Linux executable, if these bytes begin one.
fn linux_executable(head: &[u8]) -> Option<&'static str> {
    if !head.starts_with(b"\x7fELF") {
        return None;
    }
    let machine = match (head.get(5), head.get(18..20)) {
        (Some(2), Some(bytes)) => u16::from_be_bytes([bytes[0], bytes[1]]),
        (_, Some(bytes)) => u16::from_le_bytes([bytes[0], bytes[1]]),
        _ => 0,
    };
    Some(match machine {
        62 => "x86_64",
        183 => "arm64",
        _ => "another processor",
    })
}

#[cfg(unix)]
fn is_executable(found: &fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    found.is_file() && found.permissions().mode() & 0o111 != 0
}

#[cfg(not(unix))]
fn is_executable(found: &fs::Metadata) -> bool {
    found.is_file()
}

/// How many bytes a process has for itself, where the system tells.
pub(crate) fn memory(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    own_memory(&status)
}

/// The memory of a process without the pages of its executable, which the system can drop.
fn own_memory(status: &str) -> Option<u64> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
        Some(kilobytes * 1024)
    };
    match (field("RssAnon:"), field("RssShmem:")) {
        (Some(anonymous), shared) => Some(anonymous + shared.unwrap_or(0)),
        _ => field("VmRSS:"),
    }
}

/// When a process began, in the system's own unit; tells a process from another that got its number later.
fn began(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(19).map(str::to_owned)
}

/// Kills a process and what it started, which form a group.
pub(crate) fn kill(pid: u32) {
    #[cfg(unix)]
    if let Ok(pid) = i32::try_from(pid) {
        use nix::sys::signal::{Signal, killpg};
        // It may have ended meanwhile.
        let _ = killpg(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
    }
    #[cfg(not(unix))]
    let _ = pid;
}

/// Notes of running processes, by which the next endpoint ends what a killed one left running.
#[derive(Debug, Clone)]
pub(crate) struct Notes {
    directory: std::path::PathBuf,
}

impl Notes {
    /// Opens the notes; ends what they name and still runs.
    pub(crate) fn open(directory: std::path::PathBuf) -> std::io::Result<Self> {
        fs::create_dir_all(&directory)?;
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let pid = entry.file_name().to_string_lossy().parse::<u32>().ok();
            let noted = fs::read_to_string(entry.path()).unwrap_or_default();
            if let Some(pid) = pid
                && began(pid).is_some_and(|began| began == noted)
            {
                tracing::warn!(
                    pid,
                    "a function outlived the endpoint that started it; it is ended"
                );
                kill(pid);
            }
            fs::remove_file(entry.path())?;
        }
        Ok(Self { directory })
    }

    /// Notes a process.
    pub(crate) fn add(&self, pid: u32) {
        if let Some(began) = began(pid) {
            // Without a note, the process ends when it asks for its next event.
            let _ = fs::write(self.directory.join(pid.to_string()), began);
        }
    }

    /// Forgets a process that has ended.
    pub(crate) fn remove(&self, pid: u32) {
        let _ = fs::remove_file(self.directory.join(pid.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_say_what_they_are_built_for() {
        let elf = |order: u8, machine: [u8; 2]| {
            let mut head = vec![0x7f, b'E', b'L', b'F', 2, order, 1];
            head.resize(18, 0);
            head.extend(machine);
            head
        };
        assert_eq!(linux_executable(&elf(1, [62, 0])), Some("x86_64"));
        assert_eq!(linux_executable(&elf(1, [183, 0])), Some("arm64"));
        assert_eq!(linux_executable(&elf(2, [0, 183])), Some("arm64"));
        assert_eq!(linux_executable(&elf(1, [8, 0])), Some("another processor"));
        assert_eq!(linux_executable(b"\x7fELF"), Some("another processor"));
        assert_eq!(linux_executable(b"#!/bin/sh"), None);
    }

    #[cfg(unix)]
    #[test]
    fn what_cannot_be_run_is_said_before_it_is_tried() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let bootstrap = directory.path().join("bootstrap");
        let said = |declared: &str| match check(&bootstrap, declared) {
            Err(NotStarted::Unfit(unfit)) => unfit.message,
            other => panic!("{other:?}"),
        };
        assert!(said("x86_64").starts_with("Couldn't find valid bootstrap"));
        fs::write(&bootstrap, "#!/bin/sh").unwrap();
        assert!(said("x86_64").contains("permission denied"));
        fs::set_permissions(&bootstrap, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(check(&bootstrap, "x86_64"), Ok(()));
        let mut elf = b"\x7fELF\x02\x01".to_vec();
        elf.resize(18, 0);
        elf.extend(if architecture() == "arm64" {
            [62, 0]
        } else {
            [183, 0]
        });
        fs::write(&bootstrap, elf).unwrap();
        assert!(said(architecture()).contains("exec format error"));
    }

    #[cfg(unix)]
    #[test]
    fn what_the_machine_lacks_is_no_fault_of_the_function() {
        use nix::errno::Errno;
        let lacking = |code: Errno| {
            let err = std::io::Error::from_raw_os_error(code as i32);
            matches!(NotStarted::because(&err, "fork/exec"), NotStarted::Lacking(said) if said.starts_with("fork/exec: "))
        };
        for code in [
            Errno::EMFILE,
            Errno::ENFILE,
            Errno::EAGAIN,
            Errno::ENOMEM,
            Errno::ENOSPC,
        ] {
            assert!(lacking(code), "{code}");
        }
        for code in [Errno::ENOENT, Errno::EACCES, Errno::ENOEXEC, Errno::E2BIG] {
            assert!(!lacking(code), "{code}");
        }
    }

    #[test]
    fn own_memory_leaves_out_what_is_shared_with_files() {
        let status = "Name:\tx\nVmRSS:\t  900 kB\nRssAnon:\t  100 kB\nRssFile:\t 780 kB\nRssShmem:\t 20 kB\n";
        assert_eq!(own_memory(status), Some(120 * 1024));
        assert_eq!(own_memory("VmRSS:\t 5 kB\n"), Some(5 * 1024));
        assert_eq!(own_memory("Name:\tx\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_is_told_from_a_later_one_of_its_number() {
        let directory = tempfile::tempdir().unwrap();
        let notes = Notes::open(directory.path().to_owned()).unwrap();
        let pid = std::process::id();
        assert!(began(pid).is_some() && memory(pid).is_some_and(|bytes| bytes > 0));
        // A note of another process with our number: we are not ended.
        fs::write(directory.path().join(pid.to_string()), "1").unwrap();
        let notes_again = Notes::open(directory.path().to_owned()).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        notes.add(pid);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        notes_again.remove(pid);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
