//! `spec.events`: who is told of sessions and recordings. Types only.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{SecretKeyRef, rule};

/// Who is told of sessions and recordings. Default: nobody. Anything here needs a media server of the operator's version: where
/// the pod has an older image, set `image` or `rollout.onOperatorUpgrade: Roll` with it.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rule("(self.webhookURL == '') != has(self.webhookSecretRef)", "events.webhookURL and events.webhookSecretRef go together: whoever gets events has to know that they are yours")))]
pub struct Events {
    /// https address that each event is posted to, signed as Standard Webhooks asks. Default "": none. A change
    /// replaces the pod.
    #[serde(rename = "webhookURL")]
    #[schemars(extend("x-kubernetes-validations" = rule("self == '' || (self.size() <= 2048 && self.matches('^https://[^@ ]+$'))", "webhookURL must start with https:// and have no user name, such as https://events.example.com/media")))]
    pub webhook_url: String,

    /// Secret that they are signed with: text, or `whsec_` and base64. A change of the reference replaces the pod;
    /// one of the Secret doesn't.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook_secret_ref: Option<SecretKeyRef>,

    /// Secret with the URL of a RabbitMQ, as `amqps://user:password@broker.example.com/vhost`: each event goes to its
    /// exchange `cloudphone.events`. Default: none. A change of the reference replaces the pod; one of the
    /// Secret is used at the next connection.
    #[serde(rename = "amqpURLSecretRef", skip_serializing_if = "Option::is_none")]
    pub amqp_url_secret_ref: Option<SecretKeyRef>,
}
