//! Files are read again when they have changed, and when an operator asks for it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::app::App;
use crate::auth::Tokens;
use crate::error::Error;
use crate::files;
use crate::leases::LeaseKeys;
use crate::rules::Rules;
use crate::telemetry;
use crate::tls::Tls;

/// How often files are looked at. Their content is compared, since a time stamp misses files that are replaced by links.
pub(crate) const EVERY: Duration = Duration::from_secs(2);

/// Asks a running [`Server`](crate::Server) to read its files again, such as for SIGHUP.
#[derive(Debug, Clone, Default)]
pub struct Reload(Arc<Notify>);

impl Reload {
    /// Reads all files again, also those that have not changed.
    pub fn now(&self) {
        self.0.notify_one();
    }
}

/// What files hold. An error counts as a content, too.
type Content = Vec<Result<Vec<u8>, std::io::ErrorKind>>;

/// What can be read again.
enum Source {
    Rules(App, PathBuf),
    Tokens(Arc<Tokens>),
    Tls(Arc<Tls>),
    Leases(Arc<LeaseKeys>),
}

impl Source {
    /// Its label in metrics.
    fn name(&self) -> &'static str {
        match self {
            Self::Rules(..) => "rules",
            Self::Tokens(_) => "tokens",
            Self::Tls(_) => "certificates",
            Self::Leases(_) => "lease_keys",
        }
    }

    /// Its files.
    fn paths(&self) -> Vec<&Path> {
        match self {
            Self::Rules(_, path) => vec![path],
            Self::Tokens(tokens) => vec![tokens.path()],
            Self::Tls(tls) => tls.files().paths().collect(),
            Self::Leases(keys) => keys.path().into_iter().collect(),
        }
    }

    /// What they hold.
    fn content(&self) -> Content {
        let read = |path| files::check_regular(path).and_then(|()| files::read(path));
        let paths = self.paths().into_iter();
        paths.map(|path| read(path).map_err(|err| err.kind())).collect()
    }

    fn load(&self) -> Result<(), Error> {
        for path in self.paths() {
            files::check_regular(path).map_err(|err| Error::File {
                option: self.name(),
                path: path.to_owned(),
                reason: err.to_string(),
            })?;
        }
        match self {
            Self::Rules(app, path) => {
                app.set_rules(Rules::from_file(path)?);
                Ok(())
            }
            Self::Tokens(tokens) => tokens.reload(),
            Self::Tls(tls) => tls.reload(),
            Self::Leases(keys) => keys.reload(),
        }
    }
}

/// The files of a server.
pub(crate) struct Watched {
    sources: Vec<(Source, Content)>,
}

impl Watched {
    pub(crate) fn new(
        rules: Option<(App, PathBuf)>,
        tokens: Option<Arc<Tokens>>,
        tls: Option<Arc<Tls>>,
        leases: &Arc<LeaseKeys>,
    ) -> Self {
        let rules = rules.map(|(app, path)| Source::Rules(app, path));
        let leases = leases
            .path()
            .is_some()
            .then(|| Source::Leases(Arc::clone(leases)));
        let others = [tokens.map(Source::Tokens), tls.map(Source::Tls), leases];
        let all = rules.into_iter().chain(others.into_iter().flatten());
        let sources = all.map(|source| {
            let content = source.content();
            (source, content)
        });
        Self {
            sources: sources.collect(),
        }
    }

    /// Looks at the files until the server ends.
    pub(crate) async fn watch(mut self, reload: Reload, every: Duration) {
        loop {
            let is_asked = tokio::select! {
                () = reload.0.notified() => true,
                () = tokio::time::sleep(every) => false,
            };
            // A slow disk must not hold up requests.
            let looked = tokio::task::spawn_blocking(move || {
                self.look(is_asked);
                self
            });
            match looked.await {
                Ok(watched) => self = watched,
                // The runtime ends.
                Err(_) => return,
            }
        }
    }

    fn look(&mut self, is_asked: bool) {
        for (source, last) in &mut self.sources {
            let content = source.content();
            if content == *last && !is_asked {
                continue;
            }
            *last = content;
            let (file, loaded) = (source.name(), source.load());
            telemetry::reloaded(file, loaded.is_ok());
            match loaded {
                Ok(()) => tracing::info!(file, "read again, in force"),
                Err(error) => {
                    tracing::error!(file, %error, "read again and not put in force; the old content holds");
                }
            }
        }
    }
}
