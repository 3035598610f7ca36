//! One suite for every table: the bodies are written once, in `table_writes` and `table_reads`, and stamped
//! out here for each kind of table.

macro_rules! suite {
    ($($test:ident),* $(,)?) => {
        suite!(@of engine_in_memory: $($test),*);
        suite!(@of engine_on_disk: $($test),*);
        suite!(@of plain_memory: $($test),*);
    };
    (@of $backend:ident: $($test:ident),*) => {
        mod $backend {
            $(
                #[tokio::test]
                async fn $test() {
                    let fixture = crate::support::$backend().await;
                    super::$test(&*fixture.table).await;
                }
            )*
        }
    };
}

use crate::table_reads::*;
use crate::table_writes::*;

suite! {
    conditions_of_every_kind,
    conditions_that_need_no_item,
    odd_attribute_names_are_plain_data,
    every_type_of_value_comes_back_as_it_went,
    numbers_of_38_digits_are_exact,
    updates_change_what_they_say_and_return_the_new_image,
    an_update_copies_what_was_there_before,
    an_update_of_nothing_creates_the_item,
    sets_grow_shrink_and_vanish,
    refused_writes_return_the_stored_item,
    transactions_happen_as_a_whole,
    cancelled_transactions_say_why,
    queries_page_in_both_directions,
    queries_by_prefix,
    global_indexes_hold_items_with_both_keys,
    keys_only_indexes_project,
    an_index_can_be_paged,
    batches_of_more_than_a_hundred,
    malformed_requests_are_bad_requests,
}
