//! The closing words of a round.

use std::time::Duration;

use packetboat_core::ids::DeviceId;
use packetboat_engine::replica::{Received, Report};
use packetboat_storage::counting::Traffic;
use serde_json::{Value, json};

use crate::commands::repair::put_back;
use crate::text;
use crate::way::WithCompanion;

/// A finished round, and what is said around it.
pub(crate) struct Summary<'a> {
    /// Where the intermediary is, for people.
    pub(crate) intermediary: String,
    /// This device.
    pub(crate) device: DeviceId,
    /// Its name.
    pub(crate) device_name: String,
    /// The state number, where it is known.
    pub(crate) state: Option<String>,
    /// What the round did.
    pub(crate) report: &'a Report,
    /// What it asked of the intermediary.
    pub(crate) traffic: Traffic,
    /// What waits with the companion, where the round went by it.
    pub(crate) with_companion: Option<&'a WithCompanion>,
    /// How long it took.
    pub(crate) elapsed: Duration,
}

impl Summary<'_> {
    /// Objects that were left for the next round.
    fn waiting(&self) -> u64 {
        self.report.sent.postponed + self.report.received.waiting
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let (report, traffic) = (self.report, &self.traffic);
        let state = self.state.as_ref().map(|state| format!(", state {state}")).unwrap_or_default();
        let standing = if self.waiting() == 0 { "In step with" } else { "Not yet in step with" };
        let mut lines = vec![format!(
            "{standing} {} (device \"{}\"{state})",
            self.intermediary,
            text::plain(self.device_name.as_bytes())
        )];
        let counts = Counts::sent(report);
        let up = changes(&counts);
        lines.push(match report.published.packets {
            0 => format!("  up         {up}"),
            // As when a conflict is settled or this device renamed.
            packets if counts.nothing() => {
                format!(
                    "  up         nothing from this folder; published {}",
                    text::count(packets, "packet", "packets")
                )
            }
            packets => {
                let packs = match report.published.packs {
                    0 => String::new(),
                    packs => format!(", {}", text::count(packs, "pack", "packs")),
                };
                let packets = text::count(packets, "packet", "packets");
                // How many bytes went is said of the requests: they are the tip's as well, and padded.
                format!("  up         {up}, in {packets}{packs}")
            }
        });
        let down = Counts::received(&report.received);
        let packets = text::count(report.packets_learned, "packet", "packets");
        lines.push(match (report.packets_learned, down.nothing(), report.received.bytes_written) {
            (0, ..) => format!("  down       {}", changes(&down)),
            // As when somebody renames a device, or writes what is ignored here.
            (_, true, _) => format!("  down       nothing for this folder; learned {packets}"),
            (_, false, 0) => format!("  down       {}, from {packets}", changes(&down)),
            (_, false, written) => format!("  down       {}; {} from {packets}", changes(&down), text::bytes(written)),
        });
        match self.with_companion {
            Some(WithCompanion { name, waiting: 0, .. }) => {
                lines.push(format!("  companion  {name} put everything at the intermediary"));
            }
            Some(WithCompanion { name, waiting, waiting_bytes, .. }) => {
                let (objects, bytes) = (text::count(*waiting, "object", "objects"), text::bytes(*waiting_bytes));
                let verb = if *waiting == 1 { "waits" } else { "wait" };
                lines.push(format!("  companion  {objects} ({bytes}) {verb} with {name} until it reaches the vault"));
            }
            None => {}
        }
        if let Some(put_back) = put_back(&report.repaired) {
            lines.push(format!("  put back   {put_back} that the intermediary had lost"));
        }
        if report.conflicts > 0 {
            lines.push(format!("  conflicts  {} waiting: see `packetboat conflicts`", report.conflicts));
        }
        if self.waiting() > 0 {
            lines.push(format!("  waiting    {} for the next round: `packetboat status` says why", self.waiting()));
        }
        if report.problems > 0 {
            let problems = text::count(report.problems, "problem", "problems");
            lines.push(format!("  look at    {problems}: see `packetboat status`"));
        }
        if report.specials > 0 {
            let objects = text::count(report.specials, "socket, pipe or device", "sockets, pipes and devices");
            lines.push(format!("  left out   {objects}: `packetboat status` lists them"));
        }
        let deletes = match traffic.deletes {
            0 => String::new(),
            deletes => format!(", {}", text::count(deletes, "removal", "removals")),
        };
        lines.push(format!(
            "  requests   {}, {}, {}{deletes}; {} sent, {} received; {}",
            text::count(traffic.gets, "read", "reads"),
            text::count(traffic.puts, "write", "writes"),
            text::count(traffic.lists, "listing", "listings"),
            text::bytes(traffic.bytes_up),
            text::bytes(traffic.bytes_down),
            text::took(self.elapsed),
        ));
        lines.join("\n") + "\n"
    }

    /// For scripts.
    pub(crate) fn to_json(&self) -> Value {
        let (report, traffic) = (self.report, &self.traffic);
        let mut up = Counts::sent(report).to_json();
        up["bytes_read"] = report.sent.bytes_read.into();
        up["packets"] = report.published.packets.into();
        up["packs"] = report.published.packs.into();
        let mut down = Counts::received(&report.received).to_json();
        down["bytes_written"] = report.received.bytes_written.into();
        down["packets"] = report.packets_learned.into();
        json!({
            "schema": 1,
            "intermediary": self.intermediary,
            "device": self.device.to_string(),
            "device_name": self.device_name,
            "state": self.state,
            "in_step": self.waiting() == 0,
            "up": up,
            "down": down,
            "waiting": self.waiting(),
            "conflicts": report.conflicts,
            "problems": report.problems,
            "left_out": report.specials,
            "companion": self.with_companion.map(|with| json!({
                "name": with.name, "waiting": with.waiting, "waiting_bytes": with.waiting_bytes, "since_ms": with.since_ms,
            })),
            "put_back": {
                "packets": report.repaired.packets,
                "chunks": report.repaired.chunks,
                "checkpoints": report.repaired.checkpoints,
            },
            "rolled_back": report.rolled_back.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "requests": traffic_json(traffic),
            "seconds": self.elapsed.as_secs_f64(),
        })
    }
}

/// What was asked of the intermediary, for scripts.
pub(crate) fn traffic_json(traffic: &Traffic) -> Value {
    json!({
        "reads": traffic.gets,
        "writes": traffic.puts,
        "listings": traffic.lists,
        "removals": traffic.deletes,
        "bytes_sent": traffic.bytes_up,
        "bytes_received": traffic.bytes_down,
    })
}

/// What happened to files one way or the other.
pub(crate) struct Counts {
    created: u64,
    changed: u64,
    moved: u64,
    deleted: u64,
    attributes: u64,
}

impl Counts {
    fn sent(report: &Report) -> Self {
        let sent = &report.sent;
        Self {
            created: sent.created,
            changed: sent.edited,
            moved: sent.moved,
            deleted: sent.deleted,
            attributes: sent.attributes,
        }
    }

    pub(crate) fn received(received: &Received) -> Self {
        Self {
            created: received.created,
            changed: received.edited,
            moved: received.moved,
            deleted: received.deleted,
            attributes: received.attributes,
        }
    }

    /// Whether nothing happened.
    pub(crate) fn nothing(&self) -> bool {
        [self.created, self.changed, self.moved, self.deleted, self.attributes] == [0; 5]
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "new": self.created,
            "changed": self.changed,
            "moved": self.moved,
            "deleted": self.deleted,
            "attributes": self.attributes,
        })
    }
}

/// `12 new, 3 changed`, or `nothing`.
pub(crate) fn changes(counts: &Counts) -> String {
    let kinds = [
        (counts.created, "new"),
        (counts.changed, "changed"),
        (counts.moved, "moved"),
        (counts.deleted, "deleted"),
        (counts.attributes, "with other attributes"),
    ];
    let parts: Vec<_> =
        kinds.iter().filter(|(count, _)| *count > 0).map(|(count, kind)| format!("{count} {kind}")).collect();
    if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use packetboat_engine::{Sent, Totals};

    use super::*;

    fn shown(report: &Report) -> String {
        shown_with(report, None)
    }

    fn shown_with(report: &Report, with_companion: Option<&WithCompanion>) -> String {
        let traffic =
            Traffic { puts: 3, gets: 2, lists: 1, bytes_up: 4_299_161, bytes_down: 1229, ..Traffic::default() };
        let summary = Summary {
            intermediary: "/mnt/stick/documents.vault".to_owned(),
            device: DeviceId([7; 32]),
            device_name: "laptop".to_owned(),
            state: Some("3f2a91c0".to_owned()),
            report,
            traffic,
            with_companion,
            elapsed: Duration::from_millis(840),
        };
        summary.text()
    }

    #[test]
    fn a_busy_round_says_what_went_up_and_what_waits() {
        let report = Report {
            sent: Sent { created: 12, edited: 3, moved: 1, deleted: 2, ..Sent::default() },
            published: Totals { packets: 1, packs: 1, changes: 18 },
            conflicts: 1,
            ..Report::default()
        };
        insta::assert_snapshot!(shown(&report), @r#"
        In step with /mnt/stick/documents.vault (device "laptop", state 3f2a91c0)
          up         12 new, 3 changed, 1 moved, 2 deleted, in 1 packet, 1 pack
          down       nothing
          conflicts  1 waiting: see `packetboat conflicts`
          requests   2 reads, 3 writes, 1 listing; 4.1 MiB sent, 1.2 KiB received; 0.8 s
        "#);
    }

    #[test]
    fn a_round_that_left_something_is_not_in_step() {
        let received = Received { edited: 1, bytes_written: 2048, waiting: 2, ..Received::default() };
        let report = Report { received, packets_learned: 2, problems: 1, ..Report::default() };
        insta::assert_snapshot!(shown(&report), @r#"
        Not yet in step with /mnt/stick/documents.vault (device "laptop", state 3f2a91c0)
          up         nothing
          down       1 changed; 2.0 KiB from 2 packets
          waiting    2 for the next round: `packetboat status` says why
          look at    1 problem: see `packetboat status`
          requests   2 reads, 3 writes, 1 listing; 4.1 MiB sent, 1.2 KiB received; 0.8 s
        "#);
    }

    #[test]
    fn a_round_by_the_companion_says_where_its_packets_are() {
        let with =
            |waiting, waiting_bytes| WithCompanion { name: "phone".to_owned(), waiting, waiting_bytes, since_ms: None };
        let there = shown_with(&Report::default(), Some(&with(0, 0)));
        assert!(there.contains("  companion  phone put everything at the intermediary\n"), "{there}");
        let waits = shown_with(&Report::default(), Some(&with(3, 2048)));
        assert!(
            waits.contains("  companion  3 objects (2.0 KiB) wait with phone until it reaches the vault\n"),
            "{waits}"
        );
    }

    #[test]
    fn what_came_down_is_told_without_empty_figures() {
        let received = Received { deleted: 2, ..Received::default() };
        for (received, down) in [
            (Received::default(), "  down       nothing for this folder; learned 1 packet\n"),
            (received, "  down       2 deleted, from 1 packet\n"),
        ] {
            let report = Report { received, packets_learned: 1, specials: 1, ..Report::default() };
            let shown = shown(&report);
            assert!(shown.contains(down), "{shown}");
            assert!(
                shown.contains("  left out   1 socket, pipe or device: `packetboat status` lists them\n"),
                "{shown}"
            );
        }
    }
}
