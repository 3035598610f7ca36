//! Signals on Unix.

use std::io;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, raise};
use nix::unistd::{Pid, getpgid, getpgrp, getpid, getsid};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::iterator::exfiltrator::origin::Origin;
use tokio::process::Command;
use tokio::sync::mpsc;

use super::{Catch, Ending};
use crate::failure::Failure;

/// Signals that ask a program to end.
const ENDS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Signals of other processes that kill a process which does not catch them.
const KILLS: [Signal; 7] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
];

/// The other signals that are forwarded to a command.
const FORWARDED: [Signal; 3] = [Signal::SIGTSTP, Signal::SIGCONT, Signal::SIGWINCH];

/// How long the main thread may take to end the program, where nothing is lost without it. It may be blocked, for
/// example by a reader of its output that does not read.
const GRACE: Duration = Duration::from_secs(1);

/// How long a command may take to stop after SIGTSTP, and how often to look.
const STOPPING: (u32, Duration) = (50, Duration::from_millis(10));

/// The signals that the process receives while this exists.
pub(crate) struct Signals {
    received: mpsc::UnboundedReceiver<Received>,
    /// Set by the signal's handler, before the signal is on its way to `received`.
    is_asked: Arc<AtomicBool>,
    is_free: Arc<AtomicBool>,
}

#[derive(Debug, Clone, Copy)]
struct Received {
    signal: Signal,
    /// The process that sent it; none if the kernel did, for the terminal or for a timer.
    sender: Option<Pid>,
}

impl Signals {
    /// Catches signals, except those that are ignored.
    pub(crate) fn catch(which: Catch) -> Result<Self, Failure> {
        let ignored = ignored();
        let mut caught: Vec<Signal> = match which {
            Catch::Ends => ENDS.to_vec(),
            Catch::Kills => KILLS.to_vec(),
            Catch::Commands => [&KILLS[..], &FORWARDED[..]].concat(),
        };
        caught.retain(|signal| !ignored.contains(*signal));
        let is_free = Arc::new(AtomicBool::new(which == Catch::Ends));
        let (sender, received) = mpsc::unbounded_channel();
        let failed = |err: io::Error| Failure::error(format!("Cannot start: {err}"));
        let is_asked = Arc::new(AtomicBool::new(false));
        for signal in caught.iter().filter(|signal| KILLS.contains(signal)) {
            signal_hook::flag::register(*signal as i32, Arc::clone(&is_asked)).map_err(failed)?;
        }
        let mut signals =
            SignalsInfo::<WithOrigin>::new(caught.iter().map(|signal| *signal as i32)).map_err(failed)?;
        let nothing_is_lost = Arc::clone(&is_free);
        // Its own thread, because the main one may be blocked. It ends with the process.
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                for origin in signals.forever() {
                    let Some(received) = Received::of(&origin) else {
                        continue;
                    };
                    let is_heard = sender.send(received).is_ok();
                    let Some(ending) = received
                        .ending()
                        .filter(|_| nothing_is_lost.load(Ordering::SeqCst))
                    else {
                        continue;
                    };
                    if is_heard {
                        std::thread::sleep(GRACE);
                    }
                    std::process::exit(ending.signal.map_or(1, |(number, _)| 128 + i32::from(number)));
                }
            })
            .map_err(failed)?;
        Ok(Self {
            received,
            is_asked,
            is_free,
        })
    }

    /// The next signal that asks the program to end.
    pub(crate) async fn ending(&mut self) -> Ending {
        while let Some(received) = self.received.recv().await {
            if let Some(ending) = received.ending() {
                return ending;
            }
            received.stop();
        }
        // Only if the thread is gone.
        std::future::pending().await
    }

    /// The signal to end that has come already, if one has.
    pub(crate) async fn pending(&mut self) -> Option<Ending> {
        if self.is_asked.load(Ordering::SeqCst) {
            Some(self.ending().await)
        } else {
            None
        }
    }

    /// From now on nothing is lost if the process ends.
    pub(crate) fn let_go(&self) {
        self.is_free.store(true, Ordering::SeqCst);
    }

    /// Runs a command to its end, and passes on to it the signals that only this process receives.
    ///
    /// The command is in this program's process group, so that a terminal treats both as one job: what its keys send
    /// reaches the command anyway.
    pub(crate) async fn run(&mut self, command: &mut Command) -> io::Result<ExitStatus> {
        let mut child = command.spawn()?;
        // It is not reaped before the end of this function, so that the number cannot be another process's.
        let command = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .map(Pid::from_raw);
        let mut has_stopped = false;
        loop {
            let received = tokio::select! {
                ended = child.wait() => return ended,
                Some(received) = self.received.recv() => received,
            };
            let Some(command) = command else {
                continue;
            };
            let is_shared = match received.signal {
                // The shell continues the whole job; a single process may, too.
                Signal::SIGCONT if has_stopped => !is_stopped(command),
                _ => received.is_shared() && getpgid(Some(command)) == Ok(getpgrp()),
            };
            if !is_shared && received.sender != Some(command) {
                // Fails if the command has just ended, which the next turn sees.
                let _ = kill(command, received.signal);
            }
            match received.signal {
                Signal::SIGTSTP => has_stopped = stop_with(command).await,
                Signal::SIGCONT => has_stopped = false,
                _ => {}
            }
        }
    }
}

impl Received {
    fn of(origin: &Origin) -> Option<Self> {
        Some(Self {
            signal: Signal::try_from(origin.signal).ok()?,
            sender: origin.process.map(|process| Pid::from_raw(process.pid)),
        })
    }

    fn ending(self) -> Option<Ending> {
        if !KILLS.contains(&self.signal) {
            return None;
        }
        Some(match self.signal {
            Signal::SIGINT => Ending::INTERRUPT,
            other => Ending {
                signal: u8::try_from(other as i32)
                    .ok()
                    .map(|number| (number, other.as_str())),
            },
        })
    }

    /// Whether the sender has sent it to the whole process group. A process can do so, too, which cannot be detected.
    fn is_shared(self) -> bool {
        let is_from_terminal = match self.signal {
            Signal::SIGINT | Signal::SIGQUIT | Signal::SIGTSTP | Signal::SIGCONT | Signal::SIGWINCH => true,
            // Only the leader of a session gets the end of its terminal.
            Signal::SIGHUP => getsid(None) != Ok(getpid()),
            _ => false,
        };
        self.sender.is_none() && is_from_terminal
    }

    /// Does what SIGTSTP does to a program that does not catch it.
    fn stop(self) {
        if self.signal == Signal::SIGTSTP {
            // Returns once the process is continued.
            let _ = raise(Signal::SIGSTOP);
        }
    }
}

/// Stops this process if the command stops, so that the shell sees a job that has stopped. The command may have its own
/// idea of what to do about SIGTSTP.
async fn stop_with(command: Pid) -> bool {
    let (times, pause) = STOPPING;
    for _ in 0..times {
        if is_stopped(command) {
            return raise(Signal::SIGSTOP).is_ok();
        }
        tokio::time::sleep(pause).await;
    }
    false
}

/// Whether a child is stopped.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
fn is_stopped(child: Pid) -> bool {
    use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
    let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    matches!(waitid(Id::Pid(child), flags), Ok(WaitStatus::Stopped(..)))
}

/// Whether a child is stopped, which cannot be known here without taking its end from the runtime.
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
fn is_stopped(_child: Pid) -> bool {
    true
}

/// The signals that this process ignores, which it has inherited.
fn ignored() -> Mask {
    // Reading a disposition takes unsafe code everywhere else.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    Mask::of_status(&status)
}

/// A set of signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mask(u64);

impl Mask {
    /// The status of a process on Linux. Empty if it is unknown.
    fn of_status(status: &str) -> Self {
        let digits = status
            .lines()
            .find_map(|line| line.strip_prefix("SigIgn:"))
            .map(str::trim);
        Self(
            digits
                .and_then(|digits| u64::from_str_radix(digits, 16).ok())
                .unwrap_or(0),
        )
    }

    fn contains(self, signal: Signal) -> bool {
        let bit = u32::try_from(signal as i32 - 1)
            .ok()
            .and_then(|bit| 1_u64.checked_shl(bit));
        bit.is_some_and(|bit| self.0 & bit != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_linux_says_is_ignored() {
        // As `nohup`, and a background job of `sh`, have it.
        let status =
            "Name:\tcat\nSigBlk:\t00000000ffffffff\nSigIgn:\t0000000000001003\nSigCgt:\t0000000000000004\n";
        let mask = Mask::of_status(status);
        for (signal, is_ignored) in [
            (Signal::SIGHUP, true),
            (Signal::SIGINT, true),
            (Signal::SIGPIPE, true),
            (Signal::SIGQUIT, false),
            (Signal::SIGTERM, false),
        ] {
            assert_eq!(mask.contains(signal), is_ignored, "{signal}");
        }
        for other in ["", "SigIgn:\n", "SigIgn:\tzz\n", "SigIgn:\t10000000000000000\n"] {
            assert_eq!(Mask::of_status(other), Mask(0), "{other:?}");
        }
    }

    #[test]
    fn keys_of_a_terminal_reach_the_command_themselves() {
        let received = |signal, sender| Received { signal, sender };
        let someone = Some(Pid::from_raw(7));
        for signal in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTSTP, Signal::SIGWINCH] {
            assert!(received(signal, None).is_shared(), "{signal}");
            assert!(!received(signal, someone).is_shared(), "{signal}");
        }
        // A timer that was set before this program took the process over.
        assert!(!received(Signal::SIGALRM, None).is_shared());
        assert!(!received(Signal::SIGTERM, None).is_shared());
    }
}
