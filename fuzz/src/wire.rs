//! Single datagrams, and the names in them.

use media_core::framing::{Framed, MAX_FRAME, PREFIX, prefix, split};
use media_core::ids::{SessionId, Ufrag};
use media_core::negotiated::{Codec, Extensions};
use media_core::rtcp::{self as control, twcc};
use media_core::rtp::keyframe::starts_keyframe;
use media_core::rtp::numbering::{Numbering, Numbers};
use media_core::rtp::size::picture_size;
use media_core::rtp::{Header, MAX_HEADER, Outgoing, Passed, write_header};
use media_core::stun::{BindingRequest, MAX_ANSWER, is_stun};
use std::net::SocketAddr;

/// The password of RFC 5769, which the seeds are authentic with.
const PWD: &[u8] = b"VOkJxbRl1RmTxUk/WvJxBt";

pub fn stun(data: &[u8]) {
    let Some(request) = BindingRequest::parse(data) else {
        return;
    };
    assert!(
        is_stun(data),
        "what parses is STUN to the demultiplexer too"
    );
    let names = request.local_ufrag.len() + request.remote_ufrag.len();
    assert!(names < data.len());
    request.is_authentic(PWD);
    let mut answer = [0; MAX_ANSWER];
    for from in [
        SocketAddr::from(([192, 0, 2, 1], 1)),
        SocketAddr::from(([0xffff_u16; 8], 65_535)),
    ] {
        let len = request.write_success(from, PWD, &mut answer);
        assert_eq!(answer[8..20], request.transaction());
        assert!(is_stun(&answer[..len]));
        assert!(
            BindingRequest::parse(&answer[..len]).is_none(),
            "no request"
        );
    }
    let len = request.write_forbidden(PWD, &mut answer);
    assert!(is_stun(&answer[..len]));
}

/// Datagrams of a TCP connection: whatever is split is the input, whole and in order.
pub fn framing(data: &[u8]) {
    let mut stream = data.to_vec();
    let mut left = &mut stream[..];
    let mut read = 0;
    loop {
        match split(left) {
            Framed::Datagram(datagram, rest) => {
                assert!(datagram.len() <= MAX_FRAME);
                assert_eq!(prefix(datagram).as_ref(), data[read..].first_chunk());
                assert_eq!(*datagram, data[read + PREFIX..][..datagram.len()]);
                read += PREFIX + datagram.len();
                assert_eq!(*rest, data[read..]);
                left = rest;
            }
            Framed::Incomplete => return assert!(data.len() - read < PREFIX + MAX_FRAME),
            Framed::TooLong => return assert!(data.len() - read >= PREFIX),
        }
    }
}

pub fn ufrag(data: &[u8]) {
    const KEY: [u8; 16] = [7; 16];
    if let Some(ufrag) = Ufrag::verify(&KEY, data) {
        assert_eq!(ufrag.as_str().as_bytes(), data);
        assert!(ufrag.shard() < 64 && ufrag.ordinal() < 4_096);
    }
    // One that we made is known again, and with another tag it is not. Another body has the same tag of
    // 24 bits once in 16 million, which ten minutes of fuzzing find.
    if let Some((random, rest)) = data.split_first_chunk::<6>() {
        let ordinal = rest.first_chunk().map_or(0, |two| u16::from_be_bytes(*two));
        let shard = rest.get(2).copied().unwrap_or(0);
        let ufrag = Ufrag::new(&KEY, ordinal, shard, *random);
        assert_eq!(Ufrag::verify(&KEY, &ufrag.0), Some(ufrag));
        let mut changed = ufrag.0;
        let tag = 12..changed.len();
        let at = tag.start + usize::from(rest.get(3).copied().unwrap_or(0)) % tag.len();
        let to = rest.get(4).copied().unwrap_or(0);
        if changed[at] != to {
            changed[at] = to;
            assert_eq!(Ufrag::verify(&KEY, &changed), None);
        }
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(id) = text.parse::<SessionId>()
    {
        assert_eq!(id.to_string(), text.to_ascii_lowercase());
        assert!(id.shard() < 64 && id.ordinal() < 4_096);
    }
}

pub fn rtp(data: &[u8]) {
    let Some(header) = Header::parse(data) else {
        return;
    };
    let payload = &data[header.len..];
    let codecs = [
        Codec::H264 {
            packetization_mode: 1,
            profile_iop: 0x42e0,
        },
        Codec::Vp8,
        Codec::Vp9 { profile: 0 },
        Codec::Av1 { profile: 0 },
        Codec::Opus,
        Codec::Red,
    ];
    let values: Vec<(u8, &[u8])> = header.extensions(data).collect();
    let descriptor = values.last().map_or(&[][..], |(_, value)| value);
    let by = Numbers {
        picture: header.seq,
        base: header.ssrc as u8,
        frame: header.seq,
    };
    for codec in &codecs {
        starts_keyframe(codec, payload);
        picture_size(codec, payload);
        let numbering = Numbering::read(codec, payload, descriptor);
        let mut copy = payload.to_vec();
        numbering.shift(&Numbers::default(), &mut copy);
        assert_eq!(copy, payload, "by nothing");
        numbering.shift(&by, &mut copy);
        let moved = Numbering::read(codec, &copy, descriptor);
        assert_eq!(
            moved.temporal, numbering.temporal,
            "numbers alone are moved"
        );
    }
    let held: usize = values.iter().map(|(_, value)| value.len() + 1).sum();
    assert!(held <= data.len(), "extensions lie in the packet");

    // What goes to a viewer reads back as it was, in whichever form it has to be written.
    let small = |at: usize| values.get(at).and_then(|(_, value)| value.first().copied());
    let passed = Passed {
        mid: values
            .first()
            .map(|(_, value)| *value)
            .filter(|mid| mid.len() <= 16),
        video_orientation: small(1),
        audio_level: small(2),
        dependency_descriptor: values.last().map(|(_, value)| *value),
        frame_shift: 0,
        transport_seq: None,
    };
    let id = |at: usize| {
        values
            .get(at)
            .map(|(id, _)| *id)
            .filter(|id| (1..15).contains(id))
    };
    let ids = Extensions {
        mid: id(0),
        video_orientation: id(1),
        audio_level: id(2),
        dependency_descriptor: id(3),
        ..Extensions::default()
    };
    let fields = Outgoing {
        padding: header.padding,
        marker: header.marker,
        payload_type: header.payload_type,
        seq: header.seq,
        timestamp: header.timestamp,
        ssrc: header.ssrc,
    };
    let mut out = vec![0; MAX_HEADER];
    let shifted = Passed {
        frame_shift: header.seq,
        ..passed
    };
    let moved = write_header(&mut out, &fields, &ids, &shifted);
    let len = write_header(&mut out, &fields, &ids, &passed).expect("MAX_HEADER is enough");
    assert_eq!(moved, Some(len));
    let back = Header::parse(&out[..len]).expect("what we write, we read");
    assert_eq!(back.len, len);
    assert_eq!(
        (back.seq, back.timestamp, back.ssrc, back.payload_type),
        (
            header.seq,
            header.timestamp,
            header.ssrc,
            header.payload_type
        )
    );
    let written = [
        ids.mid.zip(passed.mid.map(<[u8]>::to_vec)),
        ids.video_orientation
            .zip(passed.video_orientation.map(|v| vec![v])),
        ids.audio_level.zip(passed.audio_level.map(|v| vec![v])),
        ids.dependency_descriptor
            .zip(passed.dependency_descriptor.map(<[u8]>::to_vec)),
    ];
    let written: Vec<(u8, Vec<u8>)> = written
        .into_iter()
        .flatten()
        .filter(|(_, value)| !value.is_empty() && value.len() < 256)
        .collect();
    let read: Vec<(u8, Vec<u8>)> = back
        .extensions(&out[..len])
        .map(|(id, value)| (id, value.to_vec()))
        .collect();
    assert_eq!(read, written);
}

pub fn rtcp(data: &[u8]) {
    let mut items = 0;
    control::read(data, |_| items += 1);
    // The most is a NACK's: a word can name 17 packets.
    assert!(
        items <= 17 * data.len() / 4,
        "{items} of {} bytes",
        data.len()
    );

    let mut statuses = 0;
    twcc::read(data, |feedback| {
        // Malformed ones say so behind what they said before.
        let _ = feedback.for_each(|_, _| statuses += 1);
    });
    assert!(statuses <= twcc::MAX_READ, "{statuses} of one datagram");

    let mut lost: Vec<u16> = data
        .chunks_exact(2)
        .map(|two| u16::from_be_bytes([two[0], two[1]]))
        .collect();
    lost.sort_unstable();
    lost.dedup();
    let mut compound = control::Writer::default();
    compound.nack(1, 7, &lost);
    let mut named = Vec::new();
    control::read(compound.bytes(), |item| match item {
        control::Item::Lost { ssrc: 7, seq } => named.push(seq),
        other => panic!("{other:?} was not written"),
    });
    assert_eq!(named, lost);
}
