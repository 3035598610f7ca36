//! The system's data about processes, and the limits of this one.

use std::io;

/// More files than this are not asked for: some programs close every one that they might have, and functions inherit
/// the limit.
#[cfg(unix)]
const FILES: u64 = 65_536;

/// When a process was started, in ticks since the system was: no later process of the same id has the same. `None` if
/// there is no such process.
///
/// # Errors
/// If the system cannot say; only Linux can.
pub fn born(pid: u32) -> io::Result<Option<u64>> {
    if !std::path::Path::new("/proc/self/stat").exists() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => match started(&stat) {
            Some(started) => Ok(Some(started)),
            None => Err(io::ErrorKind::InvalidData.into()),
        },
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(err),
    }
}

/// The field that tells when, the 22nd. The second is the program's name in parentheses, which may hold anything.
fn started(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

/// Closes the files that the starter of this process had open beyond the standard three: a lock would stay held and a
/// reader would wait as long as this process lives. Only for a process that has opened nothing itself yet.
#[cfg(unix)]
pub fn close_inherited() {
    let Ok(open) = std::fs::read_dir("/dev/fd") else {
        return;
    };
    let open = open.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    // Collected first: the listing has a descriptor of its own, which is closed by then.
    let open: Vec<i32> = open.filter(|fd| *fd > 2).collect();
    for fd in open {
        let _ = nix::unistd::close(fd);
    }
}

/// Elsewhere, files are inherited only on request.
#[cfg(not(unix))]
pub fn close_inherited() {}

/// How a file is opened that only its user may use if it is new.
pub fn private_file() -> std::fs::OpenOptions {
    #[cfg_attr(not(unix), expect(unused_mut, reason = "only Unix has modes"))]
    let mut options = std::fs::OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// From now on, files that this process makes are readable by its user only.
pub fn keep_private() {
    #[cfg(unix)]
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
}

/// Lets this process open as many files as it may: connections are files, too, and the usual limit is low.
///
/// # Errors
/// The system's; then everything stays as it is.
#[cfg(unix)]
pub fn allow_files() -> io::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (now, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = most.min(FILES);
    if now < wanted {
        setrlimit(Resource::RLIMIT_NOFILE, wanted, most)?;
    }
    Ok(())
}

/// Elsewhere there is no such limit.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub fn allow_files() -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_have_any_name() {
        let rest = "S 1 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 9 9";
        assert_eq!(started(&format!("7 (sh) {rest}")), Some(4242));
        assert_eq!(started(&format!("7 (a) b (c) {rest}")), Some(4242));
        assert_eq!(started("7 (sh"), None);
        assert_eq!(started("7 (sh) S 1"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn processes_that_are_not_there_were_never_born() {
        assert!(born(std::process::id()).unwrap().is_some());
        // Ids end long before.
        assert_eq!(born(u32::MAX).unwrap(), None);
    }

    #[test]
    #[cfg(unix)]
    fn as_many_files_as_may_be() {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, most.min(512), most).unwrap();
        allow_files().unwrap();
        let (now, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(now, most.min(FILES));
    }
}
