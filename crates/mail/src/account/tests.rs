use std::io::Write;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::connection::Login;

const FILE: &str = r#"
[[account]]
name = "work"
addresses = ["ann@example.org", "@lists.example.org"]

[account.smtp]
host = "smtp.example.org"
user = "ann"
password_command = "printf 'first\nsecond\n'"
deadlines = { connect = 5, answer = 2.5 }

[account.imap]
host = "imap.example.org"
user = "ann"
password = "secret"

[[account]]
name = "home"
default = true
addresses = ["ann@home.test"]
smtp = { host = "mail.home.test", security = "starttls" }
"#;

fn sender(text: &str) -> ReversePath {
    ReversePath::Mailbox(Address::parse(text).unwrap())
}

fn smtp(lines: &str) -> Result<Accounts, AccountError> {
    Accounts::parse(&format!(
        "[[account]]\nname = \"a\"\naddresses = [\"a@a.test\"]\n[account.smtp]\nhost = \"h\"\n{lines}"
    ))
}

#[test]
fn the_account_is_that_of_the_sender() {
    let accounts = Accounts::parse(FILE).unwrap();
    for (from, name) in [
        (sender("ann@example.org"), "work"),
        (sender("Ann@EXAMPLE.org"), "work"),
        (sender("any@lists.example.org"), "work"),
        (sender("bob@example.org"), "home"),
        (sender("ann@home.test"), "home"),
        (ReversePath::Null, "home"),
    ] {
        assert_eq!(accounts.for_sender(&from).map(|account| account.name.as_str()), Some(name), "{from}");
    }
    let without_default = Accounts::parse(&FILE.replace("default = true", "")).unwrap();
    assert_eq!(without_default.for_sender(&sender("bob@example.org")), None);
}

#[test]
fn what_is_not_told_is_safe() {
    let accounts = Accounts::parse(FILE).unwrap();
    let both: Vec<&Smtp> = accounts.iter().filter_map(|account| account.smtp.as_ref()).collect();
    assert_eq!((both[0].security, both[0].port()), (Security::Tls, 465));
    assert_eq!((both[1].security, both[1].port()), (Security::Starttls, 587));
    assert_eq!(both[0].deadlines.answer, Duration::from_millis(2500));
    assert_eq!(both[0].deadlines.greeting, Deadlines::default().greeting);
    assert_eq!(both[1].deadlines.answer, Duration::from_secs(600));
    assert_eq!(both[1].credentials().unwrap(), None);
    let again = Accounts::parse(&accounts.write().unwrap()).unwrap();
    assert_eq!(again, accounts);
    assert!(!format!("{accounts:?}").contains("secret"), "a password shows in logs");
}

#[test]
fn what_cannot_be_right_is_said_when_the_file_is_read() {
    for (lines, word) in [
        ("user = \"u\"", "password_command"),
        ("user = \"u\"\npassword = \"a\"\npassword_file = \"b\"", "password_command"),
        ("password = \"a\"", "`user`"),
        ("keyring = true", "`user`"),
        ("user = \"u\"\nkeyring = true\npassword = \"a\"", "keyring"),
        ("prot = 25", "prot"),
        ("port = 99999", "port"),
        ("security = \"none\"", "none"),
        ("deadlines = { answer = 0 }", "deadline"),
        ("deadlines = { answer = -1.0 }", "answer"),
        ("deadlines = { reply = 5 }", "reply"),
    ] {
        let error = smtp(lines).expect_err(lines);
        let words = format!("{error}: {:?}", std::error::Error::source(&error).map(ToString::to_string));
        assert!(words.contains(word), "{lines}: {words}");
    }
    for (from, to) in [("\"@lists", "\"@@lists"), ("name = \"home\"", "name = \"work\""), ("[\"ann@home.test\"]", "[]")]
    {
        assert!(matches!(Accounts::parse(&FILE.replace(from, to)), Err(AccountError::Account { .. })), "{to}");
    }
    assert!(Accounts::parse(&FILE.replace("name = \"work\"", "name = \"work\"\ndefault = true")).is_err());
}

async fn login(lines: &str) -> Result<Login, SecretError> {
    let accounts = smtp(&format!("user = \"u\"\n{lines}")).unwrap();
    accounts.iter().next().unwrap().smtp.as_ref().unwrap().credentials().unwrap().unwrap().login().await
}

#[tokio::test]
async fn secrets_come_from_where_they_are_kept() {
    let password = |text: &str| Login::Password { user: "u".to_owned(), password: text.to_owned() };
    assert_eq!(login("password = \"p w\"").await.unwrap(), password("p w"));
    assert_eq!(login("password_command = \"echo ' p w'; echo more\"").await.unwrap(), password(" p w"));
    let token = Login::Token { user: "u".to_owned(), token: "t".to_owned() };
    assert_eq!(login("token_command = \"printf t\"").await.unwrap(), token);
    assert!(matches!(login("password_command = \"echo p; exit 3\"").await, Err(SecretError::Status { .. })));
    assert!(matches!(login("password_command = \"true\"").await, Err(SecretError::Empty)));
    assert!(!format!("{:?} {token:?}", password("hidden")).contains("hidden"));
}

#[cfg(unix)]
#[tokio::test]
async fn a_password_file_that_others_can_read_is_not_used() {
    use std::os::unix::fs::PermissionsExt;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "from a file").unwrap();
    let lines = format!("password_file = {:?}", file.path());
    let found = login(&lines).await.unwrap();
    assert_eq!(found, Login::Password { user: "u".to_owned(), password: "from a file".to_owned() });
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(login(&lines).await, Err(SecretError::Readable { .. })));
    std::fs::remove_file(file.path()).unwrap();
    assert!(matches!(login(&lines).await, Err(SecretError::File { .. })));
}

#[tokio::test]
async fn a_check_says_in_words_what_is_wrong() {
    let accounts = smtp("port = 1\nuser = \"u\"\npassword_command = \"exit 1\"").unwrap();
    let trying = Trying { hello: "laptop.test", source: None, connect: std::time::Duration::from_secs(5) };
    let checked = check(accounts.iter().next().unwrap(), trying).await;
    let problem = checked.smtp.unwrap().unwrap_err();
    assert_eq!(
        problem.in_words(),
        "the password cannot be found: the command that knows the password failed: exit status: 1"
    );
}

proptest! {
    #[test]
    fn no_file_panics(text in "\\PC{0,80}|(\\[\\[?account(\\.smtp)?\\]\\]?\n|[a-z_]{1,9} = (\"[a-z@.]{0,9}\"|\\[\\]|[0-9.-]{1,5})\n){0,8}") {
        let _ = Accounts::parse(&text);
    }
}
