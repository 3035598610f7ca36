//! Tables whose index by resource holds keys only: what they cost, and that everything is read from them as from others.

use zae_limiter::{CapacityOf, NewEntity, UsageQuery, Window};

use crate::admin::{put_all, snapshot};
use crate::world::World;

async fn tables() -> [World; 2] {
    let whole = World::with(|builder| builder).await;
    let lean = World::with(|builder| builder.lean_index(true)).await;
    for world in [&whole, &lean] {
        world.configure().await;
    }
    [whole, lean]
}

async fn spend(world: &World, entity: &str, tokens: u64) {
    let call = world
        .limiter
        .acquire(entity, "r")
        .consume("rpm", 1)
        .consume("tpm", tokens);
    call.await.unwrap().commit().await.unwrap();
}

#[tokio::test]
async fn an_acquire_and_a_refund_write_the_table_alone() {
    let [whole, lean] = tables().await;
    for (world, units) in [(whole, 2.0), (lean, 1.0)] {
        spend(&world, "k", 100).await;
        let ((), admitted) = world.cost(spend(&world, "k", 100)).await;
        assert_eq!((admitted.updates, admitted.write_units), (1, units));
        let call = world.limiter.acquire("k", "r").consume("tpm", 100);
        let lease = call.await.unwrap();
        let (given_back, refund) = world.cost(lease.rollback()).await;
        given_back.unwrap();
        assert_eq!((refund.updates, refund.write_units), (1, units));
    }
}

#[tokio::test]
async fn buckets_of_a_resource_are_listed_alike() {
    let mut found = Vec::new();
    for world in tables().await {
        // More than one read of a batch has.
        for n in 0..130 {
            let name = format!("k{n:03}");
            if n % 2 == 0 {
                world
                    .repo
                    .admin()
                    .create_entity(NewEntity::new(name.as_str()))
                    .await
                    .unwrap();
            }
            spend(&world, &name, n + 1).await;
        }
        for of in [CapacityOf::Everybody, CapacityOf::TopLevel] {
            let capacity = world
                .repo
                .admin()
                .resource_capacity("r", "tpm", of)
                .await
                .unwrap();
            let entities = capacity.entities.iter();
            found.push(
                entities
                    .map(|one| (one.entity.to_string(), one.capacity, one.available))
                    .collect::<Vec<_>>(),
            );
        }
    }
    assert_eq!((found[0].len(), found[1].len()), (130, 65));
    assert_eq!(found[0][129], ("k129".to_owned(), 1000, 870));
    assert_eq!(found[..2], found[2..]);
}

#[tokio::test]
async fn usage_of_a_resource_is_read_alike_and_in_order() {
    let mut found = Vec::new();
    for world in tables().await {
        let ns = world.repo.namespace_id().as_str();
        let hours = (0..40).flat_map(|n| {
            let start = format!("2027-01-{:02}T{:02}:00:00Z", 1 + n / 20, n % 20);
            let of = |entity| snapshot((ns, entity, "r"), ("hourly", &start, ""), &[("rpm", n)]);
            [of("a"), of("b")]
        });
        put_all(&*world.repo.table(), hours).await;
        let query = || UsageQuery::of_resource("r").window(Window::Hourly);
        let mut pages = world.repo.admin().usage_snapshots(query()).unwrap().page_size(7);
        let mut all = Vec::new();
        while let Some(page) = pages.next_page().await.unwrap() {
            all.extend(page);
        }
        let summary = world.repo.admin().usage_summary(query()).await.unwrap();
        found.push((all, summary));
    }
    let (all, summary) = &found[0];
    assert_eq!((all.len(), summary.limits["rpm"].total), (80, 2 * (39 * 40 / 2)));
    assert!(all.is_sorted_by(|one, other| one.window_start >= other.window_start));
    assert_eq!(found[0], found[1]);
}
