//! What a session promises, in memory and over QUIC alike: messages in order, bodies whole or not at all.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::*;
use packetboat_link::{
    BulkError, Endpoint, Limits, Link, Local, Part, Peer, Refusal, Request, Session, SessionError, Settings,
    StreamError,
};
use tokio::time::timeout;

/// Limits small enough to be run into.
fn tight() -> Limits {
    Limits {
        message_bytes: 1000,
        name_bytes: 16,
        requests: 4,
        request: Duration::from_millis(300),
        answer: Duration::from_millis(600),
        stall: Duration::from_millis(300),
        stall_bytes: 100,
        ..Limits::default()
    }
}

/// Two devices with a session between them, and what must be kept for it to stand.
struct Two {
    here: Session,
    there: Session,
    _links: Option<[(Endpoint, Link); 2]>,
}

impl Two {
    fn in_memory(limits: &Limits) -> Self {
        let [here, there] = Session::pair_in_memory([key(2), key(1)], limits);
        Self { here, there, _links: None }
    }

    async fn over_quic(limits: &Limits) -> Self {
        let settings = Settings { limits: limits.clone(), ..quick() };
        let device = |seed| {
            Endpoint::bind(identity(seed), vec![Local::from(loopback(0))], settings.clone(), [seed; 16]).unwrap()
        };
        let (host, companion) = (device(1), device(2));
        let to_host = companion.link(Peer { key: key(1), addresses: vec![] }).unwrap();
        let to_companion = host.link(Peer { key: key(2), addresses: vec![address_of(&companion)] }).unwrap();
        let (here, there) = (up(&to_companion).await, up(&to_host).await);
        Self { here, there, _links: Some([(host, to_companion), (companion, to_host)]) }
    }
}

/// Checks a claim of both kinds of session.
macro_rules! of_both {
    ($name:ident, $limits:expr, |$two:ident| $claim:expr) => {
        mod $name {
            use super::*;

            #[tokio::test]
            async fn in_memory() {
                let $two = Two::in_memory(&$limits);
                timeout(PATIENCE * 2, $claim).await.expect("in time");
            }

            #[tokio::test]
            async fn over_quic() {
                let $two = Two::over_quic(&$limits).await;
                timeout(PATIENCE * 2, $claim).await.expect("in time");
            }
        }
    };
}

/// A body that no two offsets of share.
fn body(length: usize) -> Bytes {
    (0..length.div_ceil(4)).flat_map(|number| (number as u32).to_le_bytes()).take(length).collect()
}

/// Answers gets of `body` by the name `body`, and keeps what is put.
async fn serve(session: &Session, body: Bytes) -> Vec<u8> {
    loop {
        match session.next_request().await {
            Ok(Request::Get(get)) if get.name == b"body" => {
                let mut answer = get.accept(body.len() as u64).await.unwrap();
                let offset = answer.offset() as usize;
                // Whoever asked may have enough, and leave.
                if answer.write(body.slice(offset..offset + answer.remaining() as usize)).await.is_ok() {
                    let _left = answer.finish().await;
                }
            }
            Ok(Request::Get(get)) => get.refuse(Refusal::Missing).await.unwrap(),
            Ok(Request::Put(put)) if put.length > 10_000_000 => put.refuse(Refusal::Full).await.unwrap(),
            Ok(Request::Put(put)) => {
                let mut incoming = put.accept();
                let all = incoming.read_all(10_000_000).await.unwrap();
                incoming.acknowledge().await.unwrap();
                return all;
            }
            Err(_) => return Vec::new(),
        }
    }
}

of_both!(messages_arrive_in_order_whatever_their_length, Limits::default(), |two| async {
    let messages: Vec<Vec<u8>> =
        [0, 1, 3, 4, 70_000, 1 << 20, 5].into_iter().map(|length| body(length).to_vec()).collect();
    let sending = async {
        for message in &messages {
            two.here.send(message.clone()).await.unwrap();
        }
    };
    let receiving = async {
        for message in &messages {
            assert!(two.there.receive().await.unwrap() == *message, "a message of {} bytes", message.len());
        }
    };
    tokio::join!(sending, receiving);
});

of_both!(a_receiver_that_gave_up_waiting_loses_nothing, Limits::default(), |two| async {
    let message = body(900_000).to_vec();
    let sending = async {
        for _ in 0..5 {
            two.here.send(message.clone()).await.unwrap();
        }
    };
    let receiving = async {
        let mut received = 0;
        while received < 5 {
            if let Ok(taken) = timeout(Duration::from_micros(50), two.there.receive()).await {
                assert!(taken.unwrap() == message);
                received += 1;
            }
        }
    };
    tokio::join!(sending, receiving);
});

of_both!(a_message_that_is_too_long_is_the_senders_mistake_alone, tight(), |two| async {
    assert_eq!(two.here.send(vec![0; 1001]).await, Err(SessionError::TooLong { limit: 1000 }));
    talk(&two.here, &two.there).await;
});

of_both!(bodies_come_whole_or_in_part, Limits::default(), |two| async {
    let whole = body(3_000_000);
    let serving = serve(&two.there, whole.clone());
    let asking = async {
        let part = |offset, length| Part { offset, length };
        for (part, expected) in [
            (Part::WHOLE, 0..3_000_000),
            (part(1, None), 1..3_000_000),
            (part(2_999_999, Some(7)), 2_999_999..3_000_000),
            (part(100_000, Some(200_001)), 100_000..300_001),
            (part(0, Some(0)), 0..0),
            (part(3_000_001, None), 0..0),
            (part(u64::MAX, Some(u64::MAX - 1)), 0..0),
        ] {
            let mut incoming = two.here.get(b"body", part).await.unwrap();
            assert_eq!((incoming.total(), incoming.length()), (3_000_000, expected.len() as u64), "{part:?}");
            assert!(incoming.read_all(3_000_000).await.unwrap() == whole[expected], "{part:?}");
        }
        let mut incoming = two.here.get(b"body", Part::WHOLE).await.unwrap();
        let too_long = BulkError::TooLong { length: 3_000_000, limit: 2_999_999 };
        assert_eq!(incoming.read_all(2_999_999).await, Err(too_long));
        two.here.close();
    };
    tokio::join!(serving, asking);
});

of_both!(a_refusal_says_why, tight(), |two| async {
    let asking = async {
        let refused = two.here.get(b"nothing", Part::WHOLE).await.unwrap_err();
        assert_eq!(refused, BulkError::Refused(Refusal::Missing));
        let long = two.here.get(&[b'n'; 17], Part::WHOLE).await.unwrap_err();
        assert_eq!(long, BulkError::NameTooLong { limit: 16 });
        // Refused while it is being sent: the sender stops and hears why.
        let mut outgoing = two.here.put(b"large", 1 << 40).await.unwrap();
        let refused = loop {
            if let Err(error) = outgoing.write(body(100_000)).await {
                break error;
            }
        };
        assert_eq!(refused, BulkError::Refused(Refusal::Full));
        two.here.close();
    };
    tokio::join!(serve(&two.there, Bytes::new()), asking);
});

of_both!(a_put_is_done_when_the_receiver_says_so, Limits::default(), |two| async {
    let putting = async {
        let mut outgoing = two.here.put(b"new", 2_000_000).await.unwrap();
        outgoing.write(body(2_000_000)).await.unwrap();
        outgoing.finish().await.unwrap();
    };
    let (kept, ()) = tokio::join!(serve(&two.there, Bytes::new()), putting);
    assert!(kept == body(2_000_000));
});

of_both!(a_body_that_is_cut_short_is_never_taken_for_whole, tight(), |two| async {
    let serving = async {
        for _ in 0..2 {
            let Ok(Request::Get(get)) = two.there.next_request().await else { panic!("it is a get") };
            let mut answer = get.accept(1000).await.unwrap();
            answer.write(body(999)).await.unwrap();
            // Both ways of not writing the last byte.
            if answer.offset() == 0 {
                drop(answer);
            } else {
                assert!(matches!(answer.finish().await, Err(BulkError::WrongLength { .. })));
            }
        }
    };
    let asking = async {
        for _ in 0..2 {
            // Over a network, the news that it was given up may overtake the answer.
            let outcome = match two.here.get(b"short", Part::WHOLE).await {
                Ok(mut incoming) => incoming.read_all(1000).await,
                Err(error) => Err(error),
            };
            assert_eq!(outcome, Err(BulkError::Stream(StreamError::Abandoned)));
        }
    };
    tokio::join!(serving, asking);
});

of_both!(a_body_on_which_nothing_comes_is_given_up, tight(), |two| async {
    let serving = async {
        let Ok(Request::Get(get)) = two.there.next_request().await else { panic!("it is a get") };
        let mut answer = get.accept(1000).await.unwrap();
        // One byte now and then: less than what counts as alive.
        for byte in 0..100 {
            if answer.write(vec![byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let asking = async {
        let mut incoming = two.here.get(b"slow", Part::WHOLE).await.unwrap();
        assert_eq!(incoming.read_all(1000).await, Err(BulkError::Stream(StreamError::Stalled)));
    };
    tokio::join!(serving, asking);
});

of_both!(a_request_that_nobody_answers_is_given_up, tight(), |two| async {
    let refused = two.here.get(b"body", Part::WHOLE).await.unwrap_err();
    assert_eq!(refused, BulkError::Stream(StreamError::Stalled));
    talk(&two.here, &two.there).await;
});

of_both!(no_more_requests_are_open_at_once_than_allowed, tight(), |two| async {
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(two.here.put(b"one", 10).await.unwrap());
    }
    // The fifth waits at its own side, and gives up.
    let fifth = two.here.put(b"five", 10).await.unwrap_err();
    assert_eq!(fifth, BulkError::Stream(StreamError::Stalled));
    // Messages are not held up by it.
    talk(&two.here, &two.there).await;
    let Ok(Request::Put(put)) = two.there.next_request().await else { panic!("it is a put") };
    put.refuse(Refusal::Unwanted("\u{1b}[31mred".to_owned())).await.unwrap();
    let refused = open.remove(0).finish_short().await;
    assert_eq!(refused, BulkError::Refused(Refusal::Unwanted("[31mred".to_owned())));
    two.here.put(b"six", 10).await.unwrap();
});

of_both!(closing_ends_everything_on_both_sides, Limits::default(), |two| async {
    let mut outgoing = two.here.put(b"body", 1 << 40).await.unwrap();
    two.there.close();
    assert_eq!(two.here.ended().await, SessionError::Closed);
    assert_eq!(two.here.receive().await, Err(SessionError::Closed));
    assert!(matches!(two.here.next_request().await, Err(SessionError::Closed)));
    while outgoing.write(body(100_000)).await.is_ok() {}
    assert!(two.here.get(b"body", Part::WHOLE).await.is_err());
    assert_eq!(two.here.end(), Some(SessionError::Closed));
});

of_both!(a_session_ends_when_nobody_has_it, Limits::default(), |two| async {
    let Two { here, there, _links } = two;
    if _links.is_some() {
        // A link has a handle of its own, which goes with it.
        drop(_links);
    }
    drop(there);
    assert_eq!(here.ended().await, SessionError::Closed);
});

/// What comes of a body whose receiver refused it before its end.
trait FinishShort {
    async fn finish_short(self) -> BulkError;
}

impl FinishShort for packetboat_link::Outgoing {
    async fn finish_short(mut self) -> BulkError {
        loop {
            if let Err(error) = self.write(vec![0; self.remaining().min(1) as usize]).await {
                return error;
            }
            if self.remaining() == 0 {
                return self.finish().await.unwrap_err();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
