//! What each fuzz target does with its bytes, and what must hold whatever they are.
//!
//! Calls the public functions of `media-core` as the server does, and panics where one of them breaks its
//! word. Called by the programs in `targets`, one for each function here.
#![forbid(unsafe_code)]

mod channel;
mod sdp;
mod session;
mod wire;

pub use channel::channel;
pub use sdp::{answer, fragment, offer};
pub use session::session;
pub use wire::{framing, rtcp, rtp, stun, ufrag};

#[cfg(test)]
mod tests {
    type Target = (&'static str, fn(&[u8]));

    /// What a run has found belongs into the corpus: there it is tried with every test run.
    #[test]
    fn what_must_hold_holds_for_every_seed() {
        let targets: [Target; 10] = [
            ("answer", super::answer),
            ("channel", super::channel),
            ("fragment", super::fragment),
            ("framing", super::framing),
            ("offer", super::offer),
            ("rtcp", super::rtcp),
            ("rtp", super::rtp),
            ("session", super::session),
            ("stun", super::stun),
            ("ufrag", super::ufrag),
        ];
        let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
        for (name, target) in targets {
            let seeds = std::fs::read_dir(corpus.join(name)).expect("a folder for each target");
            for seed in seeds {
                let path = seed.expect("an entry").path();
                println!("{}", path.display());
                target(&std::fs::read(&path).expect("a file"));
            }
        }
    }
}
