//! From a fetching task to the thread that delivers: a queue that bounds the bytes in it, and not only their number.
//!
//! While a batch is made durable nothing is taken from the queue, and most messages are small. So it holds as many of them
//! as come in that time, and the server is kept at work; of large pieces it holds only a few.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinHandle, spawn_blocking};

use super::deliver::{Arrival, DeliverError, Deliverer, Summary};
use super::{FetchedStore, Folders};

/// What a fetching task says to a [`Deliverer`] in another thread.
#[derive(Debug)]
pub enum Delivery {
    /// A message in pieces begins.
    Begin(Arrival),
    /// A piece of it.
    Piece(Vec<u8>),
    /// It has come whole.
    End,
    /// It will not come whole.
    Drop,
    /// A message in one piece.
    Whole(Arrival, Vec<u8>),
}

/// Where a fetching task puts what it fetches; full, it makes the task wait, so that memory stays flat.
#[derive(Clone, Debug)]
pub struct Arrivals {
    waiting: mpsc::Sender<(Delivery, OwnedSemaphorePermit)>,
    room: Arc<Semaphore>,
}

impl Arrivals {
    /// An empty queue: where to put things, and where to take them from, each with the room that it takes until it is
    /// dropped.
    pub fn queue() -> (Self, mpsc::Receiver<(Delivery, OwnedSemaphorePermit)>) {
        let (waiting, coming) = mpsc::channel(WAITING);
        (Self { waiting, room: Arc::new(Semaphore::new(ROOM as usize)) }, coming)
    }

    /// Hands something on, as soon as there is room for it.
    pub async fn send(&self, delivery: Delivery) -> Result<(), Stopped> {
        let bytes = match &delivery {
            Delivery::Piece(bytes) | Delivery::Whole(_, bytes) => bytes.len(),
            Delivery::Begin(_) | Delivery::End | Delivery::Drop => 0,
        };
        // One that is larger than all the room there is waits until nothing else is there.
        let units = u32::try_from(bytes / UNIT + 1).unwrap_or(u32::MAX).min(ROOM);
        let room = self.room.clone().acquire_many_owned(units).await.map_err(|_| Stopped)?;
        self.waiting.send((delivery, room)).await.map_err(|_| Stopped)
    }
}

/// The deliverer takes nothing more; its thread says why at its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the deliverer takes nothing more")]
pub struct Stopped;

/// The thread that delivers: at its end, the deliverer and what it did.
pub type Delivering<S, F> = JoinHandle<(Deliverer<S, F>, Result<Summary, DeliverError>)>;

/// Moves a deliverer to a thread that may wait for disks.
///
/// It ends when every sender is dropped, after it delivered what had come whole, or with the first error.
pub fn deliver_in_background<S, F>(mut deliverer: Deliverer<S, F>) -> (Arrivals, Delivering<S, F>)
where
    S: FetchedStore + Send + 'static,
    F: Folders + Send + 'static,
    F::Draft: Send,
{
    let (arrivals, mut coming) = Arrivals::queue();
    let delivering = spawn_blocking(move || {
        let mut take_all = || {
            while let Some((delivery, _room)) = coming.blocking_recv() {
                match delivery {
                    Delivery::Begin(arrival) => deliverer.begin(arrival)?,
                    Delivery::Piece(bytes) => deliverer.write(&bytes)?,
                    Delivery::End => deliverer.end()?,
                    Delivery::Drop => deliverer.drop_unfinished()?,
                    Delivery::Whole(arrival, bytes) => {
                        deliverer.begin(arrival)?;
                        deliverer.write(&bytes)?;
                        deliverer.end()?;
                    }
                }
            }
            deliverer.drop_unfinished()?;
            deliverer.flush()
        };
        let taken = take_all();
        if taken.is_err() {
            deliverer.give_up();
        }
        let summary = deliverer.summary();
        (deliverer, taken.map(|()| summary))
    });
    (arrivals, delivering)
}

/// How many deliveries wait at most.
const WAITING: usize = 4096;

/// What room is counted in, in bytes: about what a small message takes besides its own.
const UNIT: usize = 1024;

/// So many units may wait: 16 MiB.
const ROOM: u32 = 16 << 10;
