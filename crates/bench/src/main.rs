//! `bench`: the figures of docs/benchmarks.md, each measured by one command.
//!
//! A figure drives the real release binary as a subprocess, in turns with the tools that it is compared with
//! (A B A B, so that a slow minute of the computer meets both), and prints medians, ratios and peak memory.
//! Tools that are not installed are left out, and that is said.
//! Nothing here is a test: a target that is missed is reported, and only a wrong result or a failure is an error.

mod figures;
mod lab;
mod measure;
mod packetboat;
mod peers;
mod report;
mod tree;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use crate::lab::Lab;

/// What goes wrong ends the figure, with a sentence.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Measure Packetboat beside the tools that people would use in its place
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Options {
    /// What to measure
    figure: Figure,
    /// How many files [default: 100000; small-edit: 1000; million: 1000000]
    #[arg(long)]
    files: Option<usize>,
    /// Greatest size of a file in bytes; the least is 1 KiB
    #[arg(long, default_value_t = 16 * 1024)]
    max_size: usize,
    /// Put all files into one directory
    #[arg(long)]
    flat: bool,
    /// How often each contestant runs; medians are reported [default: 3; noop: 7; million: 1]
    #[arg(long)]
    runs: Option<usize>,
    /// Size in MiB of the one file of edit (1024) and big-file (4096), and of all files of prune (512)
    #[arg(long)]
    mib: Option<u64>,
    /// How many vaults, each with keys of its own, edit measures
    #[arg(long, default_value_t = 10)]
    vaults: usize,
    /// How many other devices behind catches up with
    #[arg(long, default_value_t = 100)]
    devices: usize,
    /// How many packets of one device behind catches up with
    #[arg(long, default_value_t = 1000)]
    packets: usize,
    /// In noop and million, also run restic, rclone and unison again where nothing changed
    #[arg(long)]
    peers: bool,
    /// Where to work; trees are kept there for the next figure
    #[arg(long)]
    dir: Option<PathBuf>,
    /// The release binary [default: the one that was built beside this program]
    #[arg(long)]
    packetboat: Option<PathBuf>,
    /// Work in plain directories even where fresh file systems could be mounted
    #[arg(long)]
    plain: bool,
    /// Append a row for every target to this file
    #[arg(long)]
    markdown: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Figure {
    /// A sync that finds nothing to do, beside `find -printf`
    Noop,
    /// The first sync of a tree, beside `restic backup` and `rclone copy` to a crypt remote
    First,
    /// A second device from the vault, beside `restic restore` and `sync`
    Join,
    /// The first sync of a full folder whose index was lost, beside reading and hashing it
    LostIndex,
    /// A byte inserted at the front of a large file, and a MiB overwritten in its middle
    #[value(name = "edit-1gib", alias = "edit")]
    Edit,
    /// A directory of many files renamed, here and on another device
    RenameDir,
    /// One small file edited: requests of its author and of two readers
    SmallEdit,
    /// The first sync of one large file, beside `dd conv=fsync`
    BigFile,
    /// First sync, join and no-op of a million files, beside a tenth as many
    Million,
    /// A fifth of a vault let go, beside `restic prune`
    Prune,
    /// A device that was away, when many others made a packet, and one made many
    Behind,
    /// Where the time of a first sync, a join and a no-op goes
    Profile,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let lab = Lab::open(options)?;
    println!("{}", lab.describe());
    let report = match options.figure {
        Figure::Noop => figures::noop::run(&lab, options)?,
        Figure::First => figures::first::run(&lab, options)?,
        Figure::Join => figures::join::run(&lab, options)?,
        Figure::LostIndex => figures::lost_index::run(&lab, options)?,
        Figure::Edit => figures::edit::run(&lab, options)?,
        Figure::RenameDir => figures::rename_dir::run(&lab, options)?,
        Figure::SmallEdit => figures::small_edit::run(&lab, options)?,
        Figure::BigFile => figures::big_file::run(&lab, options)?,
        Figure::Million => figures::million::run(&lab, options)?,
        Figure::Prune => figures::prune::run(&lab, options)?,
        Figure::Behind => figures::behind::run(&lab, options)?,
        Figure::Profile => figures::profile::run(&lab, options)?,
    };
    print!("{report}");
    if let Some(file) = &options.markdown {
        report.append_markdown(file)?;
    }
    Ok(())
}
