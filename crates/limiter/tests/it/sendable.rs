//! Every future of the library can be spawned.

use zae_limiter::{
    ALL_RESOURCES, Access, ApplyOptions, BucketReset, CapacityOf, Limit, NewEntity, RateLimiter, Repository,
    TopUp, UsageQuery,
};
use zae_limiter_core::manifest::Manifest;

fn sendable<T: Send>(future: T) {
    drop(future);
}

#[tokio::test]
async fn administration_can_be_spawned() {
    let repo = Repository::in_memory().await.unwrap();
    sendable(repo.admin().create_entity(NewEntity::new("a")));
    sendable(repo.admin().entity("a"));
    sendable(repo.admin().children("a"));
    sendable(repo.admin().delete_entity("a"));
    sendable(
        repo.admin()
            .set_entity_limits("a", "r", [Limit::per_minute("rpm", 1)]),
    );
    sendable(repo.admin().delete_entity_limits("a", "r"));
    sendable(
        repo.admin()
            .set_resource_defaults("r", [Limit::per_minute("rpm", 1)]),
    );
    sendable(repo.admin().delete_resource_defaults("r"));
    sendable(
        repo.admin()
            .set_system_defaults([Limit::per_minute("rpm", 1)], None),
    );
    sendable(repo.admin().delete_system_defaults());
    sendable(repo.admin().effective_limits("a", "r"));
    sendable(repo.admin().resources_with_defaults());
    sendable(repo.admin().resources_with_entity_limits());
    sendable(repo.admin().entities_with_limits("r").unwrap().all());
    sendable(repo.admin().audit_events("a", None).unwrap().all());
    sendable(
        repo.admin()
            .usage_snapshots(UsageQuery::entity("a"))
            .unwrap()
            .all(),
    );
    sendable(repo.admin().usage_summary(UsageQuery::entity("a")));
    sendable(repo.admin().resource_capacity("r", "rpm", CapacityOf::Everybody));
    let stack = repo.stack_handle();
    sendable(stack.open("a"));
    sendable(stack.connect("a"));
    sendable(stack.version());
    sendable(stack.register_namespace("a"));
    sendable(stack.register_namespaces(["a"]));
    sendable(stack.namespaces());
    sendable(stack.namespace("a"));
    sendable(stack.delete_namespace("a"));
    sendable(stack.orphans());
    sendable(stack.recover_namespace("a"));
    sendable(stack.purge_namespace("a", &|_| ()));
    sendable(Repository::open("a"));
}

#[tokio::test]
async fn what_spans_many_buckets_can_be_spawned() {
    let repo = Repository::in_memory().await.unwrap();
    let admin = repo.admin();
    let manifest = Manifest::from_json(&serde_json::json!({ "namespace": "default" })).unwrap();
    sendable(admin.plan_limits(&manifest, ApplyOptions::default()));
    sendable(admin.apply_limits(&manifest, ApplyOptions::default()));
    sendable(admin.set_resource_access("r", Access::Disabled));
    sendable(admin.set_entity_cascade("a", ALL_RESOURCES, true));
    sendable(admin.set_parent("a", None));
    sendable(admin.ancestors("a"));
    sendable(admin.set_cascade_depth(3));
    sendable(admin.set_entity_concurrency("a", "r", 1));
    sendable(admin.effective_concurrency("a", "r"));
    sendable(admin.places_in_flight("a", "r"));
    sendable(admin.reset_bucket(BucketReset::new("a", "r")));
    sendable(admin.top_up(TopUp::new("a", "r").add("rpm", 1)));
    sendable(admin.all_limits_above_parent("a"));
    let limiter = RateLimiter::new(repo);
    sendable(limiter.acquire("a", "r").consume("rpm", 1).in_flight().send());
    sendable(limiter.check("a", "r").in_flight().send());
}
