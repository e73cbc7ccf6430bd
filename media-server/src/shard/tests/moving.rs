//! A publisher goes on on the shard whose socket its first check arrived at, and is still found.

use super::checks::{ERROR, SUCCESS, answer, blocking, check, framed_answer, over_tcp, over_udp};
use super::*;

/// Sessions opened until one moves. The kernel sends each to one of two sockets, as good as by chance.
const TRIES: u8 = 64;

fn sessions(shards: &Shards, shard: usize) -> u64 {
    shards.cells()[shard].sessions()
}

/// A publisher opened on shard 0 that is on shard 1 now, and the socket that its check came from.
async fn moved(shards: &Shards) -> (OpenSession, StdSocket) {
    for number in 0..TRIES {
        let open = session(0, number, Role::Publisher);
        let again = session(0, number, Role::Publisher);
        let message = check(&open, &open.pwd, 0);
        shards.open(open).await.expect("taken");
        let asked = shards.clone();
        let socket = blocking(move || {
            let socket = over_udp(&asked, &message);
            assert_eq!(answer(&socket).0, SUCCESS);
            socket
        })
        .await;
        // A call is answered behind what was passed on before it.
        let pin = shards.pin_layer(again.id, LayerPin::default()).await;
        assert_eq!(pin, Ok(true));
        if sessions(shards, 1) == 1 {
            assert_eq!(sessions(shards, 0), 0);
            return (again, socket);
        }
        assert_eq!(shards.close(again.id, CloseReason::Normal).await, Ok(true));
    }
    panic!("all of {TRIES} checks arrived at the socket of the session's own shard");
}

/// Why a session closed; others did before it.
async fn closed(events: &mut mpsc::Receiver<Event>, wanted: SessionId) -> CloseReason {
    loop {
        match next(events).await {
            Event::Closed { id, reason } if id == wanted => return reason,
            Event::Closed { .. } => {}
            event => panic!("nothing connected, but {event:?}"),
        }
    }
}

async fn checked(shards: &Shards, open: &OpenSession, number: u8) -> u16 {
    let (message, asked) = (check(open, &open.pwd, number), shards.clone());
    blocking(move || answer(&over_udp(&asked, &message)).0).await
}

#[tokio::test]
async fn a_publisher_that_moved_is_found_by_calls_and_by_checks_at_any_socket() {
    let (shards, mut events) = start(2);
    let (mut open, socket) = moved(&shards).await;
    for number in 1..=16 {
        assert_eq!(checked(&shards, &open, number).await, SUCCESS);
    }
    let message = check(&open, &open.pwd, 17);
    let asked = shards.clone();
    let over_tcp = blocking(move || framed_answer(&mut over_tcp(&asked, &message))).await;
    assert_eq!(over_tcp, SUCCESS);

    (open.ufrag, open.pwd) = (Ufrag::new(&KEY, 3, 0, [99; 6]), IcePwd::new([99; 24]));
    let credentials = Credentials {
        ufrag: open.ufrag,
        pwd: open.pwd,
        remote_ufrag: "peer".into(),
    };
    assert_eq!(shards.restart(open.id, credentials).await, Ok(true));
    for number in 18..=32 {
        assert_eq!(checked(&shards, &open, number).await, SUCCESS);
    }

    assert_eq!(shards.close(open.id, CloseReason::Normal).await, Ok(true));
    assert_eq!(shards.close(open.id, CloseReason::Normal).await, Ok(false));
    assert_eq!(closed(&mut events, open.id).await, CloseReason::Normal);
    let message = check(&open, &open.pwd, 33);
    socket.send_to(&message, shards.local_addr()).expect("sent");
    assert_eq!(blocking(move || answer(&socket).0).await, ERROR, "403");
    eventually(
        "sessions",
        || sessions(&shards, 0) + sessions(&shards, 1),
        0,
    )
    .await;
}

#[tokio::test]
async fn a_publisher_that_moved_ends_with_the_rest() {
    let (shards, mut events) = start(2);
    let (open, _socket) = moved(&shards).await;
    shards.shutdown().await;
    assert_eq!(closed(&mut events, open.id).await, CloseReason::Drained);
}

#[tokio::test]
async fn viewers_stay_and_publishers_do_not_move_to_a_shard_with_many_more_sessions() {
    let (shards, _events) = start(2);
    for number in 0..20 {
        let open = session(1, 100 + number, Role::Viewer);
        shards.open(open).await.expect("taken");
    }
    for number in 0..20 {
        let role = [Role::Viewer, Role::Publisher][usize::from(number) % 2];
        let open = session(0, number, role);
        let again = session(0, number, role);
        shards.open(open).await.expect("taken");
        assert_eq!(checked(&shards, &again, 0).await, SUCCESS);
        let pin = shards.pin_layer(again.id, LayerPin::default()).await;
        assert_eq!(pin, Ok(true));
        // With one or two sessions shard 0 has too few to give one away.
        assert_eq!(sessions(&shards, 1), 20, "{role:?} {number}");
        assert_eq!(shards.close(again.id, CloseReason::Normal).await, Ok(true));
    }
}
