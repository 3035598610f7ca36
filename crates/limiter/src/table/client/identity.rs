//! The credentials that requests are signed with, loaded when they are needed and again before they expire.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use tokio::runtime::{Handle, Id};
use tokio::task::JoinError;

use super::endpoint::Place;
use super::sign::Signer;

/// How many seconds before they expire credentials are loaded again; up to as many more are drawn at random, so that the
/// processes of a fleet do not ask at once.
const EARLY: i64 = 10;

/// How long credentials that do not expire are used, in seconds: as long as the SDK does.
const LONGEST: i64 = 15 * 60;

/// How long to wait before credentials are loaded again after a failure, or because the service called them expired, in
/// seconds.
const PAUSE: i64 = 10;

/// Why a request cannot be signed.
#[derive(Debug, Clone)]
pub(super) enum Unsigned {
    /// There are no credentials.
    Credentials(Arc<CredentialsError>),
    /// There is no endpoint for them.
    Endpoint(&'static str),
}

/// The credentials of a client.
pub(super) struct Identity {
    source: Arc<Source>,
    state: Arc<Mutex<State>>,
}

/// Where credentials come from, and lead to.
struct Source {
    provider: Option<SharedCredentialsProvider>,
    place: Place,
}

#[derive(Default)]
struct State {
    current: Option<Current>,
    loading: Option<Loading>,
}

#[derive(Clone)]
struct Current {
    signer: Arc<Signer>,
    /// When they were loaded, in seconds since 1970.
    loaded: i64,
    /// When to load them again.
    refresh: i64,
    /// When they end.
    expiry: Option<i64>,
}

/// A load that is under way. All callers that need its result get it.
#[derive(Clone)]
struct Loading {
    /// The runtime that works on it.
    runtime: Id,
    result: Shared<BoxFuture<'static, Result<Arc<Signer>, Unsigned>>>,
}

impl Current {
    fn is_valid(&self, now: i64) -> bool {
        self.expiry.is_none_or(|expiry| now < expiry)
    }
}

impl Identity {
    pub(super) fn new(provider: Option<SharedCredentialsProvider>, place: Place) -> Self {
        Self {
            source: Arc::new(Source { provider, place }),
            state: Arc::default(),
        }
    }

    /// The signer, if no load must be waited for.
    pub(super) fn ready(&self, now: i64) -> Option<Arc<Signer>> {
        let mut state = lock(&self.state);
        let current = state
            .current
            .clone()
            .filter(|current| now < current.refresh || current.is_valid(now))?;
        if now >= current.refresh {
            // Those from before serve until the new ones are there.
            self.begin(&mut state, now);
        }
        Some(current.signer)
    }

    /// The signer for a request that is sent at this time.
    pub(super) async fn signer(&self, now: i64) -> Result<Arc<Signer>, Unsigned> {
        if let Some(signer) = self.ready(now) {
            return Ok(signer);
        }
        let loading = self.begin(&mut lock(&self.state), now);
        loading.result.await
    }

    /// Forgets credentials that the service has called expired. Whether others may be had: those that were loaded a moment
    /// ago are kept, or each request would load them again.
    pub(super) fn forget(&self, signer: &Arc<Signer>, now: i64) -> bool {
        let mut state = lock(&self.state);
        match &state.current {
            Some(current) if Arc::ptr_eq(&current.signer, signer) => {
                let is_new = now < current.loaded.saturating_add(PAUSE);
                if !is_new {
                    state.current = None;
                }
                !is_new
            }
            _ => true,
        }
    }

    /// The load that is under way, or a new one. It runs to its end although its callers give up.
    fn begin(&self, state: &mut State, now: i64) -> Loading {
        let runtime = Handle::current().id();
        if let Some(loading) = &state.loading
            && loading.runtime == runtime
            // One that ended is still here if the provider panicked.
            && loading.result.peek().is_none()
        {
            return loading.clone();
        }
        let (source, shared) = (Arc::clone(&self.source), Arc::clone(&self.state));
        let task = tokio::spawn(async move {
            let loaded = source.load(now).await;
            let mut state = lock(&shared);
            state.loading = None;
            match loaded {
                Ok(loaded) => {
                    let signer = Arc::clone(&loaded.signer);
                    state.current = Some(loaded);
                    Ok(signer)
                }
                Err(err) => {
                    if let Some(current) = &mut state.current
                        && current.is_valid(now)
                    {
                        current.refresh = now.saturating_add(PAUSE);
                        tracing::warn!(
                            error = ?err,
                            "credentials could not be loaded again; those from before are still valid"
                        );
                    }
                    Err(err)
                }
            }
        });
        let stopped = |err: JoinError| Err(Unsigned::Credentials(Arc::new(CredentialsError::unhandled(err))));
        let loading = Loading {
            runtime,
            result: task
                .map(move |ended| ended.unwrap_or_else(stopped))
                .boxed()
                .shared(),
        };
        state.loading = Some(loading.clone());
        loading
    }
}

impl Source {
    async fn load(&self, now: i64) -> Result<Current, Unsigned> {
        let failed = |err| Unsigned::Credentials(Arc::new(err));
        let Some(provider) = &self.provider else {
            let err = CredentialsError::not_loaded("the configuration has no provider of credentials");
            return Err(failed(err));
        };
        let credentials = provider.provide_credentials().await.map_err(failed)?;
        let expiry = expiry(&credentials);
        // Not at once: credentials that end within seconds would be loaded for each request.
        let refresh = expiry.map_or(now.saturating_add(LONGEST), |expiry| {
            let early = expiry.saturating_sub(EARLY + fastrand::i64(0..=EARLY));
            early.max(now.saturating_add(PAUSE))
        });
        let account = credentials.account_id().map(|id| id.as_str().to_owned());
        let endpoint = self
            .place
            .endpoint(account.as_deref())
            .map_err(Unsigned::Endpoint)?;
        Ok(Current {
            signer: Arc::new(Signer::new(credentials, endpoint)),
            loaded: now,
            refresh,
            expiry,
        })
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// When credentials end, in seconds since 1970.
fn expiry(credentials: &Credentials) -> Option<i64> {
    let expiry = credentials.expiry()?;
    let since = expiry
        .duration_since(std::time::SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Some(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("place", &self.source.place)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, SystemTime};

    use aws_credential_types::provider::future::ProvideCredentials as Providing;
    use aws_credential_types::provider::{self, ProvideCredentials};

    use super::*;

    /// Credentials that end 100 s after they were loaded, counted from 1970; the third load fails.
    #[derive(Debug, Default)]
    struct Provider {
        loads: AtomicUsize,
    }

    impl Provider {
        async fn load(&self) -> provider::Result {
            let load = self.loads.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(20)).await;
            if load == 2 {
                return Err(CredentialsError::provider_error("no answer"));
            }
            let expiry = SystemTime::UNIX_EPOCH + Duration::from_secs(100 * (load as u64 + 1));
            Ok(Credentials::new(
                format!("id{load}"),
                "secret",
                None,
                Some(expiry),
                "test",
            ))
        }
    }

    impl ProvideCredentials for Provider {
        fn provide_credentials<'a>(&'a self) -> Providing<'a>
        where
            Self: 'a,
        {
            Providing::new(self.load())
        }
    }

    fn identity() -> Identity {
        let place = Place {
            region: Some("eu-west-1".to_owned()),
            ..Place::default()
        };
        Identity::new(Some(SharedCredentialsProvider::new(Provider::default())), place)
    }

    async fn id(identity: &Identity, now: i64) -> String {
        let signed = identity
            .signer(now)
            .await
            .unwrap()
            .sign("x", b"", now)
            .authorization;
        signed.split(['=', '/']).nth(1).unwrap().to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn credentials_are_loaded_once_for_all_callers_and_again_before_they_end() {
        let identity = identity();
        let all = futures_util::future::join_all((0..10).map(|_| id(&identity, 0))).await;
        assert_eq!(all, vec!["id0"; 10]);
        assert_eq!(id(&identity, 79).await, "id0");
        // Those that are still valid serve until the others are loaded.
        let all = futures_util::future::join_all((0..3).map(|_| id(&identity, 95))).await;
        assert_eq!(all, ["id0", "id0", "id0"]);
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert_eq!(id(&identity, 95).await, "id1");
        assert_eq!(id(&identity, 150).await, "id1");
    }

    #[tokio::test(start_paused = true)]
    async fn credentials_that_are_still_valid_survive_a_failure() {
        let identity = identity();
        assert_eq!(id(&identity, 0).await, "id0");
        assert_eq!(id(&identity, 100).await, "id1");
        // The third load fails; the next one comes ten seconds later.
        assert_eq!(id(&identity, 195).await, "id1");
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert_eq!(id(&identity, 199).await, "id1");
        assert_eq!(id(&identity, 206).await, "id3");
    }

    #[tokio::test(start_paused = true)]
    async fn without_valid_credentials_all_callers_get_the_failure() {
        let identity = identity();
        assert_eq!(id(&identity, 0).await, "id0");
        assert_eq!(id(&identity, 100).await, "id1");
        let all = futures_util::future::join_all((0..5).map(|_| identity.signer(200))).await;
        assert!(all.iter().all(|end| matches!(end, Err(Unsigned::Credentials(_)))));
        assert_eq!(id(&identity, 200).await, "id3");
    }

    #[tokio::test(start_paused = true)]
    async fn a_load_ends_although_its_callers_gave_up() {
        let identity = identity();
        let waiting = tokio::time::timeout(Duration::from_millis(5), identity.signer(0)).await;
        assert!(waiting.is_err());
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert!(identity.ready(0).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn credentials_that_end_soon_are_not_loaded_for_each_request() {
        let identity = identity();
        // They end a second after they were loaded.
        assert_eq!(id(&identity, 99).await, "id0");
        assert_eq!(id(&identity, 99).await, "id0");
        assert_eq!(id(&identity, 108).await, "id0");
        assert_eq!(id(&identity, 109).await, "id1");
    }

    /// Panics at the first load.
    #[derive(Debug, Default)]
    struct Broken(AtomicUsize);

    impl ProvideCredentials for Broken {
        fn provide_credentials<'a>(&'a self) -> Providing<'a>
        where
            Self: 'a,
        {
            assert!(self.0.fetch_add(1, Ordering::SeqCst) > 0, "the first load");
            Providing::ready(Ok(Credentials::new("id", "secret", None, None, "test")))
        }
    }

    #[tokio::test]
    async fn a_provider_that_panics_is_asked_again() {
        let place = Place {
            region: Some("eu-west-1".to_owned()),
            ..Place::default()
        };
        let identity = Identity::new(Some(SharedCredentialsProvider::new(Broken::default())), place);
        assert!(identity.signer(0).await.is_err());
        assert_eq!(id(&identity, 0).await, "id");
    }

    #[tokio::test(start_paused = true)]
    async fn expired_credentials_are_forgotten_once() {
        let identity = identity();
        let first = identity.signer(0).await.unwrap();
        // They are new: loading them again would not help.
        assert!(!identity.forget(&first, 9));
        assert!(Arc::ptr_eq(&first, &identity.signer(9).await.unwrap()));
        assert!(identity.forget(&first, 10));
        let second = identity.signer(10).await.unwrap();
        assert!(!Arc::ptr_eq(&first, &second));
        // Another caller that met the same refusal must not drop the new ones.
        assert!(identity.forget(&first, 10));
        assert!(Arc::ptr_eq(&second, &identity.signer(10).await.unwrap()));
    }

    #[test]
    fn a_load_does_not_depend_on_a_runtime_that_has_ended() {
        let identity = identity();
        let runtime = || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder.enable_all().build().unwrap()
        };
        let first = runtime();
        let given_up = first.block_on(async {
            tokio::time::timeout(Duration::from_millis(1), identity.signer(0))
                .await
                .is_err()
        });
        assert!(given_up);
        // It stands still, and does not finish the load.
        let second = runtime();
        assert_eq!(second.block_on(id(&identity, 0)), "id1");
    }
}
