//! Where the time of a first sync, a join and a no-op goes.
//!
//! Each is run three times: alone, for wall and processor time; under `strace -c -w`, which stops it at calls that wait for
//! the disk and nowhere else; and under `perf record`, whose samples are summed by group. Samples within the kernel count
//! for the system call that led there.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::lab::{Fresh, Lab, unbind};
use crate::measure;
use crate::packetboat::Device;
use crate::peers::is_installed;
use crate::report::Report;
use crate::tree::Shape;
use crate::{Options, Result};

pub(crate) fn run(lab: &Lab, options: &Options) -> Result<Report> {
    let shape = Shape::of(options, 100_000);
    let tree = lab.tree(&shape)?;
    crate::peers::find(&tree)?;
    let mut report = Report::new(
        format!("profile, {}", shape.name()),
        &["stage", "wall s", "cpu s", "cores busy", "in fsync, syncfs s", "where the samples are"],
    );
    let stored = lab.scratch("profile")?;
    let vault = stored.path.join("vault");
    let standing = Device::new(lab, &tree, &vault, &stored.path.join("state"));
    stage(lab, &mut report, "first", &mut || {
        unbind(&tree)?;
        let place = lab.fresh("profile", shape.bytes())?;
        Ok((Device::new(lab, &tree, &place.path.join("vault"), &place.path.join("state")), Some(place)))
    })?;
    unbind(&tree)?;
    standing.sync()?;
    standing.sync()?;
    stage(lab, &mut report, "join", &mut || {
        let place = lab.fresh("profile", shape.bytes() * 2)?;
        Ok((Device::new(lab, &place.path.join("folder"), &vault, &place.path.join("state")), Some(place)))
    })?;
    stage(lab, &mut report, "noop", &mut || Ok((Device::new(lab, &tree, &vault, &stored.path.join("state")), None)))?;
    for tool in ["perf", "strace"].into_iter().filter(|tool| !is_installed(tool)) {
        report.note(format!("{tool} is not installed, and what it tells was skipped"));
    }
    Ok(report)
}

/// Observes one stage; `prepare` makes a device for each run.
fn stage(
    lab: &Lab,
    report: &mut Report,
    name: &str,
    prepare: &mut dyn FnMut() -> Result<(Device, Option<Fresh>)>,
) -> Result<()> {
    let scratch = lab.scratch("profile-data")?;
    let alone = {
        let (device, _place) = prepare()?;
        device.sync()?.run
    };
    let mut waiting = "?".to_owned();
    if is_installed("strace") {
        let (device, _place) = prepare()?;
        let log = scratch.path.join("strace");
        let calls = "trace=fsync,fdatasync,syncfs,sync_file_range";
        let log_text = log.to_str().ok_or("the directory's path is not UTF-8")?;
        device.sync_under(&["strace", "-f", "-c", "-w", "--seccomp-bpf", "-qq", "-e", calls, "-o", log_text])?;
        waiting = waited(&fs::read_to_string(&log)?);
    }
    let mut groups = "?".to_owned();
    if is_installed("perf") {
        let (device, _place) = prepare()?;
        let data = scratch.path.join("perf.data");
        let data_text = data.to_str().ok_or("the directory's path is not UTF-8")?;
        device.sync_under(&["perf", "record", "-q", "-g", "-e", "cpu-clock", "-F", "499", "-o", data_text, "--"])?;
        groups = summed(&data)?;
    }
    let (wall, cpu) = (alone.wall.as_secs_f64(), alone.cpu.as_secs_f64());
    report.row(vec![
        name.to_owned(),
        format!("{wall:.2}"),
        format!("{cpu:.2}"),
        format!("{:.2}", cpu / wall),
        waiting,
        groups,
    ]);
    Ok(())
}

/// `0.31 (27 calls)`: the seconds and calls of `strace -c -w`, of all threads together.
fn waited(table: &str) -> String {
    let (mut seconds, mut calls) = (0.0, 0);
    for line in table.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if !matches!(fields.last(), Some(&("fsync" | "fdatasync" | "syncfs" | "sync_file_range"))) {
            continue;
        }
        seconds += fields.get(1).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
        calls += fields.get(3).and_then(|field| field.parse::<u64>().ok()).unwrap_or_default();
    }
    format!("{seconds:.2} ({calls} calls)")
}

/// The samples of a recording, in percent by group, greatest first.
fn summed(data: &Path) -> Result<String> {
    let mut script = Command::new("perf");
    script.args(["script", "-F", "ip,sym", "-i"]).arg(data);
    let text = measure::run(&mut script)?.stdout;
    let text = String::from_utf8_lossy(&text);
    let mut groups: BTreeMap<&'static str, usize> = BTreeMap::new();
    let mut all = 0;
    for sample in text.split("\n\n") {
        let symbols: Vec<&str> =
            sample.lines().filter_map(|line| line.trim().split_once(' ')).map(|(_, symbol)| symbol.trim()).collect();
        if !symbols.is_empty() {
            all += 1;
            *groups.entry(group(&symbols)).or_default() += 1;
        }
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let percent = |count: usize| count as f64 * 100.0 / all.max(1) as f64;
    let shown = groups.into_iter().filter(|(_, count)| percent(*count) >= 1.0);
    Ok(shown.map(|(name, count)| format!("{name} {:.0} %", percent(count))).collect::<Vec<_>>().join(", "))
}

/// What a sample counts for: its innermost function, or the system call that it lies in.
fn group(symbols: &[&str]) -> &'static str {
    for symbol in symbols {
        if let Some(call) = symbol.strip_prefix("__x64_sys_").or_else(|| symbol.strip_prefix("__arm64_sys_")) {
            return CALLS.iter().find(|(names, _)| names.contains(&call)).map_or("other calls", |(_, name)| *name);
        }
        if symbol.contains("page_fault") {
            return "page faults";
        }
    }
    let innermost = symbols[0];
    FUNCTIONS
        .iter()
        .find(|(parts, _)| parts.iter().any(|part| innermost.contains(part)))
        .map_or("the rest", |(_, name)| *name)
}

const CALLS: [(&[&str], &str); 8] = [
    (&["read", "pread64", "mmap", "munmap", "madvise", "brk"], "read, memory (kernel)"),
    (&["write", "pwrite64", "writev", "fallocate", "ftruncate"], "write (kernel)"),
    (&["open", "openat", "openat2", "close"], "open, close (kernel)"),
    (&["newfstatat", "statx", "fstat", "newfstat", "getdents64"], "stat, getdents (kernel)"),
    (&["listxattr", "flistxattr", "getxattr", "fgetxattr", "setxattr", "fsetxattr"], "xattrs (kernel)"),
    (&["fchmod", "fchmodat", "chmod", "utimensat"], "modes, times (kernel)"),
    (&["rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir"], "names (kernel)"),
    (&["fsync", "fdatasync", "syncfs", "sync_file_range"], "fsync (kernel)"),
];
const FUNCTIONS: [(&[&str], &str); 7] = [
    (&["blake3"], "hash"),
    (&["fastcdc", "chunker"], "chunk"),
    (&["ZSTD", "HUF_", "FSE_", "HIST_"], "compress"),
    (&["chacha", "poly1305", "salsa"], "encrypt"),
    (&["blake2", "argon2"], "passphrase"),
    (&["sqlite3", "pcache1", "vdbe", "walFrame", "btree"], "index"),
    (&["memcpy", "memmove", "memset", "malloc", "_int_free", "cfree", "realloc"], "memory"),
];
