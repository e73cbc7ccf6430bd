//! Control messages between viewers and the publisher of their device, on this shard or another.
//!
//! What finds no way is answered to who sent it, and never ends a session. Messages to a peer that is behind
//! wait with its session. Called by the shard's turn; never waits.

use super::State;
use crate::devices::name_of;
use crate::shard::control::{Control, Order, Outcome, ViewerNumber, answer, most, order};
use crate::shard::link::Parcel;
use crate::shard::table::Index;
use media_core::channel::{Message, Unsent};
use media_core::negotiated::Role;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc::Sender;

impl State {
    /// Deals with what a session said of its data channel: messages, and that there is room for what waits.
    pub(super) fn handle_channel(
        &mut self,
        now: Instant,
        index: Index,
        messages: Vec<Message>,
        has_room: bool,
    ) {
        if !messages.is_empty() {
            self.handle_messages(now, index, messages, None);
        }
        if has_room {
            self.send_held(now, index);
        }
    }

    /// `elsewhere`: where answers go, if the messages did not come on the data channel.
    pub(super) fn handle_messages(
        &mut self,
        now: Instant,
        index: Index,
        messages: Vec<Message>,
        elsewhere: Option<Sender<Box<[u8]>>>,
    ) {
        for message in messages {
            let Some(entry) = self.table.entry(index) else {
                return;
            };
            let (role, device) = (entry.role, entry.device.clone());
            let control = entry.control(now);
            control.elsewhere.clone_from(&elsewhere);
            let may_speak = control.may_speak(now);
            let result = match (role, message) {
                _ if !may_speak => Err(Outcome::RateLimited),
                (Role::Viewer, _) if !entry.may_control => Err(Outcome::Forbidden),
                (_, Message::TooLarge) => Err(Outcome::TooLarge),
                (Role::Viewer, Message::Whole(bytes)) => {
                    let viewer = ViewerNumber::new(self.worker.shard, index, entry.generation);
                    order(&bytes, name_of(&device), viewer)
                        .and_then(|order| self.order(now, &device, order))
                }
                (Role::Publisher, Message::Whole(bytes)) => match answer(&bytes) {
                    Some((viewer, bytes)) => {
                        self.worker.control.count(Outcome::Answered);
                        self.route_answer(now, &device, viewer, bytes);
                        Ok(())
                    }
                    None => Err(Outcome::BadRequest),
                },
            };
            if let Err(outcome) = result {
                self.worker.control.count(outcome);
                self.tell(now, index, outcome.error());
            }
        }
    }

    /// Passes a viewer's message on to the shard of its device's publisher.
    fn order(&mut self, now: Instant, device: &Arc<str>, order: Order) -> Result<(), Outcome> {
        let known = self.devices.find(device);
        let Some(known) = known.filter(|known| known.has_publisher()) else {
            return Err(Outcome::NoPublisher);
        };
        match (known.publisher, known.remote_publisher) {
            (Some(publisher), _) => self.order_here(now, publisher, order),
            (None, Some(shard)) => {
                let parcel = Parcel::Order {
                    device: device.clone(),
                    order,
                };
                let link = self.worker.links.get(usize::from(shard));
                match link.is_some_and(|link| link.send(parcel)) {
                    true => Ok(()),
                    false => Err(Outcome::Busy),
                }
            }
            (None, None) => Err(Outcome::NoPublisher),
        }
    }

    /// A message of a viewer on another shard for a publisher here.
    pub(super) fn take_order(&mut self, now: Instant, device: &Arc<str>, order: Order) {
        let viewer = order.viewer;
        let publisher = self.devices.find(device).and_then(|known| known.publisher);
        let result = match publisher {
            Some(publisher) => self.order_here(now, publisher, order),
            None => Err(Outcome::NoPublisher),
        };
        if let Err(outcome) = result {
            self.refuse(now, device, viewer, outcome);
        }
    }

    fn order_here(&mut self, now: Instant, index: Index, order: Order) -> Result<(), Outcome> {
        let Some(entry) = self.table.entry(index) else {
            return Err(Outcome::NoPublisher);
        };
        let waits = entry.control.as_ref().is_some_and(|c| c.is_waiting());
        let session = entry.peer.session();
        let sent = if waits {
            Err(Unsent::Full)
        } else {
            session.send_message(now, &order.bytes, &mut self.out)
        };
        self.schedule(index);
        match sent {
            Ok(()) => {
                self.worker.control.count(Outcome::Forwarded);
                Ok(())
            }
            Err(Unsent::Closed) => Err(Outcome::NoPublisher),
            Err(Unsent::TooLarge) => Err(Outcome::TooLarge),
            Err(Unsent::Full) => {
                let entry = self.table.entry(index).ok_or(Outcome::NoPublisher)?;
                match entry.control(now).wait(order, most(true)) {
                    true => Ok(()),
                    false => Err(Outcome::Busy),
                }
            }
        }
    }

    /// Passes what is for a viewer of a device on to the shard of that viewer.
    fn route_answer(
        &mut self,
        now: Instant,
        device: &Arc<str>,
        viewer: ViewerNumber,
        bytes: Box<[u8]>,
    ) {
        if viewer.shard() == self.worker.shard {
            return self.take_answer(now, device, viewer, bytes);
        }
        let parcel = Parcel::Answer {
            device: device.clone(),
            viewer,
            bytes,
        };
        let link = self.worker.links.get(usize::from(viewer.shard()));
        if !link.is_some_and(|link| link.send(parcel)) {
            self.worker.control.count(Outcome::Undeliverable);
        }
    }

    /// What is for a viewer here. A device can't reach the viewers of another, nor those that may not control
    /// it, or have said nothing.
    pub(super) fn take_answer(
        &mut self,
        now: Instant,
        device: &Arc<str>,
        viewer: ViewerNumber,
        bytes: Box<[u8]>,
    ) {
        let (shard, index) = (self.worker.shard, viewer.index());
        let is_asked = |generation| ViewerNumber::new(shard, index, generation) == viewer;
        let entry = self.table.entry(index);
        let found = entry.filter(|e| e.role == Role::Viewer && e.device == *device);
        let spoke = found.filter(|e| e.may_control && e.control.is_some());
        if spoke.is_some_and(|entry| is_asked(entry.generation)) {
            self.tell(now, index, bytes);
        } else {
            self.worker.control.count(Outcome::Undeliverable);
        }
    }

    /// Counts and answers a message that found no way; what the server itself says to a device is neither.
    fn refuse(&mut self, now: Instant, device: &Arc<str>, viewer: ViewerNumber, outcome: Outcome) {
        if viewer == ViewerNumber::NOBODY {
            return;
        }
        self.worker.control.count(outcome);
        self.route_answer(now, device, viewer, outcome.error());
    }

    /// Tells a session something, now or when its peer has room for it.
    fn tell(&mut self, now: Instant, index: Index, bytes: Box<[u8]>) {
        let Some(entry) = self.table.entry(index) else {
            return;
        };
        let bytes = match &mut entry.control {
            None => bytes,
            Some(control) => match control.send_elsewhere(bytes) {
                Err(bytes) => bytes,
                Ok(true) => return,
                Ok(false) => return self.worker.control.count(Outcome::Undeliverable),
            },
        };
        let waits = entry.control.as_ref().is_some_and(|c| c.is_waiting());
        let session = entry.peer.session();
        let sent = if waits {
            Err(Unsent::Full)
        } else {
            session.send_message(now, &bytes, &mut self.out)
        };
        self.schedule(index);
        let told = match (sent, self.table.entry(index)) {
            (Ok(()), _) => true,
            (Err(Unsent::Full), Some(entry)) => {
                let to_device = entry.role == Role::Publisher;
                let order = Order {
                    viewer: ViewerNumber::NOBODY,
                    is_move: false,
                    bytes,
                };
                entry.control(now).wait(order, most(to_device))
            }
            _ => false,
        };
        if !told {
            self.worker.control.count(Outcome::Undeliverable);
        }
    }

    /// Sends what waited for a session whose peer has room again, or whose channel is gone.
    fn send_held(&mut self, now: Instant, index: Index) {
        while let Some(entry) = self.table.entry(index) {
            let device = entry.device.clone();
            let Some(control) = entry.control.as_mut() else {
                break;
            };
            let Some(first) = control.first() else {
                break;
            };
            let session = entry.peer.session();
            let sent = session.send_message(now, &first.bytes, &mut self.out);
            if sent == Err(Unsent::Full) {
                break;
            }
            let of_device = entry.role == Role::Publisher;
            let Some(order) = control.take_first() else {
                break;
            };
            match (sent, of_device) {
                (Ok(()), true) if order.viewer != ViewerNumber::NOBODY => {
                    self.worker.control.count(Outcome::Forwarded);
                }
                (Ok(()), _) => {}
                (Err(Unsent::TooLarge), true) => {
                    self.refuse(now, &device, order.viewer, Outcome::TooLarge);
                }
                (Err(_), true) => {
                    self.refuse(now, &device, order.viewer, Outcome::NoPublisher);
                }
                (Err(_), false) => self.worker.control.count(Outcome::Undeliverable),
            }
        }
        self.schedule(index);
    }

    /// Answers those who wait for a device that is gone.
    pub(super) fn refuse_waiting(&mut self, now: Instant, device: &Arc<str>, mut control: Control) {
        while let Some(order) = control.take_first() {
            self.refuse(now, device, order.viewer, Outcome::NoPublisher);
        }
    }
}
