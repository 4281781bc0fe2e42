//! The client against Debian's Postfix and Dovecot.

mod servers;

use servers::Servers;

#[test]
fn the_real_servers_start_and_stop() {
    let Some(servers) = Servers::start() else { return };
    assert!(servers.delivered().is_empty());
    assert!(servers.authority().exists());
}
