//! Signals in the course of a load test: the first ends the test, the second the program.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::say;
use crate::signals::{Catch, Ending, Signals};

/// What the second signal leaves behind, as a text for the user.
type LeftOver = Arc<Mutex<Option<String>>>;

/// The signals of a test.
#[derive(Clone)]
pub(super) struct Interrupts {
    first: watch::Receiver<Option<Ending>>,
    left_over: LeftOver,
}

impl Interrupts {
    /// Catches them from now on.
    pub(super) fn catch() -> Result<Self, Failure> {
        let mut signals = Signals::catch(Catch::Kills)?;
        let (heard, first) = watch::channel(None);
        let left_over = LeftOver::default();
        let left = Arc::clone(&left_over);
        tokio::spawn(async move {
            let ending = signals.ending().await;
            // Whether the test listens or not.
            heard.send_replace(Some(ending));
            let again = signals.ending().await;
            if let Some(text) = left.lock().unwrap_or_else(PoisonError::into_inner).take() {
                say(&text);
            }
            let exit = match again.into_failure() {
                Failure::Message { exit, .. } => exit,
                Failure::NobodyReads => Exit::Failure,
            };
            std::process::exit(exit.code().into());
        });
        Ok(Self { first, left_over })
    }

    /// The first signal, if it has come.
    pub(super) fn heard(&self) -> Option<Ending> {
        *self.first.borrow()
    }

    /// Waits for the first signal.
    pub(super) async fn first(&self) {
        let mut first = self.first.clone();
        // The task that sends lives as long as the program.
        let _ = first.wait_for(Option::is_some).await;
    }

    /// The result, unless a signal comes first.
    pub(super) async fn unless<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        self.during(work).await?
    }

    /// What comes of something that does not fail, unless a signal comes first.
    pub(super) async fn during<T>(&self, work: impl Future<Output = T>) -> Result<T, Failure> {
        tokio::select! {
            biased;
            () = self.first() => Err(self.heard().map_or_else(Failure::aborted, Ending::into_failure)),
            result = work => Ok(result),
        }
    }

    /// What a second signal leaves behind from now on.
    pub(super) fn leaves(&self, text: Option<String>) {
        *self.left_over.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }
}
