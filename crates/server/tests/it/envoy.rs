//! The rate limit service: what descriptors take, and what answers say.

use std::time::Duration;

use tonic::Code as GrpcCode;
use zae_limiter::testing::{Fault, TestTable};
use zae_limiter::{Limit, NewEntity, OnUnavailable};
use zae_limiter_server::envoy::protocol::RateLimitUnit;
use zae_limiter_server::envoy::protocol::rate_limit_descriptor::RateLimitOverride;
use zae_limiter_server::envoy::protocol::service::rate_limit_response::rate_limit::Unit;
use zae_limiter_server::envoy::protocol::service::rate_limit_response::{Code, DescriptorStatus};

use crate::world::{RULES, World, ask, descriptor, field, is_over, of_key, options, repository, request};

#[tokio::test]
async fn a_key_is_admitted_up_to_its_limit_and_told_how_it_stands() {
    let world = World::new(RULES).await;
    let mut client = world.client().await;
    for left in [4, 3, 2, 1, 0] {
        let response = ask(&mut client, of_key("key-1")).await;
        assert_eq!(response.overall_code(), Code::Ok);
        let status = &response.statuses[0];
        assert_eq!(status.limit_remaining, left);
        let limit = status.current_limit.as_ref().unwrap();
        assert_eq!(
            (limit.name.as_str(), limit.requests_per_unit, limit.unit()),
            ("rpm", 5, Unit::Day)
        );
        assert_eq!(field(&response, "ratelimit-policy"), Some("\"rpm\";q=5;w=86400"));
        assert!(
            field(&response, "ratelimit")
                .unwrap()
                .starts_with(&format!("\"rpm\";r={left};t="))
        );
        assert_eq!(field(&response, "retry-after"), None);
    }
    let response = ask(&mut client, of_key("key-1")).await;
    assert_eq!(response.overall_code(), Code::OverLimit);
    let status = &response.statuses[0];
    assert_eq!((status.code(), status.limit_remaining), (Code::OverLimit, 0));
    let wait = status.duration_until_reset.as_ref().unwrap().seconds;
    assert!((17_000..=17_280).contains(&wait), "{wait}");
    let retry_after: i64 = field(&response, "retry-after").unwrap().parse().unwrap();
    assert!((17_000..=17_280).contains(&retry_after), "{retry_after}");
    // Another key and another model have buckets of their own.
    assert!(!is_over(&ask(&mut client, of_key("key-2")).await));
    assert!(!is_over(
        &ask(
            &mut client,
            request([descriptor(&[("model", "o3"), ("api_key", "key-1")])])
        )
        .await
    ));
    assert_eq!(world.left("key-1", "o3").await, 4);
}

#[tokio::test]
async fn unknown_domains_and_descriptors_pass() {
    let world = World::new(RULES).await;
    let mut client = world.client().await;
    let unknown = [
        descriptor(&[("api_key", "key-1")]),
        descriptor(&[("api_key", "key-1"), ("model", "gpt-4"), ("path", "/")]),
        descriptor(&[("api_key", "key-1"), ("model", "gpt-4"), ("model", "gpt-5")]),
        descriptor(&[("remote_address", "192.0.2.1")]),
    ];
    let response = ask(&mut client, request(unknown)).await;
    assert_eq!(response.overall_code(), Code::Ok);
    assert_eq!(response.statuses.len(), 4);
    assert!(
        response
            .statuses
            .iter()
            .all(|status| status.code() == Code::Ok && status.current_limit.is_none())
    );
    let mut elsewhere = of_key("key-1");
    elsewhere.domain = "other".to_owned();
    elsewhere.hits_addend = 1000;
    assert!(!is_over(&ask(&mut client, elsewhere).await));
    assert_eq!(world.left("key-1", "gpt-4").await, 5);
}

#[tokio::test]
async fn hits_multiply_amounts() {
    let rules = r#"
version: 1
domains:
  gateway:
    headers: [x-ratelimit]
    rules:
      - match: {api_key: "*", model: "*"}
        entity: "{api_key}"
        resource: "{model}"
        consume: {tpm: 2}
        consume_once: {rpm: 1}
"#;
    let world = World::new(rules).await;
    let limits = [Limit::per_day("rpm", 5), Limit::per_day("tpm", 100)];
    world
        .repo
        .admin()
        .set_system_defaults(limits, None)
        .await
        .unwrap();
    let mut client = world.client().await;
    let mut ten = of_key("key-1");
    ten.hits_addend = 10;
    let response = ask(&mut client, ten.clone()).await;
    assert_eq!(field(&response, "x-ratelimit-limit"), Some("5"));
    assert_eq!(field(&response, "ratelimit"), None);
    let limiter = zae_limiter::RateLimiter::new(world.repo.clone());
    let available = limiter.available("key-1", "gpt-4").await.unwrap();
    assert_eq!((available["tpm"], available["rpm"]), (80, 4));
    // The hits of the descriptor are stronger.
    ten.descriptors[0].hits_addend = Some(30);
    assert!(!is_over(&ask(&mut client, ten.clone()).await));
    assert_eq!(limiter.available("key-1", "gpt-4").await.unwrap()["tpm"], 20);
    ten.descriptors[0].hits_addend = Some(11);
    assert!(is_over(&ask(&mut client, ten.clone()).await));
    // None takes none of what is per hit.
    ten.descriptors[0].hits_addend = Some(0);
    assert!(!is_over(&ask(&mut client, ten.clone()).await));
    assert_eq!(limiter.available("key-1", "gpt-4").await.unwrap()["tpm"], 20);
    // More than any limit holds is refused, and does not wrap.
    ten.descriptors[0].hits_addend = Some(u64::MAX);
    assert!(is_over(&ask(&mut client, ten).await));
}

#[tokio::test]
async fn one_refused_descriptor_gives_back_what_the_others_took() {
    let rules = r#"
version: 1
domains:
  gateway:
    rules:
      - match: {api_key: "*"}
        entity: "{api_key}"
        resource: api
        consume: {rpm: 1}
"#;
    let world = World::new(rules).await;
    let mut client = world.client().await;
    let both = || {
        request([
            descriptor(&[("api_key", "key-1")]),
            descriptor(&[("api_key", "key-2")]),
        ])
    };
    let mut drain = request([descriptor(&[("api_key", "key-2")])]);
    drain.hits_addend = 4;
    assert!(!is_over(&ask(&mut client, drain).await));
    assert!(!is_over(&ask(&mut client, both()).await));
    let response = ask(&mut client, both()).await;
    assert!(is_over(&response));
    let codes: Vec<Code> = response.statuses.iter().map(DescriptorStatus::code).collect();
    assert_eq!(codes, [Code::Ok, Code::OverLimit]);
    assert!(world.repo.drain().await.is_complete());
    assert_eq!(world.left("key-1", "api").await, 4);
    assert_eq!(world.left("key-2", "api").await, 0);
}

#[tokio::test]
async fn shadow_rules_count_and_never_refuse() {
    let rules = RULES.replace("consume: {rpm: 1}", "consume: {rpm: 1}\n        shadow: true");
    let world = World::new(&rules).await;
    let mut client = world.client().await;
    for _ in 0..8 {
        let response = ask(&mut client, of_key("key-1")).await;
        assert!(!is_over(&response));
        assert_eq!(response.response_headers_to_add, []);
    }
    assert_eq!(world.left("key-1", "gpt-4").await, 0);
}

#[tokio::test]
async fn a_descriptor_can_bring_its_limit_if_the_rule_allows_it() {
    let per_minute = |requests| {
        let mut request = of_key("key-1");
        request.descriptors[0].limit = Some(RateLimitOverride {
            requests_per_unit: requests,
            unit: RateLimitUnit::Minute.into(),
        });
        request
    };
    let world = World::new(RULES).await;
    let mut client = world.client().await;
    let response = ask(&mut client, per_minute(100)).await;
    assert_eq!(
        response.statuses[0]
            .current_limit
            .as_ref()
            .unwrap()
            .requests_per_unit,
        5
    );

    let rules = RULES.replace("consume: {rpm: 1}", "consume: {rpm: 1}\n        override: true");
    let world = World::new(&rules).await;
    let mut client = world.client().await;
    let response = ask(&mut client, per_minute(100)).await;
    let limit = response.statuses[0].current_limit.clone().unwrap();
    assert_eq!((limit.requests_per_unit, limit.unit()), (100, Unit::Minute));
    assert_eq!(response.statuses[0].limit_remaining, 99);
    assert!(is_over(&ask(&mut client, per_minute(0)).await));
    for (unit, told) in [
        (RateLimitUnit::Second, Unit::Second),
        (RateLimitUnit::Hour, Unit::Hour),
        (RateLimitUnit::Day, Unit::Day),
        (RateLimitUnit::Month, Unit::Month),
        (RateLimitUnit::Year, Unit::Year),
    ] {
        let name = format!("{unit:?}");
        let mut descriptor = descriptor(&[("api_key", &name), ("model", "gpt-4")]);
        descriptor.limit = Some(RateLimitOverride {
            requests_per_unit: 7,
            unit: unit.into(),
        });
        let response = ask(&mut client, request([descriptor])).await;
        let limit = response.statuses[0].current_limit.clone().unwrap();
        assert_eq!((limit.requests_per_unit, limit.unit()), (7, told));
    }
}

/// As Envoy asks for the cost of a response: before it whether the limit is in debt, and after it for what was used.
#[tokio::test]
async fn a_rule_can_charge_what_is_not_there() {
    let rules = r#"
version: 1
domains:
  gateway:
    rules:
      - match: {api_key: "*"}
        entity: "{api_key}"
        resource: api
        consume: {rpm: 1}
      - match: {api_key: "*", done: "true"}
        entity: "{api_key}"
        resource: api
        consume: {rpm: 1}
        overdraw: true
"#;
    let world = World::new(rules).await;
    let mut client = world.client().await;
    let mut asked = async |entries: &[(&str, &str)], hits| {
        let mut descriptor = descriptor(entries);
        descriptor.hits_addend = Some(hits);
        ask(&mut client, request([descriptor])).await
    };
    let (before, after) = (
        &[("api_key", "key-1")][..],
        &[("api_key", "key-1"), ("done", "true")][..],
    );
    assert!(!is_over(&asked(before, 0).await));
    for (used, left) in [(3, 2), (40, -38), (2, -40)] {
        let charged = asked(after, used).await;
        assert!(!is_over(&charged), "{charged:?}");
        assert_eq!(
            charged.statuses[0].limit_remaining,
            u32::try_from(left).unwrap_or(0)
        );
        assert_eq!(world.left("key-1", "api").await, left);
    }
    assert!(is_over(&asked(before, 0).await));
}

#[tokio::test]
async fn hashed_keys_and_values_that_are_no_names() {
    let rules = r#"
version: 1
domains:
  gateway:
    rules:
      - match: {secret: "*"}
        entity: "{sha256(secret)}"
        resource: api
        consume: {rpm: 1}
      - match: {plain: "*"}
        entity: "{plain}"
        resource: api
        consume: {rpm: 1}
      - match: {lenient: "*"}
        entity: "{lenient}"
        resource: api
        on_invalid: pass
        consume: {rpm: 1}
      - match: {tokens: "*"}
        entity: counted
        resource: api
        consume: {rpm: "{tokens}"}
"#;
    let world = World::new(rules).await;
    let mut client = world.client().await;
    let mut one = async |key: &str, value: &str| {
        is_over(&ask(&mut client, request([descriptor(&[(key, value)])])).await)
    };
    assert!(!one("secret", "any text # at all\n").await);
    assert!(!one("secret", "secret").await);
    assert!(one("plain", "not a name").await);
    assert!(one("plain", "").await);
    assert!(one("plain", &"x".repeat(1000)).await);
    assert!(!one("lenient", "not a name").await);
    assert!(!one("tokens", "3").await);
    assert!(one("tokens", "3").await);
    for wrong in ["", "-1", "1.5", "1e3", "ten", "99999999999999999999999999"] {
        assert!(one("tokens", wrong).await, "{wrong}");
    }
    let hashed = "sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    assert_eq!(world.left(hashed, "api").await, 4);
    assert_eq!(world.left("counted", "api").await, 2);
}

#[tokio::test]
async fn parents_and_flags_count() {
    let world = World::new(RULES).await;
    let admin = world.repo.admin();
    admin.create_entity(NewEntity::new("project")).await.unwrap();
    for key in ["key-1", "key-2"] {
        let key = NewEntity::new(key).parent("project").cascade(true);
        admin.create_entity(key).await.unwrap();
    }
    admin
        .set_entity_limits("project", "gpt-4", [Limit::per_day("rpm", 3)])
        .await
        .unwrap();
    let mut client = world.client().await;
    for key in ["key-1", "key-2", "key-1"] {
        assert!(!is_over(&ask(&mut client, of_key(key)).await));
    }
    let response = ask(&mut client, of_key("key-2")).await;
    assert!(is_over(&response));
    let text = format!("{response:?}");
    assert!(!text.contains("project"), "{text}");
}

#[tokio::test]
async fn entities_without_limits_are_refused_unless_the_rule_passes_them() {
    for (option, is_refused) in [("", true), ("\n        on_unconfigured: pass", false)] {
        let rules = RULES.replace("consume: {rpm: 1}", &format!("consume: {{rpm: 1}}{option}"));
        let repo = zae_limiter::Repository::in_memory().await.unwrap();
        let world = World::with(&rules, repo, options()).await.unwrap();
        let mut client = world.client().await;
        assert_eq!(is_over(&ask(&mut client, of_key("key-1")).await), is_refused);
    }
}

#[tokio::test]
async fn a_table_that_fails_is_unavailable_unless_the_policy_admits() {
    let table = TestTable::new();
    let repo = table.open().await.unwrap();
    let limits = [Limit::per_day("rpm", 5)];
    repo.admin()
        .set_system_defaults(limits.clone(), None)
        .await
        .unwrap();
    let world = World::with(RULES, repo, options()).await.unwrap();
    let mut client = world.client().await;
    table.fail(Fault::Unreachable);
    let failed = client.should_rate_limit(of_key("key-1")).await.unwrap_err();
    assert_eq!(failed.code(), GrpcCode::Unavailable);
    assert!(!failed.message().contains("key-1"), "{failed}");

    let table = TestTable::new();
    let repo = table
        .builder()
        .on_unavailable(OnUnavailable::Allow)
        .open()
        .await
        .unwrap();
    repo.admin().set_system_defaults(limits, None).await.unwrap();
    let world = World::with(RULES, repo, options()).await.unwrap();
    let mut client = world.client().await;
    table.fail(Fault::Unreachable);
    assert!(!is_over(&ask(&mut client, of_key("key-1")).await));
}

#[tokio::test]
async fn a_limit_that_is_not_configured_is_an_error_of_the_operator() {
    let world = World::new(&RULES.replace("rpm", "rps")).await;
    let mut client = world.client().await;
    let failed = client.should_rate_limit(of_key("key-1")).await.unwrap_err();
    assert_eq!(failed.code(), GrpcCode::Internal);
}

#[tokio::test]
async fn malformed_requests_are_refused() {
    let world = World::new(RULES).await;
    let mut client = world.client().await;
    let mut without_domain = of_key("key-1");
    without_domain.domain.clear();
    let mut negative = of_key("key-1");
    negative.descriptors[0].is_negative_hits = true;
    let many = (0..65).map(|_| descriptor(&[("api_key", "key-1"), ("model", "gpt-4")]));
    for wrong in [
        without_domain,
        negative,
        request([]),
        request([descriptor(&[])]),
        request(many),
    ] {
        let failed = client.should_rate_limit(wrong).await.unwrap_err();
        assert_eq!(failed.code(), GrpcCode::InvalidArgument, "{failed}");
    }
    assert_eq!(world.left("key-1", "gpt-4").await, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_clients_are_never_admitted_beyond_the_limit() {
    let repo = repository().await;
    let limits = [Limit::per_day("rpm", 100)];
    repo.admin().set_system_defaults(limits, None).await.unwrap();
    let world = World::with(RULES, repo, options()).await.unwrap();
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = world.client().await;
        clients.push(tokio::spawn(async move {
            let mut admitted = 0;
            for _ in 0..15 {
                if !is_over(&ask(&mut client, of_key("key-1")).await) {
                    admitted += 1;
                }
            }
            admitted
        }));
    }
    let mut admitted = 0;
    for client in clients {
        admitted += client.await.unwrap();
    }
    // One that lost too many races may have been refused with tokens left.
    assert!((90..=100).contains(&admitted), "{admitted}");
    assert_eq!(world.left("key-1", "gpt-4").await, 100 - admitted);
}

#[tokio::test]
async fn a_client_that_goes_away_keeps_no_tokens() {
    let table = TestTable::new();
    let repo = table.open().await.unwrap();
    let limits = [Limit::per_day("rpm", 5)];
    repo.admin().set_system_defaults(limits, None).await.unwrap();
    let world = World::with(RULES, repo, options()).await.unwrap();
    let mut client = world.client().await;
    table.delay(Duration::from_millis(300));
    for _ in 0..3 {
        let asked = client.should_rate_limit(of_key("key-1"));
        assert!(
            tokio::time::timeout(Duration::from_millis(100), asked)
                .await
                .is_err()
        );
    }
    // Until the server has noticed the end of the last one.
    tokio::time::sleep(Duration::from_millis(500)).await;
    table.delay(Duration::ZERO);
    assert!(world.repo.drain().await.is_complete());
    assert_eq!(world.left("key-1", "gpt-4").await, 5);
    assert!(!is_over(&ask(&mut client, of_key("key-1")).await));
    assert_eq!(world.left("key-1", "gpt-4").await, 4);
}
