//! Disturbs runs at their calls, by a seed or every one, and says how many there were and what they cost.

use std::fmt;
use std::time::Instant;

use crate::afterwards::Course;
use crate::calls::{Kind, Point, Ran};
use crate::ground::{DISKS, Disk, Ground};
use crate::scenarios::{SCENARIOS, Scenario};

/// What happens at a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Disturbance {
    /// The process is killed.
    Kill,
    /// The disk fails to write or to sync.
    BadDisk,
    /// The disk has no room.
    FullDisk,
    /// The computer loses power; the stick has another.
    HomeLosesPower,
    /// The stick is pulled.
    StickLosesPower,
    /// Both at once.
    BothLosePower,
}

impl Disturbance {
    /// Whether it can happen at a call.
    fn concerns(self, kind: Kind) -> bool {
        match self {
            Disturbance::BadDisk => matches!(kind, Kind::Write | Kind::Sync),
            Disturbance::FullDisk => matches!(kind, Kind::Write | Kind::Create | Kind::Rename),
            _ => true,
        }
    }

    fn injection(self) -> &'static str {
        match self {
            Disturbance::BadDisk => "error=EIO",
            Disturbance::FullDisk => "error=ENOSPC",
            // The process has to be gone first: what it would do without its disk is no question of ours.
            _ => "signal=KILL",
        }
    }

    fn without_power(self) -> &'static [Disk] {
        match self {
            Disturbance::HomeLosesPower => &DISKS[..1],
            Disturbance::StickLosesPower => &DISKS[1..],
            Disturbance::BothLosePower => &DISKS,
            _ => &[],
        }
    }
}

/// A scenario with its prepared disks kept under its name.
struct Prepared {
    scenario: &'static Scenario,
    course: Course,
    points: Vec<Point>,
}

/// What came of all points.
#[derive(Default)]
struct Tally {
    points: usize,
    /// How many were reached.
    reached: usize,
    /// How many runs went on after an error and ended well.
    passed_over: usize,
    failures: Vec<String>,
}

/// Takes some points by a seed, spread over the scenarios and the disturbances.
pub(crate) fn some_points(test: &str, disturbances: &[Disturbance], default: u64) {
    let Some(ground) = Ground::enter(test) else { return };
    let (wanted, seed) = (number("PACKETBOAT_POINTS", default), number("PACKETBOAT_SEED", 1));
    let began = Instant::now();
    let scenarios = prepared(&ground);
    let mut random = random(seed);
    let mut tally = Tally::default();
    for at in 0..wanted {
        let prepared = &scenarios[at as usize % scenarios.len()];
        let disturbance = disturbances[random(disturbances.len() as u64) as usize];
        let points: Vec<_> = prepared.points.iter().filter(|point| disturbance.concerns(point.kind)).collect();
        // Hundreds of pages go to the index in a row: a row is as likely as a call that stands alone.
        let rows: Vec<_> = points.chunk_by(|one, next| one.goes_on_with(next)).collect();
        let row = rows[random(rows.len() as u64) as usize];
        let point = row[random(row.len() as u64) as usize];
        tally.take(&ground, prepared, disturbance, point);
    }
    println!("seed {seed}: {tally} in {:?}", began.elapsed());
    tally.holds();
}

/// Takes every point of the scenarios that are asked for; of a row, no more than is asked for and its last.
pub(crate) fn every_point(test: &str, disturbances: &[Disturbance]) {
    let Some(ground) = Ground::enter(test) else { return };
    let longest_row = number("PACKETBOAT_ROW", u64::MAX) as usize;
    let mut all = Tally::default();
    for prepared in prepared(&ground) {
        for disturbance in disturbances {
            let began = Instant::now();
            let mut tally = Tally::default();
            let points: Vec<_> = prepared.points.iter().filter(|point| disturbance.concerns(point.kind)).collect();
            let calls = points.len();
            for row in points.chunk_by(|one, next| one.goes_on_with(next)) {
                for (at, point) in row.iter().enumerate() {
                    if at < longest_row || at + 1 == row.len() {
                        tally.take(&ground, &prepared, *disturbance, point);
                    }
                }
            }
            println!(
                "{}, {disturbance:?}: {tally}, of {calls} calls, in {:?}",
                prepared.scenario.name,
                began.elapsed()
            );
            all.points += tally.points;
            all.reached += tally.reached;
            all.failures.append(&mut tally.failures);
        }
    }
    all.holds();
}

fn prepared(ground: &Ground) -> Vec<Prepared> {
    ground.keep("empty");
    let asked = std::env::var("PACKETBOAT_SCENARIO").ok();
    let is_asked = |scenario: &&Scenario| asked.as_ref().is_none_or(|asked| scenario.name == asked);
    SCENARIOS.iter().filter(is_asked).map(|scenario| prepare(ground, scenario)).collect()
}

fn prepare(ground: &Ground, scenario: &'static Scenario) -> Prepared {
    ground.put_back("empty");
    (scenario.prepare)(ground);
    ground.keep(scenario.name);
    let mut points = Vec::new();
    let course = Course::of(ground, scenario, || {
        let (ran, recorded) = ground.record(scenario.device, scenario.arguments);
        points = recorded;
        ran
    });
    for part in scenario.reaches {
        assert!(points.iter().any(|point| point.about.contains(part)), "{}: no call is about {part}", scenario.name);
    }
    Prepared { scenario, course, points }
}

impl Tally {
    fn take(&mut self, ground: &Ground, prepared: &Prepared, disturbance: Disturbance, point: &Point) {
        let Prepared { scenario, course, .. } = prepared;
        ground.put_back(scenario.name);
        let log = ground.beside("disturbed.log");
        let ran = ground.run(scenario.device, scenario.arguments, &point.inject(disturbance.injection(), &log));
        if !disturbance.without_power().is_empty() {
            ground.lose_power(disturbance.without_power());
        }
        self.points += 1;
        let is_error = matches!(disturbance, Disturbance::BadDisk | Disturbance::FullDisk);
        // A run may go on after an error, so its end does not tell whether the call was made.
        let was_refused = || String::from_utf8_lossy(&std::fs::read(&log).unwrap()).contains("(INJECTED)");
        self.reached += usize::from(if is_error { was_refused() } else { ran.code.is_none() });
        if is_error && ran.code == Some(0) {
            self.passed_over += 1;
            println!(
                "  passed over: {}, {disturbance:?} at {} {} ({})",
                scenario.name, point.call, point.number, point.about
            );
        }
        let outcome = told(&ran)
            .and_then(|()| course.nothing_is_half_done(ground))
            .and_then(|()| course.what_was_reported_is_there(ground, scenario, &ran))
            .and_then(|()| course.plain_syncs_settle_it(ground, scenario));
        if let Err(why) = outcome {
            let Point { call, number, about, .. } = point;
            let failure = format!(
                "{}, {disturbance:?} at {call} {number} ({about}): {why}\n  it had said: {}{}",
                scenario.name, ran.stdout, ran.stderr
            );
            println!("{failure}");
            self.failures.push(failure);
        }
    }

    fn holds(&self) {
        assert!(self.failures.is_empty(), "{} of {}:\n{}", self.failures.len(), self.points, self.failures.join("\n"));
        assert!(self.reached * 4 >= self.points * 3, "the calls are made: {} of {}", self.reached, self.points);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { points, reached, passed_over, failures } = self;
        write!(f, "{points} points, {reached} reached, {passed_over} passed over, {} failures", failures.len())
    }
}

/// Whether a run that ended by itself ended as one that its user can read.
fn told(ran: &Ran) -> Result<(), String> {
    match ran.code {
        None | Some(0) => Ok(()),
        Some(1) if ran.stderr.contains("Error: ") && ran.stderr.contains("Hint: ") => Ok(()),
        Some(code) => Err(format!("code {code} and no word of what to do")),
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Numbers below a bound, by a seed (splitmix64).
fn random(mut state: u64) -> impl FnMut(u64) -> u64 {
    move |bound| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}
