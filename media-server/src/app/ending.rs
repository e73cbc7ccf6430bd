//! The end of sessions: on request, with another session or a socket, or because their time is over.
//!
//! Each end is a task of its own: who asked for it may be gone before it is done, and must not leave a session
//! behind that nobody can end any more. Called by the API and by the app's tasks.

use super::App;
use crate::log::of_session;
use crate::registry::{ANSWER_WITHIN, INACTIVE_AFTER, Record};
use crate::shard::{CloseReason, MailboxError};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often sessions whose time is over are looked for.
const END_OVERDUE_EVERY: Duration = Duration::from_secs(1);

impl App {
    /// Ends a session; `false` if it has ended, or somebody asked for that before.
    ///
    /// # Errors
    /// [`MailboxError`]; the session may live on, and its end may be asked for again.
    pub async fn end(
        self: &Arc<Self>,
        record: &Arc<Record>,
        reason: CloseReason,
    ) -> Result<bool, MailboxError> {
        if !record.begin_ending() {
            return Ok(false);
        }
        let ending = tokio::spawn(end_marked(self.clone(), record.clone(), reason));
        ending.await.expect("ending a session does not panic")
    }

    /// Ends a session for nobody who would hear that its shard takes no order now: then it goes on. `what` is a
    /// label of `media_errors_total`.
    pub async fn end_unasked(
        self: &Arc<Self>,
        record: &Arc<Record>,
        reason: CloseReason,
        what: &'static str,
    ) {
        if let Err(error) = self.end(record, reason).await {
            self.metrics.count("media_errors_total", &["busy", what]);
            let reason = reason.as_str();
            of_session!(warn, record, reason, %error, "session not closed yet");
        }
    }
}

async fn end_marked(
    app: Arc<App>,
    record: Arc<Record>,
    reason: CloseReason,
) -> Result<bool, MailboxError> {
    // One that waits for the answer to our offer is on no shard.
    if let Some(older) = &record.older
        && older.offered.lock().await.take().is_some()
    {
        let ended = app.registry.remove(record.id).is_some();
        if ended {
            app.session_closed(&record, reason, false);
        }
        return Ok(ended);
    }
    let closed = app.shards.close(record.id, reason).await;
    closed.inspect_err(|_| record.resume())
}

/// Ends sessions whose time is over, for ever. One that its shard did not end is tried again at the next look.
pub(super) async fn end_overdue_sessions(app: Arc<App>) {
    let limit = app.config.limits.max_session;
    let mut every = tokio::time::interval(END_OVERDUE_EVERY);
    loop {
        every.tick().await;
        let now = Instant::now();
        let recorded = app.recordings.all_active();
        let recorded: Vec<_> = recorded.iter().map(|r| r.device().clone()).collect();
        app.registry.note_watched(&recorded, now);
        for record in app.registry.sessions() {
            if let Some(reason) = overdue(&record, limit, now) {
                let app = app.clone();
                tokio::spawn(async move { app.end_unasked(&record, reason, "limit").await });
            }
        }
    }
}

/// Tells of the end of those that no shard has ended, once the shards are gone: they wait for the answer to our
/// offer, or their shard hangs.
pub(super) fn end_left(app: &App) {
    for record in app.registry.sessions() {
        if app.registry.remove(record.id).is_some() {
            app.session_closed(&record, CloseReason::Drained, false);
        }
    }
}

/// Why a session's time is over, if it is.
fn overdue(record: &Record, limit: Option<Duration>, now: Instant) -> Option<CloseReason> {
    let age = now.saturating_duration_since(record.created);
    if limit.is_some_and(|limit| age >= limit) {
        Some(CloseReason::Limit)
    } else if age >= ANSWER_WITHIN && record.is_unanswered() {
        Some(CloseReason::SetupTimeout)
    } else {
        (record.look(now) >= INACTIVE_AFTER).then_some(CloseReason::Inactive)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::tests::app;
    use crate::registry::Protocol;
    use crate::registry::tests::{older, unanswered};
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;

    #[tokio::test]
    async fn a_session_whose_end_waits_ends_also_if_who_asked_for_it_goes_away() {
        let app = app().await;
        let record = unanswered(1, "cam");
        app.registry.admit(&record).expect("room");
        let older = record.older.as_ref().expect("of the older API");
        // As while an answer waits for a place.
        let answering = older.offered.lock().await;
        {
            let mut ending = pin!(app.end(&record, CloseReason::Normal));
            let ended = poll_fn(|cx| Poll::Ready(ending.as_mut().poll(cx).is_ready())).await;
            assert!(!ended, "the answer is being dealt with");
        }
        drop(answering);
        // In turn: whoever has it next comes after the end.
        tokio::task::yield_now().await;
        let left = older.offered.lock().await;
        assert!(left.is_none(), "nobody ends it any more");
        assert_eq!(app.registry.totals(), (0, 0));
    }

    #[test]
    fn an_offer_of_ours_waits_half_a_minute_for_its_answer_unless_that_is_being_dealt_with() {
        let record = unanswered(1, "cam");
        let at = |seconds| record.created + Duration::from_secs(seconds);
        record.called(at(29));
        assert_eq!(overdue(&record, None, at(29)), None);
        assert_eq!(
            overdue(&record, None, at(30)),
            Some(CloseReason::SetupTimeout)
        );
        let older = record.older.as_ref().expect("of the older API");
        let mut answering = older.offered.try_lock().expect("nobody has it");
        assert_eq!(overdue(&record, None, at(31)), None);
        *answering = None;
        drop(answering);
        assert_eq!(overdue(&record, None, at(32)), None, "it is answered");
    }

    #[test]
    fn a_session_is_inactive_half_an_hour_after_the_last_packet_message_or_request() {
        let record = older(1, Protocol::Session, "cam", 1);
        let at = |minutes: u64| record.created + Duration::from_secs(60 * minutes);
        let soon = Duration::from_millis(1);
        assert_eq!(overdue(&record, None, at(30) - soon), None);
        assert_eq!(overdue(&record, None, at(30)), Some(CloseReason::Inactive));
        record.cells.note_traffic(1, 0);
        assert_eq!(overdue(&record, None, at(31)), None, "a packet since");
        assert_eq!(overdue(&record, None, at(61) - soon), None);
        assert_eq!(overdue(&record, None, at(61)), Some(CloseReason::Inactive));
        record.cells.note_traffic(1, 1);
        assert_eq!(overdue(&record, None, at(62)), None, "a message since");
        record.called(at(80));
        assert_eq!(overdue(&record, None, at(110) - soon), None, "a request");
        assert_eq!(overdue(&record, None, at(110)), Some(CloseReason::Inactive));
        let limit = Some(Duration::from_secs(600));
        assert_eq!(overdue(&record, limit, at(110)), Some(CloseReason::Limit));
    }
}
