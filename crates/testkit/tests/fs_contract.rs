//! Every file system keeps the same contract.

use packetboat_core::name::RelPath;
use packetboat_replica::fs::Fs;
use packetboat_replica::real_fs::RealFs;
use packetboat_testkit::fs_contract::{Abilities, check_fs};
use packetboat_testkit::sim_fs::{CrashModel, SimFs, SimOptions};

fn check_real(fs: &RealFs) {
    // Where temporary files lie may lack extended attributes (older tmpfs) or exchange.
    let root = RelPath::root();
    let probe = |name: &[u8]| RelPath::new(name).unwrap();
    let xattrs = fs.set_xattr(&root, b"user.probe", Some(b"1")).is_ok();
    for name in [b"a", b"b"] {
        fs.mkdir(&probe(name), 0o700).unwrap();
    }
    let exchange = fs.exchange(&probe(b"a"), &probe(b"b")).is_ok();
    check_fs(fs, Abilities { xattrs, exchange });
}

#[test]
fn the_real_file_system_keeps_the_contract() {
    let temp = tempfile::tempdir().unwrap();
    check_real(&RealFs::open(temp.path()).unwrap());
}

#[test]
fn the_real_file_system_keeps_the_contract_without_openat2() {
    let temp = tempfile::tempdir().unwrap();
    check_real(&RealFs::open_name_by_name(temp.path()).unwrap());
}

#[test]
fn the_simulated_file_system_keeps_the_contract() {
    for crash_model in [CrashModel::OrderedMetadata, CrashModel::Anything] {
        let fs = SimFs::new(SimOptions { crash_model, ..SimOptions::default() });
        check_fs(&fs, Abilities { xattrs: true, exchange: true });
    }
}

#[test]
fn a_poor_simulated_file_system_keeps_the_contract() {
    let options = SimOptions {
        capacity: Some(10_000_000),
        no_exchange: true,
        no_xattrs: true,
        no_btime: true,
        no_sync_all: true,
        case_insensitive: true,
        time_granularity: 2_000_000_000,
        ..SimOptions::default()
    };
    check_fs(&SimFs::new(options), Abilities { xattrs: false, exchange: false });
}
