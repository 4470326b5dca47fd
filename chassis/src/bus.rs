//! The bus: between parts of one process, bounded queues with many senders and many receivers;
//! between processes, NATS.

pub mod event_stream;
pub mod inlet;
pub mod nats;
mod publish;
pub mod rpc;
mod survey;
pub mod work_queue;

pub use event_stream::{EventStream, EventStreamOptions, Publication};
pub use inlet::{Arrival, Inlet, InletOptions};
pub use nats::{Nats, NatsError, NatsOptions, Storage};
pub use rpc::{Handler, RequestError, Served, StreamHandler};
pub use work_queue::{
    Consumer, ConsumerOptions, Delivery, Message, PublishError, WorkQueue, WorkQueueOptions,
};

use async_channel::{TryRecvError, TrySendError};

/// Makes a queue for at most `capacity` messages (at least 1).
pub fn queue<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = async_channel::bounded(capacity.max(1));
    (Sender(sender), Receiver(receiver))
}

/// Why a message wasn't queued; it is given back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError<T> {
    /// Only from [`Sender::try_send`].
    #[error("the queue is full")]
    Full(T),
    #[error("the queue is closed")]
    Closed(T),
}

/// The end of a queue where messages go in.
#[derive(Debug)]
pub struct Sender<T>(async_channel::Sender<T>);

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Sender<T> {
    /// Waits for room. Cancel-safe: a dropped call has not queued the message.
    pub async fn send(&self, message: T) -> Result<(), SendError<T>> {
        self.0.send(message).await.map_err(|error| SendError::Closed(error.into_inner()))
    }

    /// Queues the message if there is room.
    pub fn try_send(&self, message: T) -> Result<(), SendError<T>> {
        self.0.try_send(message).map_err(|error| match error {
            TrySendError::Full(message) => SendError::Full(message),
            TrySendError::Closed(message) => SendError::Closed(message),
        })
    }

    /// Messages that wait.
    pub fn depth(&self) -> usize {
        self.0.len()
    }

    /// Refuses what comes from now on; what waits can still be received.
    pub fn close(&self) {
        self.0.close();
    }
}

/// The end of a queue where messages come out. Each message goes to one of its clones.
#[derive(Debug)]
pub struct Receiver<T>(async_channel::Receiver<T>);

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Receiver<T> {
    /// The next message, or nothing when the queue is closed and empty. Cancel-safe.
    pub async fn recv(&self) -> Option<T> {
        self.0.recv().await.ok()
    }

    /// Waits for one message, then takes what else is there, at most `limit` (at least 1) in all.
    /// Adds them to `messages` and returns how many; 0 means closed and empty. Cancel-safe.
    pub async fn recv_many(&self, messages: &mut Vec<T>, limit: usize) -> usize {
        let Ok(first) = self.0.recv().await else {
            return 0;
        };
        messages.push(first);
        1 + self.try_recv_many(messages, limit.saturating_sub(1))
    }

    /// Takes what is there, at most `limit`, and returns how many.
    pub fn try_recv_many(&self, messages: &mut Vec<T>, limit: usize) -> usize {
        let mut taken = 0;
        while taken < limit {
            match self.0.try_recv() {
                Ok(message) => messages.push(message),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
            taken += 1;
        }
        taken
    }

    /// Messages that wait.
    pub fn depth(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_wake_up_takes_many_and_keeps_the_order() {
        let (sender, receiver) = queue(8);
        for n in 0..5 {
            sender.send(n).await.expect("there is room");
        }
        let mut taken = Vec::new();
        assert_eq!(receiver.recv_many(&mut taken, 3).await, 3);
        assert_eq!(receiver.recv_many(&mut taken, 100).await, 2);
        assert_eq!(taken, [0, 1, 2, 3, 4]);
    }

    #[tokio::test]
    async fn a_full_queue_gives_the_message_back() {
        let (sender, receiver) = queue(1);
        sender.try_send(1).expect("there is room");
        assert_eq!(sender.try_send(2), Err(SendError::Full(2)));
        assert_eq!(receiver.recv().await, Some(1));
        sender.try_send(3).expect("there is room again");
    }

    #[tokio::test]
    async fn a_closed_queue_is_emptied_before_it_ends() {
        let (sender, receiver) = queue(4);
        sender.try_send("last").expect("there is room");
        sender.close();
        assert_eq!(sender.send("late").await, Err(SendError::Closed("late")));
        assert_eq!(receiver.recv().await, Some("last"));
        assert_eq!(receiver.recv_many(&mut Vec::new(), 4).await, 0);
    }
}
