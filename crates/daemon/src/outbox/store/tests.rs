//! What the outbox keeps, and how it is found again.

use packetboat_core::delivery::{Address, Host, Now, Settings};
use packetboat_core::ids::BootId;

use super::*;
use crate::outbox::body::BodyDraft;

struct Fixture {
    directory: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn open(&self) -> Store {
        Store::open(&self.directory.path().join("outbox.db"), self.directory.path()).unwrap()
    }

    fn body(&self, id: u8, size: usize) -> Body {
        let mut draft = BodyDraft::new(self.directory.path(), MailId([id; 16]));
        draft.write(&vec![id; size]).unwrap();
        draft.finish().unwrap()
    }
}

fn now() -> Now {
    Now { boot: BootId([1; 16]), since_boot_ms: 1000, wall_ms: 5000 }
}

fn host(body: &Body, number: Option<u64>) -> Machine {
    let address = |text: &str| Address::new(text).unwrap();
    let recipients = vec![address("b@example.org"), address("c@example.org")];
    let item = Item::new(body.mail, body.hash, body.size_bytes, address("a@example.org"), recipients).unwrap();
    Machine::Host(Host::submit(Arc::new(item), number, false, &now(), &Settings::default()).0)
}

#[test]
fn a_mail_is_found_again_with_its_state_and_body_whatever_its_size() {
    let fixture = Fixture::new();
    // Opening removes what no mail names.
    let mut store = fixture.open();
    let bodies = [fixture.body(1, 100), fixture.body(2, body::ROW_BYTES + 1)];
    let machines = bodies.each_ref().map(|body| host(body, Some(u64::from(body.mail.0[0]))));
    store
        .write(|batch| {
            for (machine, body) in machines.iter().zip(&bodies) {
                batch.add(machine, Some(1), body)?;
            }
            assert_eq!(batch.first_open(1)?, Some(1));
            assert_eq!(batch.first_open(2)?, None);
            Ok::<_, StoreError>(())
        })
        .unwrap();
    drop(store);
    let store = fixture.open();
    let reader = store.reader().unwrap();
    for (machine, body) in machines.iter().zip(&bodies) {
        let found = reader.machine(&body.mail).unwrap().unwrap();
        assert_eq!(found.encode(), machine.encode());
        let mut bytes = Vec::new();
        reader.body(&body.mail).unwrap().unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, vec![body.mail.0[0]; body.size_bytes as usize]);
    }
    assert_eq!(store.mails_after(0, 1).unwrap().len(), 1);
    assert_eq!(store.mails_after(0, 9).unwrap().len(), 2);
    assert_eq!(reader.by_prefix("0101").unwrap(), [MailId([1; 16])]);
    assert_eq!(reader.by_prefix("0").unwrap().len(), 2);
}

#[test]
fn a_batch_that_fails_leaves_nothing() {
    let fixture = Fixture::new();
    let body = fixture.body(1, 10);
    let machine = host(&body, None);
    let mut store = fixture.open();
    let failed = store.write(|batch| {
        batch.add(&machine, None, &body)?;
        Err::<(), _>(StoreError::Full)
    });
    assert!(matches!(failed, Err(StoreError::Full)));
    assert_eq!(store.count().unwrap(), 0);
    assert!(store.machine(&body.mail).unwrap().is_none());
}

#[test]
fn a_forgotten_mail_leaves_a_view_and_nothing_else() {
    let fixture = Fixture::new();
    let body = fixture.body(1, 10);
    let machine = host(&body, None);
    let mut view = MailView::of(&machine, Vec::new(), None);
    view.finished_ms = Some(9);
    let mut store = fixture.open();
    let done = store.write(|batch| {
        batch.add(&machine, None, &body)?;
        batch.note_failure(&body.mail, "host", "451 no", 7)?;
        batch.note_failure(&body.mail, "host", "451 still no", 8)?;
        assert_eq!(batch.paths(&body.mail)?[0].failures, 2);
        assert_eq!(batch.paths(&body.mail)?[0].last_failure, "451 still no");
        batch.forget(&body.mail, Some(&view))
    });
    done.unwrap();
    let reader = store.reader().unwrap();
    assert_eq!(store.count().unwrap(), 0);
    assert!(reader.body(&body.mail).unwrap().is_none());
    assert_eq!(reader.finished(5).unwrap(), [view.clone()]);
    assert_eq!(reader.finished_mail(&body.mail).unwrap(), Some(view));
    for table in ["state", "body", "failure"] {
        let count: i64 =
            store.connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap();
        assert_eq!(count, 0, "{table}");
    }
}

#[test]
fn the_list_of_finished_mails_does_not_grow_for_ever() {
    let fixture = Fixture::new();
    let body = fixture.body(1, 10);
    let view = MailView::of(&host(&body, None), Vec::new(), None);
    let mut store = fixture.open();
    let done = store.write(|batch| {
        for count in 0..FINISHED_KEPT as u128 + 50 {
            batch.forget(&MailId(count.to_be_bytes()), Some(&view))?;
        }
        Ok::<_, StoreError>(())
    });
    done.unwrap();
    assert_eq!(store.reader().unwrap().finished(usize::MAX).unwrap().len() as i64, FINISHED_KEPT);
}

#[test]
fn what_is_no_outbox_or_a_newer_one_is_refused() {
    let fixture = Fixture::new();
    let path = fixture.directory.path().join("outbox.db");
    std::fs::write(&path, [b'x'; 4096]).unwrap();
    assert!(matches!(Store::open(&path, fixture.directory.path()), Err(StoreError::Damaged { .. })));
    std::fs::remove_file(&path).unwrap();
    let store = fixture.open();
    store.connection.pragma_update(None, "user_version", 9).unwrap();
    drop(store);
    assert!(matches!(Store::open(&path, fixture.directory.path()), Err(StoreError::Newer { version: 9 })));
}
