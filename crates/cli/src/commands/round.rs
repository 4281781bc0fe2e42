//! One round, watched and timed; used by every command that synchronises.

use std::time::{Duration, Instant};

use packetboat_core::ids::DeviceId;
use packetboat_engine::JoinError;
use packetboat_engine::error::{QueryError, SyncError};
use packetboat_engine::ports::Observer;
use packetboat_engine::replica::{Replica, Report};
use packetboat_storage::counting::Traffic;

use crate::failure::Failure;
use crate::opening::{Context, Session};
use crate::progress::Progress;
use crate::state::write_whole;
use crate::summary::Summary;
use crate::text;
use crate::way::WithCompanion;

/// What a round did and cost.
pub(crate) struct Round {
    pub(crate) report: Report,
    device: DeviceId,
    device_name: String,
    state: Option<String>,
    traffic: Traffic,
    with_companion: Option<WithCompanion>,
    elapsed: Duration,
}

impl Round {
    /// The closing words.
    pub(crate) fn summary(&self, session: &Session) -> Summary<'_> {
        Summary {
            intermediary: text::path(&session.intermediary),
            device: self.device,
            device_name: self.device_name.clone(),
            state: self.state.clone(),
            report: &self.report,
            traffic: self.traffic,
            with_companion: self.with_companion.as_ref(),
            elapsed: self.elapsed,
        }
    }
}

/// Runs a round with a progress bar and Ctrl-C.
pub(crate) fn run_round<E: std::error::Error + 'static>(
    context: &Context,
    session: &mut Session,
    work: impl FnOnce(&mut Replica, &mut dyn Observer) -> Result<Report, E>,
) -> Result<Round, Failure> {
    let started = Instant::now();
    session.reached.before_round(context)?;
    let mut progress = Progress::new(context.ui)?;
    let outcome = work(&mut session.replica, &mut progress);
    progress.finish();
    let report = outcome.map_err(|error| with_evidence(session, &error))?;
    let devices = session.replica.devices()?;
    let own = devices.iter().find(|device| device.is_this);
    let name_of = |id: &DeviceId| {
        let known = devices.iter().find(|device| device.device == *id);
        known.map_or_else(|| id.short(), |device| text::plain(device.name.as_bytes()))
    };
    for device in &report.rolled_back {
        context.ui.warn(&format!(
            "the intermediary shows an older state of \"{}\" than was seen before; compare `packetboat status` there",
            name_of(device)
        ));
    }
    Ok(Round {
        device: own.map_or(DeviceId([0; 32]), |device| device.device),
        device_name: own.map_or_else(String::new, |device| device.name.clone()),
        state: Some(report.state.clone()),
        report,
        traffic: session.reached.meter.traffic(),
        with_companion: session.reached.with_companion(),
        elapsed: started.elapsed(),
    })
}

/// The failure of a round; of one that the check after it stopped, the evidence is kept.
fn with_evidence(session: &Session, error: &(dyn std::error::Error + 'static)) -> Failure {
    let sync = error.downcast_ref::<SyncError>().or_else(|| match error.downcast_ref() {
        Some(QueryError::Sync(error)) => Some(error),
        _ => None,
    });
    let Some(SyncError::Inconsistent { evidence, .. }) = sync else { return stopped(error) };
    let shown = text::path(&session.evidence);
    match write_whole(&session.evidence, evidence.as_bytes()) {
        Ok(()) => Failure::of(error).hint(format!(
            "this is a bug, or a disk that lies; nothing was changed by the check. Please report it with {shown}"
        )),
        Err(_) => stopped(error),
    }
}

/// The error of a round, by itself or of a query.
pub(super) fn sync_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a SyncError> {
    if let Some(QueryError::Sync(error)) = error.downcast_ref() {
        return Some(error);
    }
    match error.downcast_ref() {
        Some(JoinError::Sync(error)) => Some(error),
        _ => error.downcast_ref(),
    }
}

/// The failure of a round; being asked to stop is told in other words than an error.
pub(crate) fn stopped(error: &(dyn std::error::Error + 'static)) -> Failure {
    match sync_error(error) {
        Some(SyncError::Interrupted) => Failure::new("stopped").hint("nothing was lost; run again to go on"),
        _ => Failure::of(error),
    }
}
