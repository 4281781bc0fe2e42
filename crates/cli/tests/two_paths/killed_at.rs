//! A daemon killed at a chosen system call while mail comes in, by its own path or over the link: at each step that writes
//! to the disk, gives a file its name, waits for the disk, or says something to the other device.
//!
//! strace kills at the nth call of a kind in any of its threads. The number is taken in turn from a seed, and where none
//! was reached the daemon had done all there was to do. After each, it starts again as it would for its user, and both
//! devices have every message once and byte for byte.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::mail_in::{BOTH, MailIn, Protocol};
use crate::network::{Cut, Line};
use crate::schedule;

/// What changes the disk, and what is said over the link.
const EFFECTS: [&str; 4] = [
    "pwrite64",
    "fsync,fdatasync,syncfs",
    "rename,renameat,renameat2,link,linkat,unlink,unlinkat",
    "sendto,sendmsg,sendmmsg",
];

/// Kills at calls chosen by a seed, for so many rounds or so long.
fn killed_at_random_calls(protocol: Protocol, rounds: usize, most: Duration, seed: u64) {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        println!("skipped: killing at a system call needs strace");
        return;
    }
    let Some(mut mail) = MailIn::start(protocol, "") else { return };
    let mut random = schedule::random(seed);
    let began = Instant::now();
    let (mut reached, mut done) = (0, 0);
    while done < rounds && began.elapsed() < most {
        let device = BOTH[random(2) as usize];
        let cut = [None, Some(Line::HostPath), Some(Line::CompanionPath), Some(Line::Link)][random(4) as usize];
        let calls = EFFECTS[random(4) as usize];
        // Few calls come before the first message, and few kinds have many.
        let when = 1 + random(if calls == "pwrite64" { 120 } else { 24 });
        mail.pair.end(device, Signal::KILL);
        if let Some(line) = cut {
            mail.pair.network.cut(line, Cut::Unplugged);
        }
        mail.save(3);
        let inject = [
            "-e".to_owned(),
            format!("trace={calls}"),
            "-e".to_owned(),
            format!("inject={calls}:signal=KILL:when={when}"),
        ];
        reached += usize::from(mail.pair.run_traced(device, &inject, Duration::from_secs(3)));
        if let Some(line) = cut {
            mail.pair.network.mend(line);
        }
        mail.pair.run(device);
        mail.all_at(&BOTH);
        done += 1;
    }
    println!("seed {seed}: {done} rounds, {reached} killed at their call, {:?}", began.elapsed());
    assert!(reached * 3 >= done, "the calls are made: {reached} of {done}");
}

#[test]
fn a_daemon_killed_at_any_call_loses_and_doubles_no_mail_by_imap() {
    killed_at_random_calls(Protocol::Imap, 8, Duration::from_secs(30), schedule::seed(6));
}

#[test]
fn a_daemon_killed_at_any_call_loses_and_doubles_no_mail_by_pop3() {
    killed_at_random_calls(Protocol::Pop3, 8, Duration::from_secs(30), schedule::seed(7));
}

#[test]
#[ignore = "long: hundreds of kills"]
fn a_daemon_killed_at_hundreds_of_calls_loses_and_doubles_no_mail() {
    killed_at_random_calls(Protocol::Imap, 300, Duration::from_secs(900), schedule::seed(8));
}
