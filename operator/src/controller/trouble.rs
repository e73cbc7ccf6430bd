//! What is wrong with the pods, in words for a condition. Pure.
//!
//! The kubelet and the controllers of Kubernetes say it in container states, pod conditions and
//! events; here the first that explains the absence of a ready pod becomes one reason and message.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt;

use super::build::meta;
use super::fetch::{Fetched, is_ready};
use super::validate::ValidService;
use super::{Error, with_sources};
use crate::capabilities::{Absence, Availability, OptionalApi};

/// Reason and message of the condition Degraded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    pub reason: &'static str,
    pub message: String,
}

impl Trouble {
    /// What went wrong, in the words of the API server: the reason of the first, and the messages of all.
    pub fn of(errors: &[Error]) -> Option<Self> {
        let reason = errors.first()?.reason();
        let messages: Vec<String> = errors.iter().map(|error| with_sources(error)).collect();
        Some(Self {
            reason,
            message: messages.join("; "),
        })
    }
}

/// The first explanation, or `None` while all is well or merely on its way.
pub fn find(fetched: &Fetched, service: &ValidService) -> Option<Trouble> {
    fetched
        .pods
        .iter()
        .filter(|pod| !is_ready(pod) && pod.metadata.deletion_timestamp.is_none())
        .find_map(|pod| of_pod(pod).or_else(|| of_pod_events(fetched, service, pod)))
        .or_else(|| of_stateful_set_events(fetched, service))
}

/// An API that the spec asks for and the cluster has not, or whose objects it does not show.
pub fn missing_api(service: &ValidService) -> Option<Trouble> {
    let signalling = &service.spec.signalling;
    let is_asked = |api: &OptionalApi| match api {
        // Has a condition of its own.
        OptionalApi::Monitoring => false,
        OptionalApi::Gateway => signalling.http_route.is_some(),
        OptionalApi::CertManager => signalling.certificate_issuer_ref.is_some(),
    };
    let found = |api: OptionalApi| (api, service.served.get(api));
    let (api, availability) = OptionalApi::ALL
        .into_iter()
        .filter(is_asked)
        .map(found)
        .find(|(_, availability)| *availability != Availability::Present)?;
    let (name, Absence { field, lost, fix }) = (api.group_version(), api.absence());
    Some(if availability == Availability::Absent {
        Trouble {
            reason: "CRDAbsent",
            message: format!("the cluster has no {name}, which {field} needs: {lost}; {fix}"),
        }
    } else {
        Trouble {
            reason: "DiscoveryUnknown",
            message: format!(
                "objects of {name} can't be listed, which {field} needs; see `operator check`"
            ),
        }
    })
}

/// Whether a pod waits for the generated Secret, which somebody deleted.
pub fn misses_generated_secret(fetched: &Fetched, secret: &str) -> bool {
    let missing = format!("\"{secret}\" not found");
    let waiting = fetched.pods.iter().any(|pod| !is_ready(pod));
    waiting
        && fetched
            .warnings
            .iter()
            .any(|warning| warning.reason == "FailedMount" && warning.message.contains(&missing))
}

fn of_pod(pod: &Pod) -> Option<Trouble> {
    let status = pod.status.as_ref()?;
    let unschedulable = status.conditions.iter().flatten().find(|c| {
        c.type_ == "PodScheduled"
            && c.status == "False"
            && c.reason.as_deref() == Some("Unschedulable")
    });
    if let Some(condition) = unschedulable {
        let why = condition.message.as_deref().unwrap_or("no node fits");
        return Some(Trouble {
            reason: "PodUnschedulable",
            message: format!("no node takes pod {}: {}", pod.name_any(), shorten(why)),
        });
    }
    status
        .container_statuses
        .iter()
        .flatten()
        .find_map(|container| of_container(pod, container))
}

fn of_container(pod: &Pod, container: &ContainerStatus) -> Option<Trouble> {
    let state = container.state.as_ref()?;
    if let Some(waiting) = &state.waiting {
        let why = waiting.reason.as_deref().unwrap_or_default();
        let message = waiting.message.as_deref().unwrap_or(why);
        match why {
            "ErrImagePull"
            | "ImagePullBackOff"
            | "InvalidImageName"
            | "ImageInspectError"
            | "ErrImageNeverPull"
            | "RegistryUnavailable"
            | "SignatureValidationFailed" => {
                return Some(Trouble {
                    reason: "ImagePullFailed",
                    message: format!(
                        "pod {} can't get image {}: {why}: {}",
                        pod.name_any(),
                        container.image,
                        shorten(message)
                    ),
                });
            }
            "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
                return Some(Trouble {
                    reason: "ContainerNotCreated",
                    message: format!("pod {}: {why}: {}", pod.name_any(), shorten(message)),
                });
            }
            _ => {}
        }
    }
    let ended = state
        .terminated
        .as_ref()
        .or(container.last_state.as_ref()?.terminated.as_ref())?;
    let last_words = ended.message.as_deref().unwrap_or_default();
    if let Some(what) = unknown(last_words).filter(|_| container.name == meta::APP) {
        return Some(Trouble {
            reason: "VersionSkew",
            message: format!(
                "pod {}: image {} does not know {what} of its configuration, so it is of another version than this \
                 operator: set spec.image to one of the operator's version, or spec.rollout.onOperatorUpgrade to Roll \
                 with spec.image empty",
                pod.name_any(),
                container.image
            ),
        });
    }
    Some(Trouble {
        reason: "PodCrashLooping",
        message: format!(
            "pod {} ended with exit code {} ({}): {}",
            pod.name_any(),
            ended.exit_code,
            ended.reason.as_deref().unwrap_or("no reason given"),
            shorten(last_words)
        ),
    })
}

/// What a server says that it does not know, in its parser's words: `field` or `variant`, and its name in backquotes.
/// The file is all ours, so the server is of a version that we did not write it for.
fn unknown(last_words: &str) -> Option<String> {
    ["field", "variant"].into_iter().find_map(|kind| {
        let (_, rest) = last_words.split_once(&format!("unknown {kind} `"))?;
        let (name, _) = rest.split_once('`')?;
        Some(format!("the {kind} {}", shorten(name)))
    })
}

fn of_pod_events(fetched: &Fetched, service: &ValidService, pod: &Pod) -> Option<Trouble> {
    let name = pod.name_any();
    // The newest is the last.
    let warning = fetched
        .warnings
        .iter()
        .rev()
        .find(|warning| warning.object == name && warning.reason == "FailedMount")?;
    let hint = [&service.keys.cluster_key]
        .into_iter()
        .chain(&service.keys.jwt_hmac)
        .chain(&service.keys.turn)
        .chain(&service.keys.amqp_url)
        .chain(&service.keys.webhook_secret)
        .find(|key| {
            warning
                .message
                .contains(&format!("\"{}\" not found", key.secret))
        })
        .map(|key| {
            format!(
                "; make it with: kubectl -n {} create secret generic {} --from-file={}=FILE",
                service.namespace, key.secret, key.key
            )
        })
        .unwrap_or_default();
    Some(Trouble {
        reason: "MountFailed",
        message: format!("pod {name}: {}{hint}", shorten(&warning.message)),
    })
}

fn of_stateful_set_events(fetched: &Fetched, service: &ValidService) -> Option<Trouble> {
    if !fetched.pods.is_empty() {
        return None;
    }
    let warning = fetched
        .warnings
        .iter()
        .rev()
        .find(|warning| warning.object == service.name && warning.reason == "FailedCreate")?;
    let refused = warning.message.contains("violates PodSecurity");
    Some(if refused {
        Trouble {
            reason: "PodSecurityConflict",
            message: format!(
                "the namespace does not allow what exposure {} needs: {}; allow it with: kubectl label namespace {} \
                 pod-security.kubernetes.io/enforce=privileged --overwrite, or use LoadBalancer or NodePort",
                service.spec.media.exposure.as_str(),
                shorten(&warning.message),
                service.namespace
            ),
        }
    } else {
        Trouble {
            reason: "PodCreateFailed",
            message: shorten(&warning.message),
        }
    })
}

/// Conditions are read in a terminal: the first 400 characters, on one line.
fn shorten(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(400) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::fetch::Warning;
    use crate::controller::offline;
    use crate::controller::validate::validate;
    use serde_json::json;

    fn pod(status: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "cam-0"}, "status": status})).unwrap()
    }

    #[test]
    fn an_image_that_does_not_exist_is_named_with_the_kubelets_words() {
        let trouble = of_pod(&pod(json!({"containerStatuses": [{
            "name": "media-server", "image": "nowhere/none:1", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}},
        }]})))
        .unwrap();
        assert_eq!(trouble.reason, "ImagePullFailed");
        assert_eq!(
            trouble.message,
            "pod cam-0 can't get image nowhere/none:1: ErrImagePull: not found"
        );
    }

    #[test]
    fn a_crash_shows_its_exit_code_and_last_words() {
        let trouble = of_pod(&pod(json!({"containerStatuses": [{
            "name": "media-server", "image": "i", "imageID": "", "ready": false, "restartCount": 3,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 2, "reason": "Error", "message": "bad\nconfig"}},
        }]})))
        .unwrap();
        assert_eq!(trouble.reason, "PodCrashLooping");
        assert_eq!(
            trouble.message,
            "pod cam-0 ended with exit code 2 (Error): bad config"
        );
    }

    /// What a server said on its standard error.
    const REFUSED: &str = "media-server: /etc/media/config/config.toml is not right: TOML parse error at line 7, column 1\n  |\n\
        7 | idle_publisher_kbps = 300\n  | ^^^^^^^^^^^^^^^^^^^\nunknown field `idle_publisher_kbps`, expected one of `a`, `b`\n";

    #[test]
    fn a_server_that_does_not_know_a_field_of_its_configuration_is_of_another_version() {
        let crashed = |container: &str, words: &str| {
            of_pod(&pod(json!({"containerStatuses": [{
                "name": container, "image": "media-server:1", "imageID": "", "ready": false, "restartCount": 3,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"exitCode": 1, "reason": "Error", "message": words}},
            }]})))
            .unwrap()
        };
        let trouble = crashed("media-server", REFUSED);
        assert_eq!(trouble.reason, "VersionSkew");
        for words in [
            "pod cam-0",
            "media-server:1",
            "field idle_publisher_kbps",
            "Roll",
        ] {
            assert!(trouble.message.contains(words), "{trouble:?}");
        }
        let of_value = crashed("media-server", "unknown variant `quic`, expected `udp`");
        assert!(of_value.message.contains("variant quic"), "{of_value:?}");
        assert_eq!(crashed("sidecar", REFUSED).reason, "PodCrashLooping");
        assert_eq!(
            crashed("media-server", "unknown field").reason,
            "PodCrashLooping"
        );
    }

    #[test]
    fn a_missing_secret_of_events_is_named_with_the_command_that_makes_it() {
        let service = serde_json::from_value(json!({
            "apiVersion": "mediaservice.io/v1alpha1", "kind": "MediaService",
            "metadata": {"name": "cam", "namespace": "media"},
            "spec": {"events": {
                "amqpURLSecretRef": {"name": "bus", "key": "url"},
                "webhookURL": "https://events.example.com/",
                "webhookSecretRef": {"name": "hook", "key": "secret"},
            }},
        }));
        let mut fetched = offline(service.unwrap(), "i:1".into());
        let service = validate(&fetched).unwrap();
        for (secret, key) in [("bus", "url"), ("hook", "secret")] {
            fetched.warnings = vec![Warning {
                object: "cam-0".into(),
                reason: "FailedMount".into(),
                message: format!("MountVolume.SetUp failed: secret \"{secret}\" not found"),
            }];
            let trouble = of_pod_events(&fetched, &service, &pod(json!({}))).unwrap();
            let command = format!("-n media create secret generic {secret} --from-file={key}=FILE");
            assert!(trouble.message.contains(&command), "{}", trouble.message);
        }
    }

    #[test]
    fn a_pod_that_is_only_starting_is_no_trouble() {
        let starting = pod(json!({"containerStatuses": [{
            "name": "media-server", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "ContainerCreating"}},
        }]}));
        assert_eq!(of_pod(&starting), None);
    }
}
