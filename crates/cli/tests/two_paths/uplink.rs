//! Nothing for the host leaves by the companion's uplink, which may be metered, while the link serves: packets are counted.

use crate::network::{Cut, Line, Place};
use crate::pair::{BY_COMPANION, BY_HOST, Pair};

#[test]
fn nothing_for_the_host_leaves_by_the_companions_uplink() {
    let Some(mut pair) = Pair::start() else { return };
    if !pair.network.has_nftables() {
        return;
    }
    pair.network.count_packets(Place::Companion, &["way1", "link1"]);
    for _ in 0..10 {
        let id = pair.send();
        pair.arrives_once(&id, BY_HOST);
    }
    pair.until("both are done", |pair| pair.open("host") == 0 && pair.open("companion") == 0);
    let by_link = pair.network.packets(Place::Companion, "link1");
    assert!(by_link > 20, "copies and their ends go by the link: {by_link} packets");
    assert_eq!(pair.network.packets(Place::Companion, "way1"), 0);

    // While the link is cut, nothing looks for the host by another way.
    pair.network.cut(Line::Link, Cut::Unplugged);
    pair.until("the loss is noticed", |pair| pair.json("companion", &["paths"])["link"]["up"] == false);
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(pair.network.packets(Place::Companion, "way1"), 0, "while the link is cut");
    pair.network.mend(Line::Link);
    pair.until("the link is up", |pair| pair.json("host", &["paths"])["link"]["up"] == true);

    // The counter does count: what the companion sends to the server leaves there (a connection and a pipelined mail are
    // five packets, or a few more).
    pair.network.cut(Line::HostPath, Cut::Unplugged);
    let id = pair.send();
    pair.arrives_once(&id, BY_COMPANION);
    assert!(pair.network.packets(Place::Companion, "way1") >= 3);
}
