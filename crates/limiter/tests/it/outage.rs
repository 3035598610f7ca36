//! When the table cannot be used: refuse, admit, or continue with a part, within a deadline.

use std::time::Duration;

use zae_limiter::{Error, OnUnavailable, Percent, Repository};

use crate::world::{Fault, Faulty, World};

#[tokio::test(start_paused = true)]
async fn a_hanging_table_is_given_up_at_the_deadline_and_refused() {
    let w = World::configured().await;
    let faulty = Faulty::over(&w);
    let limiter = faulty
        .limiter(&w, |builder| builder.acquire_timeout(Duration::from_millis(800)))
        .await;
    faulty.always(Fault::Hangs);
    let begun = tokio::time::Instant::now();
    let err = limiter.acquire("k", "r").consume("rpm", 1).await.unwrap_err();
    assert_eq!(begun.elapsed(), Duration::from_millis(800));
    assert!(matches!(err, Error::Unavailable(_)), "{err:?}");
}

#[tokio::test(start_paused = true)]
async fn throttling_is_waited_out_and_then_refused() {
    let w = World::configured().await;
    let faulty = Faulty::over(&w);
    let limiter = faulty.limiter(&w, |builder| builder).await;
    limiter
        .acquire("k", "r")
        .consume("rpm", 1)
        .await
        .unwrap()
        .commit()
        .await
        .unwrap();
    faulty.next(&[Fault::Throttled, Fault::Throttled]);
    limiter
        .acquire("k", "r")
        .consume("rpm", 1)
        .await
        .unwrap()
        .commit()
        .await
        .unwrap();
    faulty.always(Fault::Throttled);
    let err = limiter.acquire("k", "r").consume("rpm", 1).await.unwrap_err();
    assert!(
        matches!(&err, Error::Unavailable(down) if !down.in_doubt() && down.is_retryable()),
        "{err:?}"
    );
    assert_eq!(w.consumed("k", "r", "rpm").await, 2000);
}

#[tokio::test]
async fn a_debit_whose_answer_is_lost_counts_as_consumed_and_is_not_repeated() {
    let w = World::configured().await;
    let faulty = Faulty::over(&w);
    let limiter = faulty.limiter(&w, |builder| builder).await;
    limiter
        .acquire("k", "r")
        .consume("rpm", 1)
        .await
        .unwrap()
        .commit()
        .await
        .unwrap();
    for (fault, consumed) in [(Fault::LostAfter, 2000), (Fault::LostBefore, 2000)] {
        faulty.next(&[fault]);
        let err = limiter.acquire("k", "r").consume("rpm", 1).await.unwrap_err();
        assert!(
            matches!(&err, Error::Unavailable(down) if down.in_doubt()),
            "{err:?}"
        );
        assert_eq!(w.consumed("k", "r", "rpm").await, consumed);
    }
}

#[tokio::test]
async fn the_policy_is_the_calls_then_the_builders_then_the_stored_one() {
    let w = World::new().await;
    let limits = || [zae_limiter::Limit::per_minute("rpm", 10)];
    w.repo
        .admin()
        .set_system_defaults(limits(), Some(OnUnavailable::Allow))
        .await
        .unwrap();
    let faulty = Faulty::over(&w);
    let stored = faulty.limiter(&w, |builder| builder).await;
    let built = faulty
        .limiter(&w, |builder| builder.on_unavailable(OnUnavailable::Block))
        .await;
    for limiter in [&stored, &built] {
        limiter
            .acquire("k", "r")
            .consume("rpm", 1)
            .await
            .unwrap()
            .commit()
            .await
            .unwrap();
    }
    faulty.always(Fault::LostBefore);
    let mut lease = stored.acquire("k", "r").consume("rpm", 1).await.unwrap();
    assert!(lease.is_degraded());
    lease.adjust("rpm", 5).unwrap();
    lease.commit().await.unwrap();
    // An entity never seen before goes by the policy last seen.
    assert!(
        stored
            .acquire("new", "r")
            .consume("rpm", 1)
            .await
            .unwrap()
            .is_degraded()
    );
    assert!(matches!(
        built.acquire("k", "r").consume("rpm", 1).await,
        Err(Error::Unavailable(_))
    ));
    let call = built
        .acquire("k", "r")
        .consume("rpm", 1)
        .on_unavailable(OnUnavailable::Allow);
    assert!(call.await.unwrap().is_degraded());
}

#[tokio::test]
async fn degraded_admissions_are_bounded_by_a_part_of_the_limit() {
    let w = World::configured().await;
    let faulty = Faulty::over(&w);
    let half = OnUnavailable::Degrade(Percent::new(50).unwrap());
    let limiter = faulty.limiter(&w, |builder| builder.on_unavailable(half)).await;
    limiter
        .acquire("k", "r")
        .consume("rpm", 1)
        .await
        .unwrap()
        .commit()
        .await
        .unwrap();
    faulty.always(Fault::LostBefore);
    for _ in 0..5 {
        let lease = limiter.acquire("k", "r").consume("rpm", 1).await.unwrap();
        assert!(lease.is_degraded());
        lease.commit().await.unwrap();
    }
    let refused = limiter.acquire("k", "r").consume("rpm", 1).await.unwrap_err();
    assert!(matches!(refused, Error::RateLimitExceeded(_)), "{refused:?}");
    // Without having seen any limits there is nothing to bound admissions by.
    assert!(matches!(
        limiter.acquire("new", "r").consume("rpm", 1).await,
        Err(Error::Unavailable(_))
    ));
}

#[tokio::test]
async fn denied_access_is_refused_under_every_policy() {
    let w = World::configured().await;
    let faulty = Faulty::over(&w);
    let limiter = faulty
        .limiter(&w, |builder| builder.on_unavailable(OnUnavailable::Allow))
        .await;
    limiter
        .acquire("k", "r")
        .consume("rpm", 1)
        .await
        .unwrap()
        .commit()
        .await
        .unwrap();
    faulty.always(Fault::Denied);
    let err = limiter.acquire("k", "r").consume("rpm", 1).await.unwrap_err();
    assert!(matches!(err, Error::PermissionDenied { .. }), "{err:?}");
}

#[tokio::test]
async fn a_missing_table_says_which_and_how_to_make_it() {
    let engine = zae_limiter::table::EmbeddedEngine::memory().unwrap();
    let builder = || {
        Repository::builder()
            .stack("my-app")
            .dynamo_client(engine.client())
    };
    for result in [builder().open().await, builder().connect().await] {
        let err = result.unwrap_err();
        assert!(
            matches!(&err, Error::InfrastructureNotFound { stack, .. } if stack == "my-app"),
            "{err:?}"
        );
        assert!(
            err.to_string().contains("zae-limiter deploy --name my-app"),
            "{err}"
        );
    }
}

#[tokio::test]
async fn a_table_for_newer_clients_is_refused() {
    use zae_limiter::table::TableExt as _;
    use zae_limiter_core::{schema::version_key, table::Update, table::Value};
    let w = World::new().await;
    let mut update = Update::new(version_key());
    update
        .set
        .push(("client_min_version".into(), Value::text("0.18.0")));
    assert!(w.repo.table().update(update).await.unwrap().is_applied());
    let err = Repository::builder()
        .custom_table(w.repo.table())
        .open()
        .await
        .unwrap_err();
    assert!(
        matches!(&err, Error::VersionMismatch(why) if why.contains("0.18.0")),
        "{err:?}"
    );
}

#[tokio::test]
async fn connecting_writes_nothing() {
    let w = World::new().await;
    let connect = |name| {
        Repository::builder()
            .custom_table(w.repo.table())
            .namespace(name)
            .connect()
    };
    connect("default").await.unwrap();
    let err = connect("tenant").await.unwrap_err();
    assert!(matches!(err, Error::NamespaceNotFound(_)), "{err:?}");
    w.repo.register_namespace("tenant").await.unwrap();
    connect("tenant").await.unwrap();
}

#[tokio::test]
async fn a_second_run_goes_on_where_the_first_ended() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let repo = Repository::embedded(dir.path()).await.unwrap();
        let limiter = zae_limiter::RateLimiter::new(repo);
        let call = limiter
            .acquire("k", "r")
            .limits([zae_limiter::Limit::per_day("rpm", 5)])
            .consume("rpm", 2);
        call.await.unwrap().commit().await.unwrap();
        let bucket = limiter.check("k", "r").await;
        assert!(
            matches!(bucket, Err(Error::NotConfigured { .. })),
            "no limits are stored"
        );
    }
    let limiter = zae_limiter::RateLimiter::new(Repository::embedded(dir.path()).await.unwrap());
    let call = limiter
        .acquire("k", "r")
        .limits([zae_limiter::Limit::per_day("rpm", 5)])
        .consume("rpm", 2);
    assert!(matches!(call.await, Err(Error::RateLimitExceeded(_))));
}

#[tokio::test]
async fn an_endpoint_that_is_no_url_of_a_server_is_refused_when_the_repository_is_opened() {
    for bad in ["http://bad host", "http://", "ftp://x", "http://h:99999"] {
        let err = Repository::builder().endpoint_url(bad).open().await.unwrap_err();
        assert!(
            matches!(&err, Error::InvalidInput(found) if found.field() == "endpoint_url" && found.value() == bad),
            "{err:?}"
        );
    }
}

#[tokio::test]
async fn a_directory_that_is_in_use_is_a_permanent_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let held = Repository::embedded(dir.path()).await.unwrap();
    let builder = Repository::builder()
        .embedded(dir.path())
        .on_unavailable(OnUnavailable::Allow);
    let err = builder.open().await.unwrap_err();
    assert!(matches!(&err, Error::Embedded(_)), "{err:?}");
    let text = err.to_string();
    assert!(
        text.contains(&dir.path().display().to_string()) && text.contains("try again when"),
        "{text}"
    );
    drop(held);
}
