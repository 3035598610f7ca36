//! Every future of the library can be spawned.

use zae_limiter::{CapacityOf, Limit, NewEntity, Repository, UsageQuery};

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
