//! Spans: their names, fields and levels are those that are listed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use zae_limiter::telemetry::SPANS;

use crate::world::World;

/// A span as it was closed.
#[derive(Debug, Clone, Default)]
struct Seen {
    name: &'static str,
    level: String,
    parent: Option<&'static str>,
    declared: Vec<&'static str>,
    values: BTreeMap<&'static str, String>,
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.values
            .insert(field.name(), format!("{value:?}").trim_matches('"').to_owned());
    }
}

/// Keeps the spans of the library.
#[derive(Debug, Clone, Default)]
struct Spans(Arc<Mutex<Vec<Seen>>>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, attrs: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        let span = ctx.span(id).unwrap();
        let mut seen = Seen {
            name: span.name(),
            level: span.metadata().level().to_string().to_lowercase(),
            parent: span.parent().map(|parent| parent.name()),
            declared: span.fields().iter().map(|field| field.name()).collect(),
            ..Seen::default()
        };
        attrs.record(&mut seen);
        span.extensions_mut().insert(seen);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: Context<'_, S>) {
        let span = ctx.span(id).unwrap();
        if let Some(seen) = span.extensions_mut().get_mut::<Seen>() {
            values.record(seen);
        }
    }

    fn on_close(&self, id: Id, ctx: Context<'_, S>) {
        let span = ctx.span(&id).unwrap();
        if span.metadata().target() == "zae_limiter" {
            let seen = span.extensions().get::<Seen>().cloned();
            self.0.lock().unwrap().extend(seen);
        }
    }
}

impl Spans {
    fn install(level: Level) -> (Self, DefaultGuard) {
        let spans = Self::default();
        let filter = tracing_subscriber::filter::LevelFilter::from_level(level);
        let subscriber = tracing_subscriber::registry().with(spans.clone().with_filter(filter));
        (spans, tracing::subscriber::set_default(subscriber))
    }

    fn of(&self, name: &str) -> Vec<Seen> {
        let all = self.0.lock().unwrap();
        all.iter().filter(|seen| seen.name == name).cloned().collect()
    }
}

#[tokio::test]
async fn spans_are_those_that_are_listed() {
    let (spans, _installed) = Spans::install(Level::TRACE);
    let world = World::configured().await;
    let call = |tokens| world.limiter.acquire("key-1", "gpt-4").consume("tpm", tokens);
    call(1).await.unwrap().rollback().await.unwrap();
    for listed in SPANS {
        let seen = spans.of(listed.name);
        assert!(!seen.is_empty(), "{}", listed.name);
        for seen in seen {
            assert_eq!(
                (seen.level.as_str(), &*seen.declared),
                (listed.level, listed.fields),
                "{}",
                listed.name
            );
        }
    }
    let all = spans.0.lock().unwrap().clone();
    for seen in all {
        assert!(
            SPANS.iter().any(|listed| listed.name == seen.name),
            "{} is not listed",
            seen.name
        );
    }
}

fn values(seen: &Seen) -> Vec<(&str, &str)> {
    seen.values
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect()
}

#[tokio::test]
async fn a_span_says_what_came_of_a_call() {
    let world = World::configured().await;
    let call = |tokens| world.limiter.acquire("key-1", "gpt-4").consume("tpm", tokens);
    call(1).await.unwrap().commit().await.unwrap();
    let (spans, _installed) = Spans::install(Level::TRACE);
    call(900).await.unwrap().rollback().await.unwrap();
    call(2_000).await.unwrap_err();
    let calls = spans.of("zae_limiter.acquire");
    let of_key = [("entity", "key-1")];
    let admitted = [
        ("outcome", "admitted"),
        ("requests", "1"),
        ("resource", "gpt-4"),
        ("wait_ms", "0"),
        ("writes", "1"),
    ];
    assert_eq!(values(&calls[0]), [&of_key[..], &admitted].concat());
    let refused = [
        ("limit", "tpm"),
        ("outcome", "never"),
        ("requests", "0"),
        ("resource", "gpt-4"),
        ("wait_ms", "0"),
        ("writes", "0"),
    ];
    assert_eq!(values(&calls[1]), [&of_key[..], &refused].concat());
    let corrections = spans.of("zae_limiter.correction");
    let applied = [("outcome", "applied"), ("resource", "gpt-4"), ("shard", "0")];
    assert_eq!(values(&corrections[0]), [&of_key[..], &applied].concat());
    assert_eq!(corrections[0].parent, None);
    let requests = spans.of("zae_limiter.table");
    assert_eq!(values(&requests[0]), [("operation", "update"), ("result", "ok")]);
    let parents: Vec<_> = requests.iter().map(|seen| seen.parent).collect();
    assert_eq!(
        parents,
        [Some("zae_limiter.acquire"), Some("zae_limiter.correction")]
    );
}

#[tokio::test]
async fn levels_leave_spans_out() {
    let world = World::configured().await;
    let take = async || {
        let lease = world.limiter.acquire("k", "r").consume("tpm", 1).await.unwrap();
        lease.rollback().await.unwrap();
    };
    {
        let (spans, _installed) = Spans::install(Level::INFO);
        take().await;
        assert!(spans.0.lock().unwrap().is_empty());
    }
    let (spans, _installed) = Spans::install(Level::DEBUG);
    take().await;
    assert_eq!(spans.of("zae_limiter.acquire").len(), 1);
    assert_eq!(spans.of("zae_limiter.correction").len(), 1);
    assert!(spans.of("zae_limiter.table").is_empty());
}
