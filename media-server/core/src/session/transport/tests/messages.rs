//! The data channel of a session whose offer was ours, against a client of the same SCTP library over the
//! session's own DTLS.

use super::*;
use bytes::Bytes;
use rtc_sctp::{
    Association, AssociationHandle, ClientConfig, DatagramEvent, Endpoint, EndpointConfig, Payload,
    PayloadProtocolIdentifier as Ppid,
};
use rtc_shared::TransportProtocol;
use std::sync::Arc;

struct Client {
    endpoint: Endpoint,
    handle: AssociationHandle,
    association: Association,
}

impl Client {
    fn new(bench: &Bench) -> Client {
        let config = Arc::new(EndpointConfig::new());
        let mut endpoint = Endpoint::new(ELSEWHERE, TransportProtocol::UDP, config, None);
        let (handle, association) = endpoint
            .connect(bench.now, ClientConfig::default(), ELSEWHERE)
            .expect("an association");
        Client {
            endpoint,
            handle,
            association,
        }
    }

    /// Carries packets both ways for a while.
    fn run(&mut self, bench: &mut Bench, session: &mut Viewer, peer: &mut Peer) {
        for _ in 0..50 {
            while let Some(transmit) = self.association.poll_transmit(bench.now) {
                if let Payload::RawEncode(packets) = transmit.message {
                    packets
                        .iter()
                        .for_each(|packet| peer.write(bench.now, packet));
                }
            }
            bench.run(Duration::from_millis(10), session, peer, |_, _| false);
            for packet in std::mem::take(&mut peer.data) {
                let packet = Bytes::from(packet);
                let event = self.endpoint.handle(bench.now, ELSEWHERE, None, packet);
                if let Some((handle, DatagramEvent::AssociationEvent(event))) = event {
                    assert_eq!(handle, self.handle);
                    self.association.handle_event(event);
                }
            }
            self.association.handle_timeout(bench.now);
        }
    }
}

#[test]
fn messages_are_what_a_session_is_there_for_both_ways() {
    let mut bench = Bench::new();
    let mut peer = Peer::new(1, &[GCM], Duration::from_millis(100));
    let (mut config, cells) = bench.config(1, Role::Viewer, &peer);
    config.negotiated.data_channels = Some(DataChannels {
        mid: "1".to_owned(),
        max_message: None,
        opens: true,
    });
    let mut session = Viewer::new(bench.now, config);
    bench.connect(&mut session, &mut peer);
    let mut client = Client::new(&bench);
    client.run(&mut bench, &mut session, &mut peer);
    assert_eq!(
        cells.messages(),
        0,
        "the channel is open, and nothing was said"
    );

    let sent = session.send_message(bench.now, b"to the client", &mut bench.out);
    assert_eq!(sent, Ok(()));
    assert_eq!(cells.messages(), 1);
    let mut stream = client.association.stream(1).expect("that of the server");
    stream
        .write_chunk_with_ppi(bench.now, &Bytes::from_static(b"back"), Ppid::String)
        .expect("written");
    client.run(&mut bench, &mut session, &mut peer);
    assert_eq!(cells.messages(), 2);
}
