//! Against a keyring of the tests' own, on a private bus.

use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use zbus::object_server::SignalEmitter;
use zbus::{ObjectServer, interface};

use super::*;

/// A bus that ends with the test; nothing, where there is no dbus-daemon.
struct PrivateBus {
    daemon: Child,
    directory: tempfile::TempDir,
}

impl PrivateBus {
    async fn start() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("bus.conf");
        let address = format!("unix:path={}", directory.path().join("bus").display());
        let text = format!(
            "<busconfig><type>session</type><listen>{address}</listen><auth>EXTERNAL</auth><policy context=\"default\">\
             <allow send_destination=\"*\" eavesdrop=\"true\"/><allow eavesdrop=\"true\"/><allow own=\"*\"/></policy></busconfig>"
        );
        std::fs::write(&config, text).unwrap();
        let option = format!("--config-file={}", config.display());
        let daemon = Command::new("dbus-daemon").args([&option, "--nofork"]).stderr(Stdio::null()).spawn();
        let Ok(daemon) = daemon else {
            println!("skipped: there is no dbus-daemon");
            return None;
        };
        let bus = Self { daemon, directory };
        for _ in 0..100 {
            if bus.directory.path().join("bus").exists() {
                return Some(bus);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the bus did not start");
    }

    fn address(&self) -> String {
        format!("unix:path={}", self.directory.path().join("bus").display())
    }
}

impl Drop for PrivateBus {
    fn drop(&mut self) {
        let _gone = self.daemon.kill();
        let _ended = self.daemon.wait();
    }
}

/// What a keyring holds, and how it behaves.
#[derive(Default)]
struct State {
    items: Vec<(HashMap<String, String>, Vec<u8>)>,
    locked: bool,
    /// Whether its user refuses to unlock it.
    refuses: bool,
    asked: u32,
}

type Shared = Arc<Mutex<State>>;

struct FakeService(Shared);
struct FakeCollection(Shared);
struct FakeItem(Shared, HashMap<String, String>);
struct FakePrompt(Shared);

fn path(text: &str) -> OwnedObjectPath {
    ObjectPath::try_from(text.to_owned()).unwrap().into()
}

#[interface(name = "org.freedesktop.Secret.Service")]
impl FakeService {
    fn open_session(
        &self,
        algorithm: &str,
        _input: OwnedVariant,
    ) -> zbus::fdo::Result<(OwnedVariant, OwnedObjectPath)> {
        if algorithm != "plain" {
            return Err(zbus::fdo::Error::NotSupported("only plain".to_owned()));
        }
        Ok((Variant::from("").try_into_owned().unwrap(), path("/org/freedesktop/secrets/session/1")))
    }

    fn search_items(&self, attributes: HashMap<String, String>) -> (Vec<OwnedObjectPath>, Vec<OwnedObjectPath>) {
        let state = self.0.lock().unwrap();
        let fits = |item: &HashMap<String, String>| attributes.iter().all(|(key, value)| item.get(key) == Some(value));
        let found = state.items.iter().enumerate().filter(|(_, (item, _))| fits(item));
        let found: Vec<_> = found.map(|(at, _)| path(&format!("/org/freedesktop/secrets/item/{at}"))).collect();
        if state.locked { (Vec::new(), found) } else { (found, Vec::new()) }
    }

    fn unlock(&self, objects: Vec<OwnedObjectPath>) -> (Vec<OwnedObjectPath>, OwnedObjectPath) {
        match self.0.lock().unwrap().locked {
            true => (Vec::new(), path("/org/freedesktop/secrets/prompt")),
            false => (objects, path("/")),
        }
    }

    fn read_alias(&self, name: &str) -> OwnedObjectPath {
        path(if name == "default" { "/org/freedesktop/secrets/collection" } else { "/" })
    }
}

#[interface(name = "org.freedesktop.Secret.Collection")]
impl FakeCollection {
    async fn create_item(
        &self,
        properties: HashMap<String, OwnedVariant>,
        secret: (OwnedObjectPath, Vec<u8>, Vec<u8>, String),
        replace: bool,
        #[zbus(object_server)] server: &ObjectServer,
    ) -> (OwnedObjectPath, OwnedObjectPath) {
        let attributes = properties["org.freedesktop.Secret.Item.Attributes"].try_clone().unwrap();
        let attributes: HashMap<String, String> = attributes.try_into().unwrap();
        let at = {
            let mut state = self.0.lock().unwrap();
            assert!(!state.locked, "it was unlocked first");
            if replace {
                state.items.retain(|(item, _)| *item != attributes);
            }
            state.items.push((attributes.clone(), secret.2));
            state.items.len() - 1
        };
        let at = format!("/org/freedesktop/secrets/item/{at}");
        let _there = server.at(at.as_str(), FakeItem(self.0.clone(), attributes)).await.unwrap();
        (path(&at), path("/"))
    }
}

#[interface(name = "org.freedesktop.Secret.Item")]
impl FakeItem {
    fn get_secret(&self, session: OwnedObjectPath) -> zbus::fdo::Result<(OwnedObjectPath, Vec<u8>, Vec<u8>, String)> {
        let state = self.0.lock().unwrap();
        if state.locked {
            return Err(zbus::fdo::Error::AccessDenied("locked".to_owned()));
        }
        let (_, secret) = state.items.iter().find(|(item, _)| *item == self.1).unwrap();
        Ok((session, Vec::new(), secret.clone(), "text/plain".to_owned()))
    }

    fn delete(&self) -> OwnedObjectPath {
        self.0.lock().unwrap().items.retain(|(item, _)| *item != self.1);
        path("/")
    }
}

#[interface(name = "org.freedesktop.Secret.Prompt")]
impl FakePrompt {
    async fn prompt(&self, _window_id: &str, #[zbus(signal_emitter)] emitter: SignalEmitter<'_>) {
        let dismissed = {
            let mut state = self.0.lock().unwrap();
            state.asked += 1;
            state.locked = state.refuses;
            state.refuses
        };
        Self::completed(&emitter, dismissed, Variant::from("").try_into_owned().unwrap()).await.unwrap();
    }

    #[zbus(signal)]
    async fn completed(emitter: &SignalEmitter<'_>, dismissed: bool, result: OwnedVariant) -> zbus::Result<()>;
}

async fn serve(bus: &PrivateBus) -> (Connection, Shared) {
    let state = Shared::default();
    let connection = zbus::connection::Builder::address(bus.address().as_str())
        .serve_at("/org/freedesktop/secrets", FakeService(state.clone()))
        .serve_at("/org/freedesktop/secrets/collection", FakeCollection(state.clone()))
        .serve_at("/org/freedesktop/secrets/prompt", FakePrompt(state.clone()))
        .name("org.freedesktop.secrets")
        .build()
        .await
        .unwrap();
    (connection, state)
}

fn entry(user: &str) -> Entry {
    Entry { server: "smtp.example.org".to_owned(), user: user.to_owned() }
}

#[tokio::test]
async fn a_password_is_kept_replaced_found_and_forgotten() {
    let Some(bus) = PrivateBus::start().await else { return };
    let (_serving, state) = serve(&bus).await;
    let keyring = Keyring::at(&bus.address());
    assert!(keyring.is_there().await);
    assert_eq!(keyring.find(&entry("ann")).await.unwrap(), None);
    keyring.keep(&entry("ann"), "first").await.unwrap();
    keyring.keep(&entry("ann"), "sécret").await.unwrap();
    keyring.keep(&entry("bob"), "other").await.unwrap();
    assert_eq!(state.lock().unwrap().items.len(), 2, "the newer takes the place of the older");
    assert_eq!(keyring.find(&entry("ann")).await.unwrap().as_deref().map(String::as_str), Some("sécret"));
    keyring.forget(&entry("ann")).await.unwrap();
    keyring.forget(&entry("ann")).await.unwrap();
    assert_eq!(keyring.find(&entry("ann")).await.unwrap(), None);
}

#[tokio::test]
async fn a_locked_keyring_asks_its_user_who_may_refuse() {
    let Some(bus) = PrivateBus::start().await else { return };
    let (_serving, state) = serve(&bus).await;
    let keyring = Keyring::at(&bus.address());
    state.lock().unwrap().locked = true;
    keyring.keep(&entry("ann"), "secret").await.unwrap();
    assert_eq!(state.lock().unwrap().asked, 1);
    (state.lock().unwrap().locked, state.lock().unwrap().refuses) = (true, true);
    assert!(matches!(keyring.find(&entry("ann")).await, Err(KeyringError::Dismissed)));
    state.lock().unwrap().refuses = false;
    assert_eq!(keyring.find(&entry("ann")).await.unwrap().as_deref().map(String::as_str), Some("secret"));
}

#[tokio::test]
async fn without_a_keyring_that_is_said() {
    let nowhere = Keyring::at("unix:path=/nonexistent/bus");
    assert!(!nowhere.is_there().await);
    assert!(matches!(nowhere.find(&entry("ann")).await, Err(KeyringError::NoBus(_))));
    let Some(bus) = PrivateBus::start().await else { return };
    let empty = Keyring::at(&bus.address());
    assert!(!empty.is_there().await);
    assert!(matches!(empty.find(&entry("ann")).await, Err(KeyringError::Call(_))));
}
