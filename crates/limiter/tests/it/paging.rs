//! Long answers, page by page.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use zae_limiter::{Cursor, Error, Pages, UsageQuery, Window};
use zae_limiter_core::table::{Op, Value};

use crate::admin::{Admin, put_all, rpm, snapshot};
use crate::world::Fault;

const COUNT: usize = 7;

/// Entities with limits of their own, usage and audit events: seven of each.
async fn seven() -> Admin {
    let a = Admin::new().await;
    let ns = a.repo.namespace_id().as_str();
    for n in (0_u64..).take(COUNT) {
        a.repo
            .admin()
            .set_entity_limits(&format!("e{n}"), "gpt-4", rpm(5))
            .await
            .unwrap();
        a.repo
            .admin()
            .set_resource_defaults("gpt-4", rpm(1 + n))
            .await
            .unwrap();
        a.clock.advance(Duration::from_secs(1));
        let start = format!("2027-01-15T0{n}:00:00Z");
        let window = if n == 3 { "daily" } else { "hourly" };
        let usage = snapshot(
            (ns, "u", "gpt-4"),
            (window, &start, ""),
            &[("rpm", n.cast_signed())],
        );
        put_all(&*a.repo.table(), [usage]).await;
    }
    a
}

/// Whatever the page size: the same as all at once, in the same order, also when each page is read by a
/// reading of its own that begins where the text of a cursor says.
async fn reads_the_same<T: PartialEq + std::fmt::Debug>(pages: impl Fn() -> Pages<T>) {
    let all = pages().all().await.unwrap();
    assert_eq!(all.len(), COUNT);
    for size in 1..=COUNT as u32 + 1 {
        let sized = || pages().page_size(size);
        assert_eq!(sized().all().await.unwrap(), all, "pages of {size}");
        assert_eq!(sized().cursor(), None, "nothing has been read");
        let (mut found, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let mut one = sized();
            if let Some(text) = cursor {
                one = one.after(&text.parse().unwrap());
            }
            let page = one.next_page().await.unwrap().unwrap();
            assert!(page.len() <= size as usize);
            found.extend(page);
            assert!(found.len() <= all.len(), "a page was read again");
            cursor = one.cursor().map(|cursor| cursor.to_string());
            if cursor.is_none() {
                assert_eq!(
                    one.next_page().await.unwrap(),
                    None,
                    "after the end there is nothing"
                );
                break;
            }
        }
        assert_eq!(found, all, "pages of {size}, resumed");
    }
}

#[tokio::test]
async fn entities_read_the_same_at_any_page_size() {
    let a = seven().await;
    reads_the_same(|| a.repo.admin().entities_with_limits("gpt-4").unwrap()).await;
}

#[tokio::test]
async fn usage_reads_the_same_at_any_page_size() {
    let a = seven().await;
    for query in [
        UsageQuery::entity("u"),
        UsageQuery::entity("u").resource("gpt-4"),
        UsageQuery::of_resource("gpt-4"),
        UsageQuery::of_resource("gpt-4").until(SystemTime::UNIX_EPOCH + Duration::from_secs(u32::MAX.into())),
    ] {
        reads_the_same(|| a.repo.admin().usage_snapshots(query.clone()).unwrap()).await;
    }
}

#[tokio::test]
async fn audit_events_read_the_same_at_any_page_size() {
    let a = seven().await;
    reads_the_same(|| a.repo.admin().audit_events("$RESOURCE:gpt-4", None).unwrap()).await;
}

#[tokio::test]
async fn a_page_size_of_zero_is_one() {
    let a = seven().await;
    let mut pages = a.repo.admin().entities_with_limits("gpt-4").unwrap().page_size(0);
    assert_eq!(pages.next_page().await.unwrap().unwrap(), ["e0"]);
}

#[tokio::test]
async fn a_page_with_nothing_wanted_does_not_end_the_reading() {
    let a = seven().await;
    let query = UsageQuery::entity("u").resource("gpt-4").window(Window::Daily);
    let mut pages = a.repo.admin().usage_snapshots(query).unwrap().page_size(1);
    let mut sizes = Vec::new();
    while let Some(page) = pages.next_page().await.unwrap() {
        sizes.push(page.len());
    }
    assert_eq!(sizes[..COUNT], [0, 0, 0, 1, 0, 0, 0]);
    assert!(sizes[COUNT..].iter().all(|size| *size == 0));
    // What cannot be read is left out in the same way.
    let hash = format!("{}/ENTITY_CONFIG#gpt-4", a.repo.namespace_id());
    for n in 0..3 {
        let index = [
            ("GSI3PK", Value::text(&hash)),
            ("GSI3SK", Value::text(format!("e3 of no use {n}"))),
        ];
        a.write(&format!("stray-{n}"), "#CONFIG#gpt-4", index).await;
    }
    let pages = a.repo.admin().entities_with_limits("gpt-4").unwrap();
    let entities = pages.page_size(2).all().await.unwrap();
    assert_eq!(entities, ["e0", "e1", "e2", "e3", "e4", "e5", "e6"]);
}

#[tokio::test]
async fn a_cursor_still_holds_when_the_results_change() {
    let a = seven().await;
    let pages = || a.repo.admin().entities_with_limits("gpt-4").unwrap().page_size(3);
    let mut first = pages();
    assert_eq!(first.next_page().await.unwrap().unwrap(), ["e0", "e1", "e2"]);
    let cursor = first.cursor().unwrap();
    // Even what it points at may go.
    a.repo.admin().delete_entity("e2").await.unwrap();
    a.repo.admin().delete_entity("e4").await.unwrap();
    a.repo
        .admin()
        .set_entity_limits("e2x", "gpt-4", rpm(5))
        .await
        .unwrap();
    a.repo
        .admin()
        .set_entity_limits("a", "gpt-4", rpm(5))
        .await
        .unwrap();
    let rest = pages().after(&cursor).all().await.unwrap();
    assert_eq!(rest, ["e2x", "e3", "e5", "e6"]);
}

#[tokio::test]
async fn a_cursor_reads_as_every_client_writes_it() {
    let a = seven().await;
    let ns = a.repo.namespace_id();
    let mut pages = a.repo.admin().entities_with_limits("gpt-4").unwrap().page_size(2);
    pages.next_page().await.unwrap();
    let text = pages.cursor().unwrap().to_string();
    let bytes = aws_smithy_types::base64::decode(&text).unwrap();
    let read: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    let expected = serde_json::json!({
        "PK": {"S": format!("{ns}/ENTITY#e1")},
        "SK": {"S": "#CONFIG#gpt-4"},
        "GSI3PK": {"S": format!("{ns}/ENTITY_CONFIG#gpt-4")},
        "GSI3SK": {"S": "e1"},
    });
    assert_eq!(read, expected);
    let written = aws_smithy_types::base64::encode(expected.to_string());
    let cursor: Cursor = written.parse().unwrap();
    let rest = a
        .repo
        .admin()
        .entities_with_limits("gpt-4")
        .unwrap()
        .after(&cursor);
    assert_eq!(rest.all().await.unwrap(), ["e2", "e3", "e4", "e5", "e6"]);
    for bad in ["", "not base64!", "e30=", &text[1..]] {
        assert_eq!(bad.parse::<Cursor>().unwrap_err().field(), "cursor", "{bad}");
    }
}

/// A page that could not be read is read by asking again; nothing is left out and nothing comes twice.
#[tokio::test]
async fn a_reading_goes_on_after_an_error() {
    let a = seven().await;
    let pages_read = Arc::new(AtomicI64::new(0));
    let count = Arc::clone(&pages_read);
    let failing = a.ruled(move |op| match op {
        Op::Query(_) if count.fetch_add(1, Ordering::SeqCst) % 2 == 1 => Fault::Denied,
        _ => Fault::None,
    });
    let failing = failing.await;
    let mut pages = failing
        .admin()
        .entities_with_limits("gpt-4")
        .unwrap()
        .page_size(2);
    let (mut found, mut errors) = (Vec::new(), 0);
    loop {
        match pages.next_page().await {
            Ok(Some(page)) => found.extend(page),
            Ok(None) => break,
            Err(Error::PermissionDenied { .. }) => errors += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((found.len(), errors), (COUNT, 3));
    assert!(found.is_sorted());
}
