//! The shard thread: takes commands from its mailbox and owns the sessions.

use super::placement::Placement;
use super::{CloseReason, Command, Event, OpenSession};
use media_core::cells::ShardCells;
use media_core::ids::SessionId;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use tokio::sync::mpsc;

pub(super) fn start(
    shard: u8,
    commands: Receiver<Command>,
    events: mpsc::Sender<Event>,
    placement: Arc<Placement>,
    cells: Arc<ShardCells>,
) -> std::io::Result<()> {
    let mut sessions: HashMap<SessionId, Box<OpenSession>> = HashMap::new();
    std::thread::Builder::new()
        .name(format!("shard-{shard}"))
        .spawn(move || {
            let end = |session: Box<OpenSession>, reason| {
                placement.closed(session.negotiated.role, &session.device, shard, true);
                let _ = events.blocking_send(Event::Closed {
                    id: session.id,
                    reason,
                });
            };
            while let Ok(command) = commands.recv() {
                match command {
                    Command::Open(open, reply) => {
                        placement.opened(open.negotiated.role, &open.device, shard);
                        sessions.insert(open.id, open);
                        let _ = reply.send(());
                    }
                    Command::Close(id, reason, reply) => {
                        let session = sessions.remove(&id);
                        let _ = reply.send(session.is_some());
                        if let Some(session) = session {
                            end(session, reason);
                        }
                    }
                    Command::Shutdown => {
                        sessions
                            .drain()
                            .for_each(|(_, session)| end(session, CloseReason::Drained));
                        return;
                    }
                }
                cells.set_sessions(sessions.len() as u64);
            }
        })?;
    Ok(())
}
