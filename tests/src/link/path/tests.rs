//! The model on a virtual clock: the same every time.

use std::sync::mpsc;

use super::*;

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn path(conditions: Conditions) -> Path {
    let mut path = Path::new(7);
    path.conditions = conditions;
    path
}

fn rtp(number: u64) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[0] = 0x80;
    bytes[4..].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// Sends `count` datagrams, `spacing` apart, and returns when each entered and left, in the order of
/// leaving.
fn run(path: &mut Path, count: u64, spacing: Duration) -> Vec<(u64, Duration, Duration)> {
    let start = Instant::now();
    let mut left = Vec::new();
    let mut empty = |path: &mut Path, until: Instant| {
        while let Some(due) = path.next_due().filter(|due| *due <= until) {
            let held = path.leave(due).expect("due");
            let entered = spacing * (held.number - 1) as u32;
            left.push((held.number, entered, due - start));
            path.delivered(due, &held);
        }
    };
    for number in 0..count {
        let now = start + spacing * number as u32;
        empty(path, now);
        path.enter(now, 0, &rtp(number));
    }
    empty(path, start + Duration::from_secs(1_000_000));
    left
}

#[test]
fn every_datagram_comes_out_in_order_after_the_delay_and_not_before() {
    let mut path = path(Conditions {
        delay: millis(50),
        ..Conditions::default()
    });
    let start = Instant::now();
    path.enter(start, 3, b"a");
    path.enter(start, 4, b"b");
    assert!(path.leave(start + millis(49)).is_none());
    let legs: Vec<usize> = std::iter::from_fn(|| path.leave(start + millis(50)))
        .map(|held| held.leg)
        .collect();
    assert_eq!(legs, [3, 4]);
}

#[test]
fn alternating_jitter_makes_each_pair_differ_by_just_that() {
    let jitter = Jitter::Alternating(millis(10));
    let mut path = path(Conditions {
        delay: millis(30),
        jitter,
        ..Conditions::default()
    });
    let left = run(&mut path, 1_000, millis(20));
    let delays: Vec<Duration> = left
        .iter()
        .map(|(_, enter, leave)| *leave - *enter)
        .collect();
    for pair in delays.windows(2) {
        assert_eq!(pair[0].abs_diff(pair[1]), jitter.interarrival());
    }
    assert_eq!(delays.iter().min(), Some(&millis(30)));
}

#[test]
fn uniform_jitter_has_the_interarrival_jitter_that_it_says() {
    let jitter = Jitter::Uniform(millis(15));
    let mut path = path(Conditions {
        jitter,
        ..Conditions::default()
    });
    let left = run(&mut path, 20_000, millis(20));
    let delays: Vec<f64> = left
        .iter()
        .map(|(_, enter, leave)| (*leave - *enter).as_secs_f64())
        .collect();
    let difference = |pair: &[f64]| (pair[0] - pair[1]).abs();
    let mean = delays.windows(2).map(difference).sum::<f64>() / (delays.len() - 1) as f64;
    let said = jitter.interarrival().as_secs_f64();
    // Standard error of the mean of 20 000: 0.5 %.
    assert!((mean / said - 1.0).abs() < 0.02, "{mean} s, said {said} s");
}

#[test]
fn jitter_alone_reorders_nothing() {
    let mut path = path(Conditions {
        jitter: Jitter::Uniform(millis(100)),
        ..Conditions::default()
    });
    let left = run(&mut path, 2_000, millis(1));
    assert!(left.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0));
}

#[test]
fn the_share_of_losses_is_the_one_asked_for_and_the_same_each_time() {
    let lossy = Conditions {
        loss: 0.05,
        ..Conditions::default()
    };
    let mut first = path(lossy);
    let left = run(&mut first, 100_000, millis(1));
    let lost = first.tally().of(Kind::Rtp, Fate::Lost);
    // Standard error at 100 000: 0.0007.
    assert!((4_700..5_300).contains(&lost), "{lost} of 100 000");
    assert_eq!(left.len() as u64 + lost, 100_000);
    let again: Vec<u64> = run(&mut path(lossy), 100_000, millis(1))
        .iter()
        .map(|(number, ..)| *number)
        .collect();
    assert!(left.iter().map(|(number, ..)| *number).eq(again));
}

#[test]
fn held_back_datagrams_are_overtaken_and_none_is_lost() {
    let mut path = path(Conditions {
        reorder: Reorder {
            share: 0.1,
            hold: millis(5),
        },
        ..Conditions::default()
    });
    let left = run(&mut path, 10_000, millis(2));
    assert_eq!(left.len(), 10_000);
    let overtaken = left.windows(2).filter(|pair| pair[0].0 > pair[1].0).count();
    assert!((850..1_150).contains(&overtaken), "{overtaken} of 10 000");
}

#[test]
fn a_narrow_place_spaces_datagrams_and_drops_what_its_queue_cannot_take() {
    // 40 bytes with headers, at 32 kbit/s: 10 ms each; the queue takes five.
    let mut path = path(Conditions {
        rate: Some(Rate {
            bits_per_second: 32_000,
            queue_bytes: 200,
        }),
        ..Conditions::default()
    });
    let start = Instant::now();
    for number in 0..8 {
        path.enter(start, 0, &rtp(number));
    }
    assert_eq!(path.tally().of(Kind::Rtp, Fate::QueueFull), 3);
    for number in 1..=5 {
        assert_eq!(path.next_due(), Some(start + millis(10 * number)));
        path.leave(start + millis(10 * number)).expect("due");
    }
    path.enter(start + millis(45), 0, &rtp(9));
    assert_eq!(
        path.next_due(),
        Some(start + millis(60)),
        "behind the fifth"
    );
    assert_eq!(path.tally().all(Fate::QueueFull), 3);
}

#[test]
fn a_rule_drops_what_it_picks_and_a_watcher_sees_every_fate() {
    let mut path = path(Conditions::default());
    let (seen, watched) = mpsc::channel();
    path.rule = Some(Box::new(|datagram| datagram.number == 2));
    path.watcher = Some(Box::new(move |at| {
        seen.send((at.datagram.number, at.fate)).expect("open");
    }));
    run(&mut path, 3, millis(1));
    path.dark = true;
    path.enter(Instant::now(), 0, &rtp(4));
    let fates: Vec<(u64, Fate)> = watched.try_iter().collect();
    assert_eq!(
        fates,
        [
            (1, Fate::Delivered),
            (2, Fate::Chosen),
            (3, Fate::Delivered),
            (4, Fate::Blackout)
        ]
    );
}

#[test]
fn a_shorter_delay_lets_nothing_overtake() {
    let mut path = path(Conditions {
        delay: millis(100),
        ..Conditions::default()
    });
    let start = Instant::now();
    path.enter(start, 0, &rtp(1));
    path.conditions.delay = Duration::ZERO;
    path.enter(start + millis(1), 0, &rtp(2));
    let order: Vec<u64> = std::iter::from_fn(|| path.leave(start + millis(100)))
        .map(|held| held.number)
        .collect();
    assert_eq!(order, [1, 2]);
}

#[test]
fn what_is_on_its_way_is_bounded_and_counted() {
    let mut path = path(Conditions {
        delay: millis(1_000),
        ..Conditions::default()
    });
    let start = Instant::now();
    for number in 0..MAX_HELD as u64 + 10 {
        path.enter(start, 0, &rtp(number));
    }
    assert_eq!(path.tally().all(Fate::Overflow), 10);
    assert_eq!(path.held.len(), MAX_HELD);
}

#[test]
fn datagrams_are_told_apart_as_the_rfcs_have_it() {
    let kinds = [
        (&[0, 1][..], Kind::Stun),
        (&[22, 254], Kind::Dtls),
        (&[0x80, 96], Kind::Rtp),
        // With the marker bit, a payload type of 127 is no RTCP.
        (&[0x90, 255], Kind::Rtp),
        (&[0x80, 201], Kind::Rtcp),
        (&[0x81, 206], Kind::Rtcp),
        (&[64, 0], Kind::Other),
        (&[], Kind::Other),
    ];
    for (bytes, kind) in kinds {
        assert_eq!(Kind::of(bytes), kind, "{bytes:?}");
    }
}
