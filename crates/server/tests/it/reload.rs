//! Files that change while the server runs.

use std::time::Duration;

use crate::world::{RULES, World, ask, is_over, of_key};

/// Waits until a check holds.
pub(crate) async fn until(what: &str, mut check: impl AsyncFnMut() -> bool) {
    for _ in 0..250 {
        if check().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not in time: {what}");
}

#[tokio::test]
async fn good_rules_are_put_in_force_and_bad_ones_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let (world, path) = World::of_file(RULES, directory.path()).await;
    let mut client = world.client().await;
    let costs = async |client: &mut crate::world::Client, key: &str| {
        let before = world.left(key, "gpt-4").await;
        assert!(!is_over(&ask(client, of_key(key)).await));
        before - world.left(key, "gpt-4").await
    };
    assert_eq!(costs(&mut client, "key-1").await, 1);

    std::fs::write(&path, RULES.replace("rpm: 1", "rpm: 2")).unwrap();
    let shown = async || {
        get(&world.http, "/v1/rules")
            .await
            .contains(r#""consume":{"rpm":2}"#)
    };
    until("the new rules", shown).await;
    assert_eq!(costs(&mut client, "key-2").await, 2);

    // The bad file is read before the good one after it.
    std::fs::write(&path, RULES.replace("consume", "consum")).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(costs(&mut client, "key-3").await, 2);
    std::fs::remove_file(&path).unwrap();
    world.reload.now();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(costs(&mut client, "key-4").await, 2);

    std::fs::write(&path, RULES.replace("rpm: 1", "rpm: 3")).unwrap();
    let shown = async || {
        get(&world.http, "/v1/rules")
            .await
            .contains(r#""consume":{"rpm":3}"#)
    };
    until("the rules after those", shown).await;
}

/// The answer to a GET, with its head.
pub(crate) async fn get(address: &str, path: &str) -> String {
    crate::hostile::exchange(
        address,
        format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes(),
    )
    .await
}

/// Opening a named pipe waits for its writer.
#[cfg(unix)]
#[tokio::test]
async fn a_pipe_in_the_place_of_a_file_does_not_stop_reloads() {
    let directory = tempfile::tempdir().unwrap();
    let (world, path) = World::of_file(RULES, directory.path()).await;
    std::fs::remove_file(&path).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    tokio::time::sleep(Duration::from_millis(100)).await;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, RULES.replace("gateway", "renamed")).unwrap();
    until("the new rules hold", async || {
        get(&world.http, "/v1/rules").await.contains("renamed")
    })
    .await;
}
