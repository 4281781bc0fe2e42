//! What a Maildir does to files, and what it says when it cannot.

use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use super::*;

fn name(number: u64) -> UniqueName {
    UniqueNames::new("host", 1, number).next(SystemTime::UNIX_EPOCH)
}

fn deliver(maildir: &mut Maildir, folder: &FolderName, name: &UniqueName, flags: Flags, bytes: &[u8]) {
    let mut draft = maildir.begin(folder, name, None).unwrap();
    maildir.write(&mut draft, bytes).unwrap();
    maildir.close(draft).unwrap();
    maildir.make_durable(&[(folder, name)]).unwrap();
    maildir.publish(folder, name, flags).unwrap();
    maildir.sync_published().unwrap();
}

fn listing(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        entries(directory).unwrap().iter().map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_message_is_stored_byte_for_byte() {
    let home = TempDir::new().unwrap();
    let mut maildir = Maildir::open(home.path().join("Mail")).unwrap();
    let bytes = b"Subject: a\r\n\r\nlone \r and \n and \0 and \xff\r\n.\r\nno end";
    deliver(&mut maildir, &FolderName::inbox(), &name(1), Flags::default(), bytes);
    let stored = maildir.root().join("new").join(name(1).as_str());
    assert_eq!(fs::read(&stored).unwrap(), bytes);
    assert_eq!(fs::metadata(&stored).unwrap().permissions().mode() & 0o777, 0o600, "mail is its owner's alone");
    assert!(listing(&maildir.root().join("tmp")).is_empty());
}

#[test]
fn a_message_with_flags_goes_to_cur_and_one_without_to_new() {
    let home = TempDir::new().unwrap();
    let mut maildir = Maildir::open(home.path()).unwrap();
    let folder = FolderName::for_mailbox("Archive/2024", Some("/")).unwrap();
    let flags = Flags::SEEN | Flags::ANSWERED;
    deliver(&mut maildir, &folder, &name(1), flags, b"a");
    deliver(&mut maildir, &folder, &name(2), Flags::default(), b"b");
    let directory = home.path().join(".Archive.2024");
    assert_eq!(listing(&directory), ["cur", "maildirfolder", "new", "tmp"]);
    assert_eq!(listing(&directory.join("cur")), [format!("{}:2,RS", name(1))]);
    assert_eq!(listing(&directory.join("new")), [name(2).as_str()]);
}

#[test]
fn the_time_of_a_file_is_when_the_server_received_it() {
    let home = TempDir::new().unwrap();
    let mut maildir = Maildir::open(home.path()).unwrap();
    let received = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let draft = maildir.begin(&FolderName::inbox(), &name(1), Some(received)).unwrap();
    maildir.close(draft).unwrap();
    maildir.publish(&FolderName::inbox(), &name(1), Flags::default()).unwrap();
    assert_eq!(fs::metadata(home.path().join("new").join(name(1).as_str())).unwrap().modified().unwrap(), received);
}

#[test]
fn a_message_is_found_by_its_name_wherever_a_reader_put_it() {
    let home = TempDir::new().unwrap();
    let mut maildir = Maildir::open(home.path()).unwrap();
    let inbox = FolderName::inbox();
    assert_eq!(maildir.find(&inbox, &name(1)).unwrap(), Found::Nowhere);
    let draft = maildir.begin(&inbox, &name(1), None).unwrap();
    maildir.close(draft).unwrap();
    assert_eq!(maildir.find(&inbox, &name(1)).unwrap(), Found::Draft);
    maildir.publish(&inbox, &name(1), Flags::default()).unwrap();
    assert_eq!(maildir.find(&inbox, &name(1)).unwrap(), Found::Delivered);
    let read = home.path().join("cur").join(format!("{}:2,FS", name(1)));
    fs::rename(home.path().join("new").join(name(1).as_str()), read).unwrap();
    assert_eq!(maildir.find(&inbox, &name(1)).unwrap(), Found::Delivered);
}

#[test]
fn many_drafts_are_made_durable_together() {
    let home = TempDir::new().unwrap();
    let mut maildir = Maildir::open(home.path()).unwrap();
    let inbox = FolderName::inbox();
    let names: Vec<_> = (0..40).map(name).collect();
    for name in &names {
        let mut draft = maildir.begin(&inbox, name, None).unwrap();
        maildir.write(&mut draft, b"x").unwrap();
        maildir.close(draft).unwrap();
    }
    let drafts: Vec<_> = names.iter().map(|name| (&inbox, name)).collect();
    maildir.make_durable(&drafts).unwrap();
    let missing = name(99);
    assert!(maildir.make_durable(&[(&inbox, &missing)]).is_err(), "a draft that is not there is not durable");
}

#[test]
fn only_old_drafts_of_ours_are_removed() {
    let home = TempDir::new().unwrap();
    let mut maildir = Maildir::open(home.path()).unwrap();
    let folder = FolderName::for_mailbox("Sent", None).unwrap();
    for (folder, number) in [(&FolderName::inbox(), 1), (&folder, 2)] {
        // Received long ago; that alone does not make a draft old.
        let draft = maildir.begin(folder, &name(number), Some(SystemTime::UNIX_EPOCH)).unwrap();
        maildir.close(draft).unwrap();
    }
    fs::write(home.path().join("tmp/1763772061.4711_1.host"), "another program's").unwrap();
    let names = UniqueNames::new("host", 9, 9);
    let made = fs::metadata(home.path().join("tmp").join(name(1).as_str())).unwrap().ctime();
    let made = SystemTime::UNIX_EPOCH + Duration::from_secs(made.try_into().unwrap());
    assert_eq!(maildir.remove_stale_drafts(&names, made + Duration::from_secs(35 * 3600)).unwrap(), 0);
    assert_eq!(maildir.remove_stale_drafts(&names, made + Duration::from_secs(37 * 3600)).unwrap(), 2);
    assert_eq!(listing(&home.path().join("tmp")), ["1763772061.4711_1.host"]);
}

#[test]
fn a_maildir_that_is_a_file_is_refused_by_name() {
    let home = TempDir::new().unwrap();
    let place = home.path().join("Mail");
    fs::write(&place, "an old mbox").unwrap();
    assert!(matches!(Maildir::open(&place).unwrap_err(), MaildirError::NotADirectory { path } if path == place));
    assert_eq!(fs::read(&place).unwrap(), b"an old mbox");

    let place = home.path().join("other");
    fs::create_dir(&place).unwrap();
    fs::write(place.join("new"), "").unwrap();
    let error = Maildir::open(&place).unwrap_err();
    assert_eq!(error.to_string(), format!("{} is not a directory", place.join("new").display()));
}

#[test]
fn a_missing_parent_is_not_made() {
    let home = TempDir::new().unwrap();
    let error = Maildir::open(home.path().join("unplugged/Mail")).unwrap_err();
    assert!(matches!(error, MaildirError::Io { action: "make", .. }));
    assert!(listing(home.path()).is_empty());
}

#[test]
fn errors_say_whether_trying_again_helps() {
    let told = |errno: Errno| failure("write", Path::new("/m"), errno.into()).to_string();
    assert_eq!(told(Errno::NOSPC), "there is no room for /m");
    assert_eq!(told(Errno::DQUOT), "there is no room for /m");
    assert_eq!(told(Errno::ROFS), "cannot write to /m");
    assert_eq!(told(Errno::ACCESS), "cannot write to /m");
    assert_eq!(told(Errno::IO), "cannot write /m");
}
