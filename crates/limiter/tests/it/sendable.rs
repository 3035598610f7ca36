//! Every future of the library can be spawned.

use zae_limiter::{CapacityOf, Limit, NewEntity, Repository, UsageQuery};

fn sendable<T: Send>(future: T) {
    drop(future);
}

#[tokio::test]
async fn administration_can_be_spawned() {
    let repo = Repository::in_memory().await.unwrap();
    sendable(repo.create_entity(NewEntity::new("a")));
    sendable(repo.entity("a"));
    sendable(repo.children("a"));
    sendable(repo.delete_entity("a"));
    sendable(repo.set_entity_limits("a", "r", [Limit::per_minute("rpm", 1)]));
    sendable(repo.delete_entity_limits("a", "r"));
    sendable(repo.set_resource_defaults("r", [Limit::per_minute("rpm", 1)]));
    sendable(repo.delete_resource_defaults("r"));
    sendable(repo.set_system_defaults([Limit::per_minute("rpm", 1)], None));
    sendable(repo.delete_system_defaults());
    sendable(repo.effective_limits("a", "r"));
    sendable(repo.resources_with_defaults());
    sendable(repo.resources_with_entity_limits());
    sendable(repo.entities_with_limits("r").unwrap().all());
    sendable(repo.audit_events("a", None).unwrap().all());
    sendable(repo.usage_snapshots(UsageQuery::entity("a")).unwrap().all());
    sendable(repo.usage_summary(UsageQuery::entity("a")));
    sendable(repo.resource_capacity("r", "rpm", CapacityOf::Everybody));
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
