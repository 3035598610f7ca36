//! Tests of the machines for places in flight, over a table in memory.

use super::*;
use crate::memory::MemoryTable;
use crate::name::{NamespaceId, ResourceName};
use crate::schema::BucketId;
use crate::table::{Answer, Item, Value};
use crate::units::EpochMillis;

struct Counted(u64);

impl Random for Counted {
    fn bits(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

struct Desk {
    table: MemoryTable,
    random: Counted,
    now: EpochMillis,
}

const TTL: i64 = 60_000;

impl Desk {
    fn new() -> Self {
        Self {
            table: MemoryTable::new(),
            random: Counted(0),
            now: EpochMillis(1_800_000_000_000),
        }
    }

    fn id() -> BucketId {
        BucketId {
            namespace: NamespaceId::new("AAAAAAAAAAA").unwrap(),
            entity: EntityId::new("key-1").unwrap(),
            resource: ResourceName::new("gpt-4").unwrap(),
        }
    }

    fn wait(&mut self, millis: i64) {
        self.now = self.now.plus(millis);
    }

    fn begin(&mut self, most: u32) -> Take {
        Take::new(Self::id(), most, TTL, &mut self.random)
    }

    /// A take of one place whose first answer was lost.
    fn in_doubt(&mut self, happened: bool) -> Take {
        let mut take = self.begin(1);
        let next = take.next(self.now);
        if happened {
            self.send(next).unwrap();
        }
        take.answer(lost(), self.now, &mut self.random);
        take
    }

    /// Runs a take to its end. Returns it, and how many writes it has sent.
    fn finish(&mut self, mut take: Take) -> (Take, usize) {
        let mut writes = 0;
        loop {
            match take.next(self.now) {
                Next::Ended => return (take, writes),
                Next::Pause(millis) => self.wait(millis.cast_signed()),
                Next::Send(op) => {
                    writes += 1;
                    let answer = self.table.call(&op);
                    take.answer(answer, self.now, &mut self.random);
                }
            }
        }
    }

    fn take(&mut self, most: u32) -> (TakeEnd, usize) {
        let take = self.begin(most);
        let (take, writes) = self.finish(take);
        (take.end().unwrap().clone(), writes)
    }

    #[track_caller]
    fn held(&mut self, most: u32) -> Hold {
        match self.take(most).0 {
            TakeEnd::Held(hold) => hold,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn check_full(&mut self, most: u32, in_flight: u32) {
        match self.take(most).0 {
            TakeEnd::Full(there) => assert_eq!(there, in_flight),
            other => panic!("{other:?}"),
        }
    }

    fn send(&mut self, next: Next) -> Result<Answer, TableError> {
        let Next::Send(op) = next else { panic!("{next:?}") };
        self.table.call(&op)
    }

    fn give_back(&mut self, mut give_back: GiveBack) -> GiveBackEnd {
        let next = give_back.next(self.now);
        let answer = self.send(next);
        give_back.answer(answer, &mut self.random);
        give_back.end().unwrap().clone()
    }

    fn item(&self) -> Option<Item> {
        self.table.get(&flight_key(&Self::id())).cloned()
    }

    fn holders(&self) -> Holders {
        Holders::decode(self.item().as_ref()).unwrap()
    }
}

fn lost() -> Result<Answer, TableError> {
    Err(TableError::new(FailureKind::Timeout, Applied::Unknown, "lost"))
}

#[test]
fn so_many_places_and_no_more_with_one_write_each() {
    let mut desk = Desk::new();
    let first = desk.held(2);
    let _second = desk.held(2);
    desk.check_full(2, 2);
    assert!(matches!(desk.give_back(first.give_back()), GiveBackEnd::Given));
    assert!(matches!(desk.give_back(first.give_back()), GiveBackEnd::Gone));
    assert_eq!(desk.holders().len(), 1);
    let (end, writes) = desk.take(2);
    assert!(matches!(end, TakeEnd::Held(_)));
    assert_eq!(writes, 1);
    // Fewer than there are.
    desk.check_full(1, 2);
    // It is listed in the namespace, and kept for a day after the last expiry.
    let item = desk.item().unwrap();
    assert_eq!(item["GSI4PK"], Value::text("AAAAAAAAAAA"));
    assert_eq!(item["ttl"], Value::int(desk.now.plus(TTL).secs() + 86_400));
    assert_eq!(item["n"], Value::int(2));
}

#[test]
fn a_place_is_free_after_its_expiry_and_the_margin() {
    let mut desk = Desk::new();
    desk.held(1);
    desk.wait(TTL + MARGIN_MS);
    desk.check_full(1, 1);
    desk.wait(1);
    let (end, writes) = desk.take(1);
    assert!(matches!(end, TakeEnd::Held(_)));
    assert_eq!(writes, 2, "a refused write, and one that removes and takes");
    assert_eq!(desk.holders().len(), 1);
}

#[test]
fn one_that_gives_a_sign_of_life_meanwhile_keeps_its_place() {
    let mut desk = Desk::new();
    let mut hold = desk.held(1);
    desk.wait(TTL + MARGIN_MS + 1);
    let mut take = desk.begin(1);
    let next = take.next(desk.now);
    let refused = desk.send(next);
    take.answer(refused, desk.now, &mut desk.random);
    let next = hold.next(desk.now);
    let beat = desk.send(next);
    hold.answer(beat, &mut desk.random);
    let (take, _) = desk.finish(take);
    assert!(matches!(take.end(), Some(TakeEnd::Full(1))), "{:?}", take.end());
    assert!(hold.is_held(desk.now));
}

#[test]
fn one_whose_place_was_taken_learns_it() {
    let mut desk = Desk::new();
    let mut hold = desk.held(1);
    assert!(matches!(hold.next(desk.now), Next::Pause(20_000)));
    desk.wait(TTL + MARGIN_MS + 1);
    assert!(!hold.is_held(desk.now));
    desk.held(1);
    let next = hold.next(desk.now);
    let beat = desk.send(next);
    hold.answer(beat, &mut desk.random);
    assert!(hold.is_lost() && matches!(hold.next(desk.now), Next::Ended));
    assert!(matches!(desk.give_back(hold.give_back()), GiveBackEnd::Gone));
    assert_eq!(desk.holders().len(), 1, "the other one's place stays");
}

#[test]
fn a_late_sign_of_life_does_not_move_the_expiry_back() {
    let mut desk = Desk::new();
    let mut hold = desk.held(1);
    desk.wait(20_000);
    let Next::Send(late) = hold.next(desk.now) else {
        panic!("not due")
    };
    hold.answer(lost(), &mut desk.random);
    assert!(matches!(hold.next(desk.now), Next::Pause(_)));
    desk.wait(2_000);
    let next = hold.next(desk.now);
    let beat = desk.send(next);
    hold.answer(beat, &mut desk.random);
    let until = hold.until();
    assert_eq!(until, desk.now.plus(TTL));
    assert!(matches!(desk.table.call(&late), Ok(Answer::Refused(_))));
    assert_eq!(desk.holders().expiry(hold.holder().as_str()), Some(until));
}

#[test]
fn a_take_in_doubt_is_sent_again_and_holds_one_place() {
    for happened in [false, true] {
        let mut desk = Desk::new();
        let take = desk.in_doubt(happened);
        let (take, _) = desk.finish(take);
        assert!(matches!(take.end(), Some(TakeEnd::Held(_))), "{:?}", take.end());
        assert!(take.undo().is_none());
        assert_eq!(desk.holders().len(), 1);
    }
}

#[test]
fn a_take_that_is_dropped_in_doubt_is_undone() {
    for happened in [false, true] {
        let mut desk = Desk::new();
        let take = desk.in_doubt(happened);
        let undo = take.undo().unwrap();
        let ended = desk.give_back(undo);
        assert_eq!(matches!(ended, GiveBackEnd::Given), happened);
        assert!(desk.holders().is_empty());
    }
}

#[test]
fn an_answer_after_the_expiry_holds_nothing() {
    let mut desk = Desk::new();
    let mut take = desk.begin(1);
    let next = take.next(desk.now);
    let answer = desk.send(next);
    desk.wait(TTL);
    take.answer(answer, desk.now, &mut desk.random);
    assert!(matches!(take.end(), Some(TakeEnd::Failed(_))));
    let undo = take.undo().unwrap();
    assert!(matches!(desk.give_back(undo), GiveBackEnd::Given));
}

#[test]
fn a_give_back_without_an_answer_is_repeated_until_the_place_expires() {
    let mut desk = Desk::new();
    let hold = desk.held(1);
    let mut give_back = hold.give_back();
    while desk.now <= hold.until() {
        match give_back.next(desk.now) {
            Next::Send(_) => give_back.answer(lost(), &mut desk.random),
            Next::Pause(millis) => desk.wait(millis.max(1).cast_signed()),
            Next::Ended => panic!("ended before the expiry"),
        }
    }
    assert!(matches!(give_back.next(desk.now), Next::Ended));
    assert!(matches!(give_back.end(), Some(GiveBackEnd::Failed(_))));
}

#[test]
fn very_many_expired_places_are_removed_in_several_writes() {
    let mut desk = Desk::new();
    for _ in 0..120 {
        desk.held(1000);
    }
    desk.wait(TTL + MARGIN_MS + 1);
    // A limit that was lowered meanwhile: 50 and 50 go, then the place is taken with the rest removed.
    let (end, writes) = desk.take(3);
    assert!(matches!(end, TakeEnd::Held(_)), "{end:?}");
    assert_eq!(writes, 6);
    assert_eq!(desk.holders().len(), 1);
}

#[test]
fn permissions_are_not_waited_for_and_damaged_items_are_named() {
    let mut desk = Desk::new();
    let mut take = desk.begin(1);
    let denied = TableError::new(FailureKind::AccessDenied, Applied::No, "no");
    take.next(desk.now);
    take.answer(Err(denied), desk.now, &mut desk.random);
    assert!(matches!(take.end(), Some(TakeEnd::Failed(_))) && take.undo().is_none());

    desk.held(2);
    let mut item = desk.item().unwrap();
    item.insert("n".into(), Value::int(2));
    desk.table.insert(item.clone()).unwrap();
    match desk.take(2).0 {
        TakeEnd::Record(err) => assert!(err.to_string().contains("but there are 1 holders"), "{err}"),
        other => panic!("{other:?}"),
    }
    for wrong in [Some(Value::text("many")), Some(Value::int(-5)), None] {
        match wrong {
            Some(wrong) => drop(item.insert("n".into(), wrong)),
            None => drop(item.remove("n")),
        }
        desk.table.insert(item.clone()).unwrap();
        assert!(matches!(desk.take(2).0, TakeEnd::Record(_)));
    }
}

#[test]
fn a_clock_that_goes_back_keeps_the_later_expiry() {
    let mut desk = Desk::new();
    let mut hold = desk.held(1);
    let until = hold.until();
    desk.wait(20_000);
    let Next::Send(_) = hold.next(desk.now) else {
        panic!("not due")
    };
    desk.wait(-30_000);
    hold.answer(lost(), &mut desk.random);
    while let Next::Pause(millis) = hold.next(desk.now) {
        assert!(millis <= 20_000);
        desk.wait(millis.max(1).cast_signed());
    }
    assert_eq!(hold.until(), until);
    assert_eq!(check_ttl("ttl", 4_999).unwrap_err().value(), "4999 ms");
}
