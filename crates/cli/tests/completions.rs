//! `packetboat completions`.

mod common;

use common::World;

#[test]
fn every_shell_gets_a_script_and_no_state_is_made() {
    let world = World::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let ran = world.packetboat("laptop", &["completions", shell]).succeeds();
        assert!(ran.stdout.contains("packetboat") && ran.stdout.contains("fail-on-conflicts"), "{shell}");
    }
    assert!(!world.exists("state-laptop") && !world.exists("home"));
    assert_eq!(world.packetboat("laptop", &["completions", "csh"]).run().code, 2);
}
