//! Events to a RabbitMQ (AMQP 0-9-1): the exchange, the routing keys and the form of the service that this one replaces.
//!
//! Persistent messages to a durable topic exchange, each confirmed by the broker before it leaves the queue. Holds one
//! connection, made when there is something to send and again after every failure. Called by its queue.

use super::queue::{Sink, Undelivered};
use super::{EventsError, Message, secret};
use crate::config::KeySource;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions};
use lapin::tcp::OwnedTLSConfig;
use lapin::types::FieldTable;
use lapin::uri::AMQPUri;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind, PublisherConfirm,
};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

const EXCHANGE: &str = "cloudphone.events";
/// A connection with exchange and channel, or the broker's word that it has a message on its disk.
const WITHIN: Duration = Duration::from_secs(10);
/// A connection whose broker is gone ends after two of these; one that nobody closed would stay.
const HEARTBEAT_SECONDS: u16 = 10;
/// AMQP's delivery mode of messages that outlive the broker's restart.
const PERSISTENT: u8 = 2;

pub struct Amqp {
    url: KeySource,
    /// Certificates that are trusted beside the system's.
    certificates: Option<String>,
    /// The connection lives as long as this is held.
    open: Option<(Connection, Channel)>,
}

impl Amqp {
    /// # Errors
    /// [`EventsError`] when the URL can't be had.
    pub fn new(url: KeySource, ca_file: Option<&Path>) -> Result<Amqp, EventsError> {
        read(&url)?;
        Ok(Amqp {
            url,
            certificates: ca_file.map(secret).transpose()?,
            open: None,
        })
    }

    async fn channel(&mut self) -> Result<Channel, String> {
        if let Some((_, channel)) = &self.open
            && channel.status().connected()
        {
            return Ok(channel.clone());
        }
        let mut uri = read(&self.url).map_err(|error| error.to_string())?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        let tls = OwnedTLSConfig {
            identity: None,
            cert_chain: self.certificates.clone(),
        };
        let open = timeout(WITHIN, connect(uri, tls)).await;
        let open = open.map_err(|_| "the broker does not answer".to_owned())?;
        let open = open.map_err(|error| error.to_string())?;
        Ok(self.open.insert(open).1.clone())
    }

    async fn publish(&mut self, batch: &[Arc<Message>]) -> (usize, Result<(), String>) {
        let channel = match self.channel().await {
            Ok(channel) => channel,
            Err(error) => return (0, Err(error)),
        };
        let mut confirms = Vec::with_capacity(batch.len());
        for message in batch {
            match timeout(WITHIN, send(&channel, message)).await {
                Ok(Ok(confirm)) => confirms.push(confirm),
                Ok(Err(error)) => return (0, Err(error.to_string())),
                Err(_) => return (0, Err("the broker takes nothing".to_owned())),
            }
        }
        for (taken, confirm) in confirms.into_iter().enumerate() {
            match timeout(WITHIN, confirm).await {
                Ok(Ok(confirmation)) if confirmation.is_ack() => {}
                Ok(Ok(_)) => return (taken, Err("the broker could not keep it".to_owned())),
                Ok(Err(error)) => return (taken, Err(error.to_string())),
                Err(_) => return (taken, Err("the broker confirms nothing".to_owned())),
            }
        }
        (batch.len(), Ok(()))
    }
}

impl Sink for Amqp {
    /// A broker confirms when it has written to its disk, which it does for many at once.
    const BATCH: usize = 64;

    async fn deliver(&mut self, batch: &[Arc<Message>]) -> (usize, Result<(), Undelivered>) {
        let (taken, result) = self.publish(batch).await;
        if result.is_err() {
            // What is not confirmed is sent again in order, on a connection that has nothing under way.
            self.open = None;
        }
        (taken, result.map_err(Undelivered::Failed))
    }
}

async fn connect(uri: AMQPUri, tls: OwnedTLSConfig) -> lapin::Result<(Connection, Channel)> {
    let name = concat!("media-server ", env!("CARGO_PKG_VERSION"));
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let runtime = lapin::runtime::default_runtime()?;
    let connection = Connection::connect_uri_with_config(uri, properties, tls, runtime).await?;
    let channel = connection.create_channel().await?;
    let durable = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    let none = FieldTable::default();
    channel
        .exchange_declare(EXCHANGE.into(), ExchangeKind::Topic, durable, none)
        .await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    Ok((connection, channel))
}

async fn send(channel: &Channel, message: &Message) -> lapin::Result<PublisherConfirm> {
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_delivery_mode(PERSISTENT)
        .with_message_id(message.id.as_str().into());
    let (key, body) = (message.key.into(), message.body.as_bytes());
    let options = BasicPublishOptions::default();
    channel
        .basic_publish(EXCHANGE.into(), key, options, body, properties)
        .await
}

/// Reads the URL, whose password is in no error.
fn read(url: &KeySource) -> Result<AMQPUri, EventsError> {
    let text = match url {
        KeySource::Text(text) => text.clone(),
        KeySource::File(path) => secret(path)?,
    };
    text.parse().map_err(|_| EventsError::Url)
}
