//! Reads ahead of the writer: a task of its own with a bounded queue.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use crate::binlog::stream::{BinlogStream, StreamError};
use crate::binlog::{Body, Event};

/// Events read ahead.
const EVENTS_MAX: usize = 4096;

/// Kilobytes of row images read ahead; a single larger event takes it all.
const KILOBYTES_MAX: u32 = 16 << 10;

type Item = Result<(Event, u32), StreamError>;

/// The receiving end. Dropping it ends the task.
pub(super) struct Reader {
    events: mpsc::Receiver<Item>,
    room: Arc<Semaphore>,
    task: JoinHandle<()>,
}

/// What an event takes of the room.
fn weight(event: &Event) -> u32 {
    let bytes = match &event.body {
        Body::Rows(rows) => rows.size(),
        Body::Query(query) => query.sql.len(),
        _ => 0,
    };
    u32::try_from(bytes >> 10).map_or(KILOBYTES_MAX, |k| k.min(KILOBYTES_MAX))
}

impl Reader {
    pub(super) fn start(mut stream: BinlogStream) -> Reader {
        let (send, events) = mpsc::channel::<Item>(EVENTS_MAX);
        let room = Arc::new(Semaphore::new(KILOBYTES_MAX as usize));
        let permits = room.clone();
        let task = tokio::spawn(async move {
            loop {
                let item = match stream.next().await {
                    Ok(Some(event)) => {
                        let weight = weight(&event);
                        match permits.acquire_many(weight).await {
                            Ok(permit) => permit.forget(),
                            Err(_) => return,
                        }
                        Ok((event, weight))
                    }
                    Ok(None) => return,
                    Err(e) => Err(e),
                };
                let last = item.is_err();
                if send.send(item).await.is_err() || last {
                    return;
                }
            }
        });
        Reader { events, room, task }
    }

    /// The next event; None at the log's end. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Option<Event>, StreamError> {
        match self.events.recv().await {
            None => Ok(None),
            Some(Err(e)) => Err(e),
            Some(Ok((event, weight))) => {
                self.room.add_permits(weight as usize);
                Ok(Some(event))
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.task.abort();
    }
}
