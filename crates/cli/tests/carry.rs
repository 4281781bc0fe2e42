//! A host without a network and its companion, with the real binary, in network namespaces of their own.

#[path = "common/network.rs"]
#[allow(dead_code, reason = "the tests of mail use the rest")]
mod network;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use network::{Cut, HOST_ON_LINK, Line, Network, Place};

const SETTINGS: &str = "[submission]\nlisten = []\n[link]\nkeep_alive = \"500ms\"\nidle = \"2s\"\nretry = \"1s\"\n\
                        [relay]\n";

/// How often a companion works on what it carries.
const OFTEN: &str = "retry = \"500ms\"\npoll = \"1s\"\n";
const SELDOM: &str = "retry = \"1h\"\npoll = \"1h\"\n";

/// A host and a companion that are paired, and a third device beside the vault. Everything ends when it is dropped.
struct Trio {
    network: Network,
    directory: tempfile::TempDir,
    daemons: BTreeMap<&'static str, Child>,
}

impl Trio {
    fn start() -> Option<Self> {
        Self::start_with(OFTEN)
    }

    fn start_with(relay: &str) -> Option<Self> {
        let network = Network::new()?;
        let mut trio = Self { network, directory: tempfile::tempdir().unwrap(), daemons: BTreeMap::new() };
        for device in ["host", "companion", "third"] {
            fs::create_dir_all(trio.path(device).join("config")).unwrap();
            fs::create_dir_all(trio.path(device).join("files")).unwrap();
            fs::write(trio.path(device).join("config/daemon.toml"), [SETTINGS, relay].concat()).unwrap();
        }
        fs::create_dir(trio.path("vault")).unwrap();
        let mut waiting = trio.command("host", &["pair", "--yes"]).stderr(Stdio::null()).spawn().unwrap();
        let paired = (0..50).any(|_| {
            std::thread::sleep(Duration::from_millis(200));
            trio.command("companion", &["pair", HOST_ON_LINK, "--yes"]).output().unwrap().status.success()
        });
        assert!(paired, "the two are paired");
        assert!(waiting.wait().unwrap().success());
        for device in ["host", "companion"] {
            let daemon = trio.command(device, &["run"]).stderr(Stdio::null()).spawn().unwrap();
            trio.daemons.insert(device, daemon);
        }
        trio.until("the link is up", |trio| trio.json("host", &["paths"])["link"]["up"] == true);
        Some(trio)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, device: &str, arguments: &[&str]) -> Command {
        let place = if device == "host" { Place::Host } else { Place::Companion };
        let mut command = self.network.command(place, env!("CARGO_BIN_EXE_packetboat"));
        command
            .args(arguments)
            .env("HOME", self.path(device))
            .env("PACKETBOAT_STATE_DIR", self.path(device).join("state"))
            .env("PACKETBOAT_CONFIG_DIR", self.path(device).join("config"))
            .env("PACKETBOAT_PASSPHRASE", "correct horse battery")
            .stdin(Stdio::null());
        command
    }

    #[track_caller]
    fn succeeds(&self, device: &str, arguments: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.command(device, arguments).output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert!(status.success(), "{device} {arguments:?}\n{out}\n{err}");
        format!("{out}{err}")
    }

    fn json(&self, device: &str, arguments: &[&str]) -> serde_json::Value {
        let output = self.command(device, &[arguments, &["--json"]].concat()).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    #[track_caller]
    fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !holds(self) {
            assert!(began.elapsed() < Duration::from_secs(30), "not so in time: {what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn sync(&self, device: &str, intermediary: Option<&str>) -> String {
        let folder = self.path(device).join("files");
        let mut arguments = vec!["sync", folder.to_str().unwrap()];
        arguments.extend(intermediary);
        self.succeeds(device, &arguments)
    }
}

impl Drop for Trio {
    fn drop(&mut self) {
        for daemon in self.daemons.values_mut() {
            let _gone = daemon.kill();
            let _ended = daemon.wait();
        }
    }
}

#[test]
fn a_host_without_a_network_is_in_step_through_its_companion() {
    let Some(trio) = Trio::start() else { return };
    trio.network.cut(Line::HostPath, Cut::Unplugged);
    let vault = trio.path("vault");
    let place = vault.to_str().unwrap().to_owned();
    fs::write(trio.path("third").join("files/theirs"), "from the third device").unwrap();
    trio.sync("third", Some(&place));

    // The vault is at a place that only the companion reaches, as far as the host knows.
    let refused = trio.command("host", &["sync", trio.path("host").join("files").to_str().unwrap(), "companion:"]);
    let refused = { refused }.output().unwrap();
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("packetboat carry"), "{refused:?}");
    trio.succeeds("companion", &["carry", &place]);
    fs::write(trio.path("host").join("files/ours"), "from the host").unwrap();
    let told = trio.sync("host", Some("companion:"));
    assert!(told.contains("companion"), "{told}");
    assert_eq!(fs::read_to_string(trio.path("host").join("files/theirs")).unwrap(), "from the third device");
    trio.sync("third", None);
    assert_eq!(fs::read_to_string(trio.path("third").join("files/ours")).unwrap(), "from the host");

    // Neither reaches it now; what the host deposits waits on the companion, and goes up by itself.
    fs::rename(&vault, trio.path("away")).unwrap();
    fs::write(trio.path("host").join("files/later"), "deposited").unwrap();
    trio.sync("host", None);
    let carried = trio.json("companion", &["paths"])["carried"]["vaults"][0].clone();
    assert!(carried["waiting"].as_u64().unwrap() > 0 && carried["reached"] == false, "{carried}");
    assert!(trio.succeeds("companion", &["paths"]).contains("objects wait"));
    fs::rename(trio.path("away"), &vault).unwrap();
    trio.until("nothing waits", |trio| trio.json("companion", &["paths"])["carried"]["vaults"][0]["waiting"] == 0);
    trio.sync("third", None);
    assert_eq!(fs::read_to_string(trio.path("third").join("files/later")).unwrap(), "deposited");
}

#[test]
fn a_vault_that_went_out_of_reach_is_reached_through_the_companion() {
    let Some(trio) = Trio::start() else { return };
    let vault = trio.path("vault");
    let (mount, away) = (trio.path("mount"), vault.to_str().unwrap().to_owned());
    std::os::unix::fs::symlink(&vault, &mount).unwrap();
    fs::write(trio.path("host").join("files/ours"), "directly").unwrap();
    trio.sync("host", Some(mount.to_str().unwrap()));
    // The share is somewhere else now, where the companion finds it and the host does not.
    let moved = trio.path("moved");
    fs::rename(&away, &moved).unwrap();
    trio.succeeds("companion", &["carry", moved.to_str().unwrap()]);
    fs::write(trio.path("host").join("files/ours"), "through the companion").unwrap();
    let told = trio.sync("host", None);
    assert!(told.contains("through the companion companion") || told.contains("is reached through"), "{told}");
    fs::rename(&moved, &away).unwrap();
    fs::write(trio.path("host").join("files/ours"), "directly again").unwrap();
    trio.sync("host", None);
    trio.sync("third", Some(&away));
    assert_eq!(fs::read_to_string(trio.path("third").join("files/ours")).unwrap(), "directly again");
}

#[test]
fn a_member_companion_needs_nothing_but_the_pair() {
    let Some(trio) = Trio::start() else { return };
    trio.network.cut(Line::HostPath, Cut::Unplugged);
    let vault = trio.path("vault");
    let place = vault.to_str().unwrap().to_owned();
    let file = |device: &str, name: &str| trio.path(device).join("files").join(name);
    let reads = |device: &str, name: &str| fs::read_to_string(file(device, name)).unwrap_or_default();
    fs::write(file("third", "theirs"), "from the third device").unwrap();
    trio.sync("third", Some(&place));
    trio.sync("companion", Some(&place));

    // Nobody told the companion to carry anything.
    trio.until("the host hears of the vault", |trio| {
        trio.json("host", &["paths"])["relayed"]["vaults"][0]["member"] == true
    });
    fs::write(file("host", "ours"), "from the host").unwrap();
    let told = trio.sync("host", Some("companion:"));
    assert!(told.contains("put everything at the intermediary"), "{told}");
    assert_eq!(reads("host", "theirs"), "from the third device");
    trio.until("the companion's own folder follows", |_| reads("companion", "ours") == "from the host");
    trio.sync("third", None);
    assert_eq!(reads("third", "ours"), "from the host");

    // What stands in the companion's folder comes when the host asks.
    fs::write(file("companion", "phone"), "from the companion").unwrap();
    trio.sync("host", None);
    assert_eq!(reads("host", "phone"), "from the companion");

    // Neither reaches the vault now: the two are in step with each other, and both say where the packets are.
    fs::rename(&vault, trio.path("away")).unwrap();
    fs::write(file("host", "train"), "written on a train").unwrap();
    let told = trio.sync("host", None);
    assert!(told.contains("until it reaches the vault"), "{told}");
    trio.until("the companion has it", |_| reads("companion", "train") == "written on a train");
    let relayed = trio.json("host", &["paths"])["relayed"]["vaults"][0].clone();
    assert!(relayed["waiting"].as_u64().unwrap() > 0 && relayed["since_ms"].is_u64(), "{relayed}");
    let told = trio.succeeds("host", &["paths"]);
    assert!(told.contains("is a member and does not reach it now") && told.contains("the oldest came"), "{told}");
    fs::rename(trio.path("away"), &vault).unwrap();
    trio.until("nothing waits", |trio| trio.json("host", &["paths"])["relayed"]["vaults"][0]["waiting"] == 0);
    trio.sync("third", None);
    assert_eq!(reads("third", "train"), "written on a train");
}

#[test]
fn a_host_that_reaches_the_vault_first_brings_what_waits_with_its_companion() {
    let Some(trio) = Trio::start() else { return };
    // One vault, which is now where the host finds it, now where the companion does, now where neither does.
    let (ours, theirs, nowhere) = (trio.path("vault"), trio.path("theirs"), trio.path("nowhere"));
    let file = |device: &str, name: &str| trio.path(device).join("files").join(name);
    fs::write(file("host", "first"), "directly").unwrap();
    trio.sync("host", Some(ours.to_str().unwrap()));
    fs::rename(&ours, &theirs).unwrap();
    trio.succeeds("companion", &["carry", theirs.to_str().unwrap()]);
    fs::rename(&theirs, &nowhere).unwrap();
    // What is large goes to a pack, which the host does not make again.
    let large: String = (0..40_000).map(|number| format!("{number:x} ")).collect();
    fs::write(file("host", "large"), &large).unwrap();
    let told = trio.sync("host", None);
    assert!(told.contains("until it reaches the vault"), "{told}");
    // The host's own way comes back, and the link goes.
    trio.network.cut(Line::Link, Cut::Unplugged);
    fs::rename(&nowhere, &ours).unwrap();
    let told = trio.sync("host", None);
    assert!(told.contains("that also waited with the companion"), "{told}");
    trio.sync("third", Some(ours.to_str().unwrap()));
    assert_eq!(fs::read_to_string(file("third", "large")).unwrap(), large);
    // The companion finds all of it there.
    fs::rename(&ours, &theirs).unwrap();
    trio.until("nothing waits", |trio| trio.json("companion", &["paths"])["carried"]["vaults"][0]["waiting"] == 0);
    let carried = trio.json("companion", &["paths"])["carried"]["vaults"][0].clone();
    assert_eq!(carried["aside"], 0, "{carried}");
    fs::rename(&theirs, &ours).unwrap();
    fs::write(file("host", "first"), "again").unwrap();
    trio.sync("host", None);
    trio.sync("third", None);
    assert_eq!(fs::read_to_string(file("third", "first")).unwrap(), "again");
    let devices = trio.json("third", &["devices", "--folder", trio.path("third").join("files").to_str().unwrap()]);
    assert_eq!(devices["devices"].as_array().map(Vec::len), Some(2), "no lane was forked: {devices}");
}

#[test]
fn a_network_that_appears_has_what_waits_put_up_at_once() {
    let Some(trio) = Trio::start_with(SELDOM) else { return };
    let vault = trio.path("vault");
    fs::write(trio.path("third").join("files/first"), "first").unwrap();
    trio.sync("third", Some(vault.to_str().unwrap()));
    trio.succeeds("companion", &["carry", vault.to_str().unwrap()]);
    trio.sync("host", Some("companion:"));
    fs::rename(&vault, trio.path("away")).unwrap();
    trio.network.cut(Line::CompanionPath, Cut::Unplugged);
    fs::write(trio.path("host").join("files/later"), "deposited").unwrap();
    trio.sync("host", None);
    let waiting = |trio: &Trio| trio.json("companion", &["paths"])["carried"]["vaults"][0]["waiting"].clone();
    assert!(waiting(&trio).as_u64().unwrap() > 0);
    fs::rename(trio.path("away"), &vault).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    assert!(waiting(&trio).as_u64().unwrap() > 0, "its time has not come");
    trio.network.mend(Line::CompanionPath);
    trio.until("nothing waits", |trio| waiting(trio) == 0);
}
