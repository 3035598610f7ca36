//! Sessions on a shard that was refilled by a clock that is ahead.

use zae_limiter_core::Limit;
use zae_limiter_core::table::Value;

use crate::shapes::{desk, session};

const SESSION_MS: i64 = 5 * 3_600_000;

/// A session is over at the instant of the last refill, as after a reset by an operator whose clock is ahead. The next use by a clock
/// that is behind begins another one: if it took from the balance as it is, nothing would end that.
#[test]
fn a_use_by_a_clock_that_is_behind_begins_the_session_that_is_due() {
    let mut desk = desk(
        &[session(), Limit::per_minute("rpm", 600)],
        "2027-03-10T08:30:00Z",
    );
    desk.admitted("u", &[("ses", 30), ("rpm", 1)]);
    let ahead = desk.now + 20;
    let start = Value::int(ahead - SESSION_MS);
    desk.poke(
        "u",
        0,
        &[
            ("rf", Value::int(ahead)),
            ("vu", Value::int(0)),
            ("b_ses_ws", start.clone()),
            ("b_ses_wa", start),
        ],
    );
    desk.forget();
    desk.admitted("u", &[("rpm", 1)]);
    assert_eq!(desk.int("u", 0, "b_ses_ws"), i128::from(ahead));
    assert_eq!(desk.int("u", 0, "vu"), i128::from(ahead + SESSION_MS));
    assert_eq!(desk.int("u", 0, "b_ses_tk"), 50_000);
}
