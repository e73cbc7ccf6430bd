//! Which tests run beside each other: they share a cluster and its operator.
//!
//! A test holds its turn with each MediaService that it applies, beside all others that do. One that stops
//! the operator, takes an API away or counts what the operator does asks for a turn alone at its start.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A test, failed or not, leaves nothing behind it that would be in the way of another. An operator's pod that is
/// one too many may still be ending: at any time one of them leads, and none of these tests asks which.
static TURNS: RwLock<()> = RwLock::new(());

thread_local! {
    /// The turn of the test on this thread: who holds one already does not wait for another.
    static HELD: RefCell<Weak<Turn>> = const { RefCell::new(Weak::new()) };
}

/// Held until it is dropped, on the thread of the test.
#[expect(dead_code, reason = "the guards are held and not looked at")]
pub enum Turn {
    Shared(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

/// A turn beside others, or the one that this test has.
pub fn shared() -> Rc<Turn> {
    HELD.with_borrow(Weak::upgrade).unwrap_or_else(|| {
        let guard = TURNS.read().unwrap_or_else(PoisonError::into_inner);
        hold(Turn::Shared(guard))
    })
}

/// A turn in which no other test runs.
///
/// # Panics
/// If this test has a turn already.
pub fn alone() -> Rc<Turn> {
    assert!(
        HELD.with_borrow(Weak::upgrade).is_none(),
        "a turn alone is asked for first of all"
    );
    let guard = TURNS.write().unwrap_or_else(PoisonError::into_inner);
    hold(Turn::Alone(guard))
}

fn hold(turn: Turn) -> Rc<Turn> {
    let turn = Rc::new(turn);
    HELD.set(Rc::downgrade(&turn));
    turn
}
