//! Rows 10, 11 and 14: offers that are not the usual.

use super::*;

pub(super) async fn check(checks: &mut Checks<'_>) {
    if checks.protocol == Protocol::Whep {
        return;
    }
    for (variant, name) in [
        (
            Variant::TwoVideos,
            "two tracks of a kind are refused with 422 or 400",
        ),
        (
            Variant::TwoStreams,
            "two MediaStreams are refused with 422 or 400",
        ),
    ] {
        let (session, answer) = post(checks, variant).await;
        let status = session.as_ref().map_or(0, |session| session.answer.status);
        let status = answer.as_ref().map_or(status, |answer| answer.status);
        checks.expect(
            10,
            Level::Must,
            name,
            matches!(status, 400 | 422),
            answer.map_or_else(|| status.to_string(), |answer| answer.seen()),
        );
        if let Some(session) = session {
            delete(checks.caller, &session.answer).await;
        }
    }
    let (session, answer) = post(checks, Variant::UnknownAudio).await;
    let name = "no m-line of an offer is refused alone";
    match (&session, answer) {
        (Some(session), _) => {
            let refused = session.sdp().refused();
            let seen = format!("201 with {refused} m-lines refused");
            checks.expect(14, Level::Should, name, refused == 0, seen);
            delete(checks.caller, &session.answer).await;
        }
        (None, answer) => {
            let (right, seen) = answer.map_or((false, String::new()), |answer| {
                (answer.is_refusal(), answer.seen())
            });
            checks.expect(14, Level::Should, name, right, seen);
        }
    }
    let (session, answer) = post(checks, Variant::Simulcast).await;
    let name = "an offer of simulcast is taken, with no layer that was not offered";
    let Some(session) = session else {
        let seen = answer.map_or_else(String::new, |answer| answer.seen());
        return checks.expect(11, Level::Must, name, false, seen);
    };
    let simulcast = session
        .sdp()
        .value("simulcast")
        .unwrap_or("none")
        .to_owned();
    let layers = simulcast.strip_prefix("recv ").unwrap_or_default();
    let offered = layers
        .split([';', ','])
        .filter(|layer| !layer.is_empty())
        .all(|layer| RIDS.contains(&layer.trim_start_matches('~')));
    checks.expect(
        11,
        Level::Must,
        name,
        offered && !simulcast.starts_with("send"),
        format!("simulcast: {simulcast}"),
    );
    delete(checks.caller, &session.answer).await;
}
