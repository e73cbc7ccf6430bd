//! A RabbitMQ of its own, as Debian packages it, and what it got.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use futures::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties, ExchangeKind};
use serde_json::Value;

use crate::process::Process;
use crate::wait::wait_for;

/// The program itself; what is on `PATH` asks to be another user first.
const PROGRAM: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
const QUEUE: &str = "test";
const PORT: u16 = 5672;
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// Erlang on a busy machine.
const STARTS_WITHIN: Duration = Duration::from_secs(120);

/// Ends with its value, with all that it has started.
pub struct Rabbit {
    process: Process,
    ip: String,
}

/// An event as the broker gave it.
pub struct Got {
    pub key: String,
    pub id: String,
    pub persistent: bool,
    pub body: Value,
}

impl Rabbit {
    /// Starts it on loopback with what an earlier one left in the folder. The port is always the same: the network is the
    /// test's own.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start(dir: &Path) -> Self {
        Self::start_at(dir, "127.0.0.1").await
    }

    /// The same on another address of this machine.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start_at(dir: &Path, ip: &str) -> Self {
        let at = |name: &str| -> PathBuf { dir.join(name) };
        // Its one user may come from elsewhere too.
        std::fs::write(at("rabbit.conf"), "loopback_users = none\n").expect("written");
        let mut command = Command::new("unshare");
        // It leaves a daemon behind, which goes with the first process of its own list of processes.
        command.args(["--pid", "--fork", "--kill-child", "--", PROGRAM]);
        command
            .env("HOME", dir)
            .env("RABBITMQ_CONF_ENV_FILE", at("none"))
            .env("RABBITMQ_CONFIG_FILE", at("rabbit.conf"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", at("plugins"))
            .env("RABBITMQ_LOG_BASE", at("log"))
            .env("RABBITMQ_MNESIA_BASE", at("data"))
            .env("RABBITMQ_NODENAME", "test@localhost")
            .env("RABBITMQ_NODE_IP_ADDRESS", ip)
            .env("RABBITMQ_NODE_PORT", PORT.to_string())
            .process_group(0);
        let mut process = Process::start("rabbitmq", &mut command);
        let url = url(ip);
        wait_for("the broker to start", STARTS_WITHIN, || {
            assert!(process.ended().is_none(), "it ended: {}", process.log());
            let url = url.clone();
            // One that is starting takes a connection and says nothing.
            async move {
                let connected = tokio::time::timeout(ANSWERS_WITHIN, connect(&url)).await;
                match connected {
                    Ok(Ok(_)) => Ok(()),
                    Ok(Err(error)) => Err(error.to_string()),
                    Err(_) => Err("no answer".to_owned()),
                }
            }
        })
        .await;
        Self {
            process,
            ip: ip.to_owned(),
        }
    }

    pub fn url(&self) -> String {
        url(&self.ip)
    }

    /// A signal to it and all that it has started.
    ///
    /// # Panics
    /// If it can't.
    pub fn signal(&self, signal: &str) {
        let group = format!("-{}", self.process.pid());
        let kill = Command::new("kill")
            .args(["-s", signal, "--", &group])
            .status();
        assert!(kill.is_ok_and(|status| status.success()), "{signal}");
    }

    /// Ends it, as a machine that is restarted would.
    ///
    /// # Panics
    /// If it can't.
    pub async fn stop(&mut self) {
        self.signal("TERM");
        wait_for("the broker to end", STARTS_WITHIN, || {
            let ended = self.process.ended();
            async move { ended.ok_or("it runs") }
        })
        .await;
    }

    /// Has it keep every event of the server, which may come after this.
    ///
    /// # Panics
    /// If it can't.
    pub async fn bind(&self) {
        let (_connection, channel) = connect(&self.url()).await.expect("a channel");
        let durable = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        let (exchange, none) = ("cloudphone.events", FieldTable::default);
        let declared =
            channel.exchange_declare(exchange.into(), ExchangeKind::Topic, durable, none());
        declared.await.expect("an exchange");
        let durable = QueueDeclareOptions::durable();
        let declared = channel.queue_declare(QUEUE.into(), durable, none());
        declared.await.expect("a queue");
        let options = QueueBindOptions::default();
        let bound = channel.queue_bind(
            QUEUE.into(),
            exchange.into(),
            "media.#".into(),
            options,
            none(),
        );
        bound.await.expect("a binding");
    }

    /// Everything that it has got since the last time, in order.
    ///
    /// # Panics
    /// If it can't.
    pub async fn take(&self) -> Vec<Got> {
        let (_connection, channel) = connect(&self.url()).await.expect("a channel");
        let (durable, none) = (QueueDeclareOptions::durable(), FieldTable::default);
        let queue = channel.queue_declare(QUEUE.into(), durable, none()).await;
        let waiting = queue.expect("the queue").message_count();
        let mut got = Vec::new();
        let options = BasicConsumeOptions::default();
        let consumer = channel.basic_consume(QUEUE.into(), "".into(), options, none());
        let mut messages = consumer.await.expect("a consumer").take(waiting as usize);
        let mut last = None;
        while let Some(message) = messages.next().await {
            let message = message.expect("a message");
            let properties = &message.properties;
            got.push(Got {
                key: message.routing_key.to_string(),
                id: properties.message_id().as_ref().expect("an id").to_string(),
                persistent: *properties.delivery_mode() == Some(2),
                body: serde_json::from_slice(&message.data).expect("JSON"),
            });
            last = Some(message);
        }
        // What came meanwhile stays for the next time.
        if let Some(last) = last {
            let all = BasicAckOptions { multiple: true };
            last.ack(all).await.expect("the broker has it");
        }
        got
    }
}

fn url(ip: &str) -> String {
    format!("amqp://guest:guest@{ip}:{PORT}/%2f")
}

async fn connect(url: &str) -> lapin::Result<(Connection, Channel)> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    Ok((connection, channel))
}
