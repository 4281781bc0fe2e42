//! What a process prints when a server's words make the parser panic: nothing; and of any other panic, what it always did.
//!
//! The hook is the whole process's, so this file has one test.

mod servers {
    pub(crate) mod scripted;
}

use std::panic::catch_unwind;
use std::sync::{Arc, Mutex};

use packetboat_mail::imap::{ImapAccount, ImapError, ImapSession, keep_parser_panics_quiet};

use servers::scripted::{deadlines, login, say, serve, tls};

#[tokio::test]
async fn a_server_that_makes_the_parser_panic_prints_nothing_and_another_panic_is_told() {
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let hook = told.clone();
    std::panic::set_hook(Box::new(move |panic| hook.lock().unwrap().push(panic.to_string())));
    let log_in = || async {
        let (endpoint, _serving) = serve(|line| match line {
            None => say("* OK hello\r\n"),
            Some(line) if line.contains("CAPABILITY") => {
                say(format!("* CAPABILITY IMAP4rev1\r\n{} OK done\r\n", line.split(' ').next().unwrap()))
            }
            Some(_) => say("* 1 FETCH (UID 1 INTERNALDATE NIL)\r\n"),
        })
        .await;
        let account = ImapAccount { endpoint, tls: tls(), login: login(), deadlines: deadlines() };
        ImapSession::open(&account).await
    };
    assert!(matches!(log_in().await, Err(ImapError::Unreadable)));
    assert_eq!(told.lock().unwrap().len(), 1, "the parser panics, and the hook of this test sees it");

    keep_parser_panics_quiet();
    assert!(matches!(log_in().await, Err(ImapError::Unreadable)));
    assert_eq!(told.lock().unwrap().len(), 1, "{told:?}");
    assert!(catch_unwind(|| panic!("a fault of our own")).is_err());
    assert!(catch_unwind(|| Vec::<u8>::with_capacity(usize::MAX)).is_err(), "in the library, but not by the parser");
    let told = told.lock().unwrap();
    assert!(told.len() == 3 && told[1].contains("a fault of our own"), "{told:?}");
}
