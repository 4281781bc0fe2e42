//! A crash at every step of delivery, and at every step of putting in order what it left, costs nothing and doubles nothing.

mod support {
    pub(crate) mod crashes;
    pub(crate) mod faulty;
}

use packetboat_mail::fetched::{FetchedStore, MemoryFetched, MessageState};

use support::crashes::{arrivals, expected, run};
use support::faulty::{Fatal, ForgetfulFolders, Loss, Steps};

/// How many steps an undisturbed process takes, with what was there before.
fn steps_of(store: &MemoryFetched, folders: &ForgetfulFolders) -> usize {
    let steps = Steps::default();
    run(&mut store.clone(), folders.copy(), 9, &steps).unwrap();
    steps.taken()
}

fn fatal_steps(count: usize) -> impl Iterator<Item = Fatal> {
    (1..=count).flat_map(|step| [Fatal::Before(step), Fatal::After(step)])
}

fn check_settled(store: &mut MemoryFetched, folders: &ForgetfulFolders, story: &str) {
    let mut delivered = folders.delivered();
    delivered.sort();
    assert_eq!(delivered, expected(), "{story}");
    assert!(store.pending().unwrap().is_empty(), "{story}");
    for (arrival, _) in arrivals() {
        assert!(store.is_known(&arrival.origin).unwrap(), "{story}: {:?}", arrival.origin);
    }
}

#[test]
fn an_undisturbed_round_delivers_each_message_once() {
    let (mut store, folders) = (MemoryFetched::default(), ForgetfulFolders::default());
    run(&mut store, folders.copy_handle(), 1, &Steps::default()).unwrap();
    check_settled(&mut store, &folders, "undisturbed");
    run(&mut store, folders.copy_handle(), 2, &Steps::default()).unwrap();
    check_settled(&mut store, &folders, "a second round");
}

#[test]
fn a_crash_at_any_step_loses_and_doubles_nothing() {
    let whole = steps_of(&MemoryFetched::default(), &ForgetfulFolders::default());
    assert!(whole > 40, "{whole}");
    for loss in [Loss::Nothing, Loss::Everything, Loss::Bytes] {
        for fatal in fatal_steps(whole) {
            let (mut store, folders) = (MemoryFetched::default(), ForgetfulFolders::default());
            let steps = Steps::fatal(fatal);
            run(&mut store, folders.copy_handle(), 1, &steps).unwrap_err();
            assert!(steps.is_dead());
            folders.lose(loss);
            run(&mut store, folders.copy_handle(), 2, &Steps::default()).unwrap();
            check_settled(&mut store, &folders, &format!("{fatal:?}, {loss:?}"));
        }
    }
}

#[test]
fn a_second_crash_while_the_first_is_put_in_order_changes_nothing() {
    let whole = steps_of(&MemoryFetched::default(), &ForgetfulFolders::default());
    for loss in [Loss::Nothing, Loss::Everything, Loss::Bytes] {
        for first in fatal_steps(whole) {
            let (mut store, folders) = (MemoryFetched::default(), ForgetfulFolders::default());
            run(&mut store, folders.copy_handle(), 1, &Steps::fatal(first)).unwrap_err();
            folders.lose(loss);
            for second in fatal_steps(steps_of(&store, &folders)) {
                let (mut store, folders) = (store.clone(), folders.copy());
                run(&mut store, folders.copy_handle(), 2, &Steps::fatal(second)).unwrap_err();
                folders.lose(loss);
                run(&mut store, folders.copy_handle(), 3, &Steps::default()).unwrap();
                check_settled(&mut store, &folders, &format!("{first:?}, then {second:?}, {loss:?}"));
            }
        }
    }
}

#[test]
fn what_was_deleted_does_not_come_back_from_anywhere() {
    let (mut store, folders) = (MemoryFetched::default(), ForgetfulFolders::default());
    let (first, bytes) = arrivals().remove(0);
    let digest = packetboat_mail::fetched::MessageDigest::of(&bytes);
    store.delete(&first.folder, &digest).unwrap();
    run(&mut store, folders.copy_handle(), 1, &Steps::default()).unwrap();
    assert_eq!(store.message(&first.folder, &digest).unwrap(), Some(MessageState::Deleted));
    assert!(!folders.delivered().contains(&(first.folder, bytes)));
    assert_eq!(folders.delivered().len(), expected().len() - 1);
}
