//! Where `packetboat mail setup` keeps a password.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

#[test]
fn without_a_keyring_a_password_is_kept_where_only_its_user_reads_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut setup = Command::new(env!("CARGO_BIN_EXE_packetboat"));
    setup
        .args(["mail", "setup", "--untested", "--password-stdin"])
        .args(["--address", "ann@example.org", "--smtp", "smtp.example.org"])
        .env_clear()
        .env("HOME", directory.path())
        // A directory without a bus, so that no session of whoever runs the test is asked.
        .env("XDG_RUNTIME_DIR", directory.path())
        .stdin(Stdio::piped())
        .stderr(Stdio::piped());
    let mut setup = setup.spawn().unwrap();
    setup.stdin.take().unwrap().write_all(b"s3cret \nmore\n").unwrap();
    let output = setup.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("no keyring"), "{said}");
    let accounts = directory.path().join(".config/packetboat/accounts.toml");
    let text = std::fs::read_to_string(&accounts).unwrap();
    assert!(text.contains("password = \"s3cret \"") && !text.contains("keyring"), "{text}");
    assert_eq!(accounts.metadata().unwrap().permissions().mode() & 0o777, 0o600);
}
