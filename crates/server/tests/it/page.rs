//! The page, and the numbers that it shows.

use serde_json::{Value, json};
use zae_limiter::RateLimiter;
use zae_limiter_server::{App, Rules, install_metrics};
use zae_limiter_tower::key::hashed;

use crate::hostile::exchange;
use crate::reload::{get, until};
use crate::world::{RULES, World, ask, is_over, of_key, options, repository};

/// The body of a response.
fn body(response: &str) -> &str {
    response.split_once("\r\n\r\n").unwrap().1
}

/// The numbers, of a server with metrics.
async fn activity(world: &World) -> Value {
    let response = get(&world.http, "/v1/activity").await;
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    serde_json::from_str(body(&response)).unwrap()
}

/// The recorder is that of the process, so one test has it.
#[tokio::test]
async fn the_page_shows_who_asked_and_what_was_refused() {
    let directory = tempfile::tempdir().unwrap();
    let tokens = directory.path().join("tokens");
    let metrics = install_metrics().unwrap();
    let app = App::new(
        RateLimiter::new(repository().await),
        Rules::from_yaml(RULES.as_bytes()).unwrap(),
    );
    let app = app.with_metrics(metrics);
    let world = World::of_app(app.clone(), options()).await.unwrap();
    let mut client = world.client().await;
    for turn in 0..8 {
        assert_eq!(is_over(&ask(&mut client, of_key("key-1")).await), turn >= 5);
    }
    assert!(!is_over(&ask(&mut client, of_key("key-2")).await));
    // Names that make no name, and those without a rule, are not listed.
    assert!(is_over(&ask(&mut client, of_key("a#b")).await));

    // A step ends every five seconds.
    let mut shown = Value::Null;
    until("a step with calls", async || {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        shown = activity(&world).await;
        let steps = shown["steps"].as_array().unwrap();
        steps.iter().any(|step| step["outcomes"] != json!({}))
    })
    .await;
    let rank = |entity: &str, requests: u64, refusals: u64| json!({"entity_id": entity, "resource": "gpt-4", "requests": requests, "refusals": refusals});
    let busiest = &shown["busiest"];
    assert_eq!(
        busiest["most_requests"],
        json!([rank("key-1", 8, 3), rank("key-2", 1, 0)])
    );
    assert_eq!(busiest["most_refusals"], json!([rank("key-1", 8, 3)]));
    assert_eq!(
        (&shown["namespace"], &shown["step_ms"]),
        (&json!("default"), &json!(5000))
    );

    // Other tests of this process call as well.
    let page = get(&world.http, "/").await;
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("content-security-policy: default-src 'none'"));
    for file in ["page.js", "page.css"] {
        assert!(body(&page).contains(&format!("\"{file}\"")), "{page}");
        assert!(
            get(&world.http, &format!("/{file}"))
                .await
                .starts_with("HTTP/1.1 200")
        );
    }

    // With a token, the files of the page are for all, and its numbers are not.
    std::fs::write(&tokens, hashed("first").strip_prefix("sha256:").unwrap()).unwrap();
    let mut options = options();
    options.tokens = Some(tokens);
    let guarded = World::of_app(app, options).await.unwrap();
    for path in ["/", "/page.js", "/page.css"] {
        assert!(
            get(&guarded.http, path).await.starts_with("HTTP/1.1 200"),
            "{path}"
        );
    }
    assert!(
        get(&guarded.http, "/v1/activity")
            .await
            .starts_with("HTTP/1.1 401")
    );
}

#[tokio::test]
async fn without_metrics_there_is_no_page() {
    let world = World::new(RULES).await;
    for path in [
        "/",
        "/page.js",
        "/page.css",
        "/v1/activity",
        "/metrics",
        "/favicon.ico",
    ] {
        let response = get(&world.http, path).await;
        assert!(response.starts_with("HTTP/1.1 404"), "{path}: {response}");
    }
}

/// A site whose name has become that of this machine has the same origin as the server, for its reader's browser.
#[tokio::test]
async fn a_site_cannot_read_by_a_name_of_its_own() {
    let world = World::new(RULES).await;
    let of_host = async |host: &str| {
        let request = format!("GET /v1/rules HTTP/1.1\r\n{host}connection: close\r\n\r\n");
        exchange(&world.http, request.as_bytes()).await
    };
    for named in [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "a b",
        "",
    ] {
        let response = of_host(&format!("host: {named}\r\n")).await;
        let status = &response[..12];
        assert!(
            ["HTTP/1.1 403", "HTTP/1.1 400"].contains(&status),
            "{named}: {response}"
        );
    }
    for own in [
        "localhost",
        "LOCALHOST:8080",
        "127.0.0.1",
        "127.0.0.1:8080",
        "[::1]:8080",
        "10.1.2.3",
    ] {
        let response = of_host(&format!("host: {own}\r\n")).await;
        assert!(response.starts_with("HTTP/1.1 200"), "{own}: {response}");
    }
    let absolute =
        b"GET http://evil.example/v1/rules HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    assert!(exchange(&world.http, absolute).await.starts_with("HTTP/1.1 403"));
}

#[tokio::test]
async fn what_is_not_served_is_answered_with_a_problem() {
    let world = World::new(RULES).await;
    for (request, status, error) in [
        ("GET /v2/acquire", "404", "not_found"),
        ("GET /v1/acquire", "405", "method_not_allowed"),
        ("DELETE /healthz", "405", "method_not_allowed"),
    ] {
        let text = format!("{request} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let response = exchange(&world.http, text.as_bytes()).await;
        assert!(response.starts_with(&format!("HTTP/1.1 {status}")), "{response}");
        let problem: Value = serde_json::from_str(body(&response)).unwrap();
        assert_eq!(problem["error"], error, "{response}");
    }
}
