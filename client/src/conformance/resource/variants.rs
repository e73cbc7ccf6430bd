//! Rows 10, 11 and 14: offers that are not the usual.

use super::*;

pub(super) async fn check(checks: &mut Checks<'_>) {
    data_channels(checks).await;
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

/// Browsers that also offer data channels must get their media whatever becomes of those. In WHIP nothing is
/// refused alone.
async fn data_channels(checks: &mut Checks<'_>) {
    let (session, answer) = post(checks, Variant::DataChannels).await;
    let name = match checks.protocol {
        Protocol::Whip => "data channels beside media are taken or refused as a whole",
        Protocol::Whep => "an offer of data channels beside media is taken",
    };
    let Some(session) = session else {
        let (right, seen) = answer.map_or((false, String::new()), |answer| {
            (
                answer.is_refusal() && checks.protocol == Protocol::Whip,
                answer.seen(),
            )
        });
        return checks.expect(14, Level::Should, name, right, seen);
    };
    let sdp = session.sdp();
    let (refused, lines) = (sdp.refused(), sdp.media.len());
    let port = sdp.value("sctp-port").unwrap_or("none").to_owned();
    let accepted = refused == 0 && port.parse().is_ok_and(|port: u16| port > 0);
    let right = lines == 3 && (accepted || checks.protocol == Protocol::Whep && refused == 1);
    let seen = format!("201 with {lines} m-lines, {refused} of them refused, sctp-port {port}");
    checks.expect(14, Level::Should, name, right, seen);
    delete(checks.caller, &session.answer).await;
}
